"""Asks by serving-utils, over its synchronous and its asynchronous channel: PORT ROWS."""

import asyncio
import json
import sys

import numpy as np
from serving_utils import Client, PredictInput

rows = json.loads(sys.argv[2])
data = [
    PredictInput("price", np.float32(rows["price"])),
    PredictInput("site", np.array(rows["site"], object)),
    PredictInput("slot", np.int64(rows["slot"])),
]
loop = asyncio.new_event_loop()
client = Client("127.0.0.1", int(sys.argv[1]), n_trys=1, loop=loop)
answer = client.predict(data, model_name="clicks", model_signature_name="serving_default", output_names=["probability"])
later = loop.run_until_complete(client.async_predict(data, model_name="clicks"))
assert later["probability"].tolist() == answer["probability"].tolist()
print(json.dumps({"newest": answer["probability"].tolist()}))
