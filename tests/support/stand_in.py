"""A tiny model behind TF Serving's two APIs, written from their documentation, for tests of clients."""

import base64
import concurrent.futures
import contextlib
import http.server
import json
import re
import ssl
import threading
import time
from pathlib import Path

import grpc
import numpy as np
import tensorflow as tf
from tensorflow.core.framework import types_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

TOKEN = "secret"
HTTP = {
    "INVALID_ARGUMENT": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 429,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
}
INPUTS = {"price": ("DT_FLOAT", [-1]), "site": ("DT_STRING", [-1]), "slot": ("DT_INT64", [-1])}
RANK = {"price": ("DT_FLOAT", [-1, -1]), "site": ("DT_STRING", [-1])}
SIGNATURES = {
    "serving_default": (INPUTS, {"score": ("DT_FLOAT", [-1]), "site_bytes": ("DT_STRING", [-1])}),
    "one_output": (INPUTS, {"probability": ("DT_FLOAT", [-1])}),
    "rank": (RANK, {"scores": ("DT_FLOAT", [-1, -1]), "order": ("DT_INT32", [-1, -1])}),
    "rank_top_k": (
        {**RANK, "k": ("DT_INT32", [-1])},
        {"scores": ("DT_FLOAT", [-1, -1]), "indices": ("DT_INT32", [-1, -1])},
    ),
}
NUMPY = {"DT_FLOAT": np.float32, "DT_STRING": object, "DT_INT64": np.int64, "DT_INT32": np.int32}


class Refused(Exception):
    """With a code and a message."""


def compute(spec, signature, inputs):
    """The outputs; a site called as an error code is that error."""
    if spec not in ("", "1", "stable"):
        raise Refused("NOT_FOUND", f"no version {spec}")
    if signature not in SIGNATURES:
        raise Refused("NOT_FOUND", f"no signature {signature}")
    wanted = SIGNATURES[signature][0]
    if set(inputs) != set(wanted):
        raise Refused("INVALID_ARGUMENT", f"input keys {sorted(set(inputs) ^ set(wanted))} do not match")
    for name, (dtype, shape) in wanted.items():
        if inputs[name].dtype != NUMPY[dtype] or inputs[name].ndim != len(shape):
            raise Refused("INVALID_ARGUMENT", f"{name} is {inputs[name].dtype} {inputs[name].shape}")
    site = inputs["site"]
    if len(site) and site[0] == b"SLOW":
        time.sleep(1)
    if len(site) and site[0].decode("latin1") in HTTP:
        raise Refused(site[0].decode(), f"the site is {site[0].decode()}")
    price = np.nan_to_num(inputs["price"], nan=100)
    if signature == "rank":
        return {"scores": price, "order": np.argsort(-price, axis=1).astype(np.int32)}
    if signature == "rank_top_k":
        indices = np.argsort(-price, axis=1)[:, : inputs["k"].max()]
        return {"scores": np.take_along_axis(price, indices, 1), "indices": indices.astype(np.int32)}
    score = price + inputs["slot"].astype(np.float32)
    return {"probability": score} if signature == "one_output" else {"score": score, "site_bytes": site}


def row_scores(rows):
    """Of Examples, as dicts of lists: what regress answers."""
    return [row.get("price", [100.0])[0] + row["slot"][0] for row in rows]


class Prediction(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, token):
        self.token = token

    def check(self, context):
        if self.token and ("authorization", f"Bearer {self.token}") not in context.invocation_metadata():
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "no token")

    def Predict(self, request, context):
        self.check(context)
        spec = request.model_spec
        version = spec.version_label or (str(spec.version.value) if spec.HasField("version") else "")
        try:
            inputs = {n: tf.make_ndarray(t) for n, t in request.inputs.items()}
            outputs = compute(version, spec.signature_name, inputs)
        except Refused as e:
            context.abort(getattr(grpc.StatusCode, e.args[0]), e.args[1])
        return predict_pb2.PredictResponse(outputs={n: tf.make_tensor_proto(a) for n, a in outputs.items()})

    def rows(self, request):
        names = {"price": "float_list", "slot": "int64_list", "site": "bytes_list"}
        examples = [e.features.feature for e in request.input.example_list.examples]
        return [{n: list(getattr(e[n], names[n]).value) for n in e} for e in examples]

    def Regress(self, request, context):
        self.check(context)
        response = regression_pb2.RegressionResponse()
        for score in row_scores(self.rows(request)):
            response.result.regressions.add(value=score)
        return response

    def Classify(self, request, context):
        response = classification_pb2.ClassificationResponse()
        for score in row_scores(self.rows(request)):
            row = response.result.classifications.add()
            row.classes.add(label="0", score=-score)
            row.classes.add(label="1", score=score)
        return response

    def GetModelMetadata(self, request, context):
        self.check(context)
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        signature_defs = get_model_metadata_pb2.SignatureDefMap()
        for name, sides in SIGNATURES.items():
            signature = signature_defs.signature_def[name]
            for tensors, target in zip(sides, (signature.inputs, signature.outputs), strict=True):
                for tensor, (dtype, shape) in tensors.items():
                    target[tensor].dtype = types_pb2.DataType.Value(dtype)
                    target[tensor].tensor_shape.CopyFrom(tf.TensorShape([None] * len(shape)).as_proto())
        response.metadata["signature_def"].Pack(signature_defs)
        return response


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    def GetModelStatus(self, request, context):
        if request.model_spec.name != "clicks":
            context.abort(grpc.StatusCode.NOT_FOUND, "no model")
        response = get_model_status_pb2.GetModelStatusResponse()
        response.model_version_status.add(version=1, state="AVAILABLE")
        end = response.model_version_status.add(version=2, state="END")
        end.status.error_message = "broken"
        return response


@contextlib.contextmanager
def grpc_server(token=None, tls=None):
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(4))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Prediction(token), server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(ModelService(), server)
    if tls:
        key, certificate = (Path(path).read_bytes() for path in tls)
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, certificate)]))
    else:
        port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"grpc{'s' if tls else ''}://127.0.0.1:{port}"
    server.stop(None)


def from_json(values, dtype):
    """An array; the texts as bytes."""

    def element(v):
        if isinstance(v, list):
            return [element(x) for x in v]
        return base64.b64decode(v["b64"]) if isinstance(v, dict) else v.encode()

    return np.array(element(values), object) if dtype == "DT_STRING" else np.array(values, NUMPY.get(dtype))


def to_json(name, array):
    if name.endswith("_bytes"):  # how TF Serving knows what is no text
        return [{"b64": base64.b64encode(v).decode()} for v in array]
    return array.tolist()


class Handler(http.server.BaseHTTPRequestHandler):
    token = None

    def log_message(self, *args):
        pass

    def answer(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def guarded(self, work):
        try:
            if self.token and self.headers.get("Authorization") != f"Bearer {self.token}":
                raise Refused("UNAUTHENTICATED", "no token")
            self.answer(200, work())
        except Refused as e:
            self.answer(HTTP[e.args[0]], {"error": e.args[1]})

    def do_GET(self):
        self.guarded(self.get)

    def do_POST(self):
        self.guarded(self.post)

    def get(self):
        if self.path == "/v1/models/clicks/metadata":
            signatures = {
                name: {
                    side: {
                        tensor: {
                            "dtype": dtype,
                            "tensor_shape": {
                                "dim": [{"size": str(n), "name": ""} for n in shape],
                                "unknown_rank": False,
                            },
                            "name": f"{tensor}:0",
                        }
                        for tensor, (dtype, shape) in tensors.items()
                    }
                    for side, tensors in zip(("inputs", "outputs"), sides, strict=True)
                }
                | {"method_name": "tensorflow/serving/predict", "defaults": {}}
                for name, sides in SIGNATURES.items()
            }
            spec = {"name": "clicks", "signature_name": "", "version": "1"}
            return {"model_spec": spec, "metadata": {"signature_def": {"signature_def": signatures}}}
        if re.fullmatch(r"/v1/models/clicks/(versions|labels)/[^/]*/metadata", self.path):
            self.path = "/v1/models/clicks/metadata"
            return self.get()
        if self.path != "/v1/models/clicks":
            raise Refused("NOT_FOUND", "no model")
        ok, broken = {"error_code": "OK", "error_message": ""}, {"error_code": "INTERNAL", "error_message": "broken"}
        return {
            "model_version_status": [
                {"version": "1", "state": "AVAILABLE", "status": ok},
                {"version": "2", "state": "END", "status": broken},
            ]
        }

    def post(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        path = r"/v1/models/clicks(?:/(?:versions|labels)/([^/:]*))?:(predict|regress|classify)"
        version, verb = re.fullmatch(path, self.path).groups()
        if verb != "predict":
            rows = [{n: v if isinstance(v, list) else [v] for n, v in row.items()} for row in body["examples"]]
            assert all(isinstance(r.get("price", [0.0])[0], float) for r in rows), "a whole number is an int64 list"
            scores = row_scores(rows)
            return {"results": scores if verb == "regress" else [[["0", -s], ["1", s]] for s in scores]}
        signature = body["signature_name"]
        types = {n: t for n, (t, _) in SIGNATURES.get(signature, ({},))[0].items()}
        inputs = {n: from_json(v, types.get(n)) for n, v in body["inputs"].items()}
        outputs = {n: to_json(n, a) for n, a in compute(version or "", signature, inputs).items()}
        return {"outputs": outputs if len(outputs) > 1 else next(iter(outputs.values()))}


@contextlib.contextmanager
def rest_server(token=None, tls=None):
    handler = type("WithToken", (Handler,), {"token": token})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls[1], tls[0])
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http{'s' if tls else ''}://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()
