"""Asks by the stubs of tensorflow-serving-api, which tensorflow-serving-client-grpc has too: PORT ROWS."""

import json
import sys

import grpc
from tensorflow.core.framework import types_pb2
from tensorflow_serving.apis import classification_pb2, predict_pb2, prediction_service_pb2_grpc, regression_pb2

rows = json.loads(sys.argv[2])
stub = prediction_service_pb2_grpc.PredictionServiceStub(grpc.insecure_channel(f"127.0.0.1:{sys.argv[1]}"))
FIELDS = [("price", "DT_FLOAT", "float_val"), ("site", "DT_STRING", "string_val"), ("slot", "DT_INT64", "int64_val")]


def predict(version):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "clicks"
    if version:
        request.model_spec.version.value = version
    for name, dtype, field in FIELDS:
        tensor = request.inputs[name]
        tensor.dtype = types_pb2.DataType.Value(dtype)
        tensor.tensor_shape.dim.add().size = len(rows[name])
        getattr(tensor, field).extend(v.encode() if isinstance(v, str) else v for v in rows[name])
    return list(stub.Predict(request).outputs["probability"].float_val)


def fill(request, signature):
    request.model_spec.name, request.model_spec.signature_name = "clicks", signature
    for price, site, slot in zip(*(rows[name] for name, _, _ in FIELDS), strict=True):
        feature = request.input.example_list.examples.add().features.feature
        feature["price"].float_list.value.append(price)
        feature["site"].bytes_list.value.append(site.encode())
        feature["slot"].int64_list.value.append(slot)
    return request


answers = {"newest": predict(None), "1": predict(1)}
regression = stub.Regress(fill(regression_pb2.RegressionRequest(), "regress"))
classification = stub.Classify(fill(classification_pb2.ClassificationRequest(), "classify"))
assert [c.classes[1].score for c in classification.result.classifications] == answers["newest"]
answers["2"] = [regressed.value for regressed in regression.result.regressions]
print(json.dumps(answers))
