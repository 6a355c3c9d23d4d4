"""Asks by min-tfs-client, which reads `float_val` and its siblings only: PORT ROWS."""

import json
import sys

import numpy as np
from min_tfs_client.requests import TensorServingClient
from min_tfs_client.tensors import tensor_proto_to_ndarray

rows = json.loads(sys.argv[2])
inputs = {"price": np.float32(rows["price"]), "site": np.array(rows["site"]), "slot": np.int64(rows["slot"])}
client = TensorServingClient("127.0.0.1", int(sys.argv[1]))
answers = {}
for name, version in (("newest", None), ("1", 1), ("2", 2)):
    response = client.predict_request("clicks", inputs, model_version=version)
    answers[name] = tensor_proto_to_ndarray(response.outputs["probability"]).tolist()
print(json.dumps(answers))
