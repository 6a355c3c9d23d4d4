"""Small bundles with every signature, whose scores can be worked out by hand, and a server that runs in a thread.

Of version V: probability = V + price / 8 + len(site) / 16 + slot / 64, exactly; a missing price (NaN) counts as 0.
"""

import asyncio
import contextlib
import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import httpx
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import classification_pb2, predict_pb2, prediction_log_pb2, regression_pb2

from tfrs_dlrm.serving.bundle.manifest import BundleManifest, read_manifest, write_manifest
from tfrs_dlrm.serving.runtime.tfrecord import record
from tfrs_dlrm.serving.server.inference import InferenceOptions
from tfrs_dlrm.serving.server.model_server import ModelServer, ServerOptions

FEATURES = [
    {"name": "price", "kind": "dense", "dtype": "float32", "missing": None, "context": False, "example": 4.5},
    {"name": "site", "kind": "categorical", "dtype": "string", "missing": "", "context": True, "example": "abc"},
    {"name": "slot", "kind": "categorical", "dtype": "int64", "missing": -1, "context": False, "example": 9},
]
for _feature in FEATURES:
    _feature |= {"rank": 1, "separator": None, "may_be_missing": True}


def by_hand(version, price, site, slot):
    return version + (0 if np.isnan(price) else price) / 8 + len(site) / 16 + slot / 64


class _Scores(tf.Module):
    def __init__(self, version):
        super().__init__()
        self.version = tf.Variable(float(version))

    def score(self, price, site, slot):
        bad = tf.reduce_any(slot < -1000)
        with tf.control_dependencies([tf.Assert(~bad, ["feature slot: below -1000"])]):
            price = tf.where(tf.math.is_nan(price), 0.0, price)
        length = tf.cast(tf.strings.length(site), tf.float32)
        return self.version + price / 8 + length / 16 + tf.cast(slot, tf.float32) / 64

    def parse(self, examples):
        spec = {
            "price": tf.io.FixedLenFeature([], tf.float32, np.nan),
            "site": tf.io.FixedLenFeature([], tf.string, ""),
            "slot": tf.io.FixedLenFeature([], tf.int64, -1),
        }
        return self.score(**tf.io.parse_example(examples, spec))


def _signatures(module):
    def spec(name, dtype, *shape):
        return tf.TensorSpec(shape, dtype, name)

    raw = spec("price", tf.float32, None), spec("site", tf.string, None), spec("slot", tf.int64, None)
    candidates = spec("price", tf.float32, None, None), spec("slot", tf.int64, None, None)

    def rank(site, price, slot):
        scores = module.score(price, site[:, None], slot)
        return {"scores": scores, "order": tf.argsort(scores, direction="DESCENDING", stable=True)}

    def rank_top_k(site, price, slot, k):
        scores = module.score(price, site[:, None], slot)
        best = tf.math.top_k(scores, tf.minimum(tf.reduce_max(k), tf.shape(scores)[1]))
        return {"scores": best.values, "indices": best.indices}

    def classify(inputs):
        p = module.parse(inputs)
        labels = tf.tile([["0", "1"]], [tf.size(p), 1])
        return {"scores": tf.stack([1 - p, p], 1), "classes": labels}

    def encoded(ids, dense):
        with tf.control_dependencies([tf.debugging.check_numerics(dense, "input 'dense'")]):
            return {"probability": tf.reduce_sum(tf.cast(ids, tf.float32), 1) / 8 + tf.reduce_sum(dense, 1)}

    functions = {
        "serving_default": (lambda price, site, slot: {"probability": module.score(price, site, slot)}, raw),
        "serialized_examples": (
            lambda examples: {"probability": module.parse(examples)},
            [spec("examples", tf.string, None)],
        ),
        "regress": (lambda inputs: {"outputs": module.parse(inputs)}, [spec("inputs", tf.string, None)]),
        "classify": (classify, [spec("inputs", tf.string, None)]),
        "encoded": (encoded, [spec("ids", tf.int32, None, 2), spec("dense", tf.float32, None, 1)]),
        "rank": (rank, [spec("site", tf.string, None), *candidates]),
        "rank_top_k": (rank_top_k, [spec("site", tf.string, None), *candidates, spec("k", tf.int32, None)]),
    }
    return {name: tf.function(f, input_signature=list(specs)) for name, (f, specs) in functions.items()}


def example(**features):
    def feature(value):
        if isinstance(value, bytes):
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
        if isinstance(value, int):
            return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
        return tf.train.Feature(float_list=tf.train.FloatList(value=[value]))

    return tf.train.Example(features=tf.train.Features(feature={k: feature(v) for k, v in features.items()}))


def predict_request(inputs, signature="", name="clicks", version=None, label=None):
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = name, signature
    if version:
        request.model_spec.version.value = version
    if label:
        request.model_spec.version_label = label
    for key, value in inputs.items():
        request.inputs[key].CopyFrom(tf.make_tensor_proto(value))
    return request


def warmup_logs(name):
    logs = []
    predict = predict_request({"price": np.float32([1]), "site": [b"a"], "slot": np.int64([2])})
    regress, classify = regression_pb2.RegressionRequest(), classification_pb2.ClassificationRequest()
    for request, method in ((predict, "serving_default"), (regress, "regress"), (classify, "classify")):
        request.model_spec.name, request.model_spec.signature_name = name, method
        log = prediction_log_pb2.PredictionLog()
        if method == "serving_default":
            log.predict_log.request.CopyFrom(request)
        else:
            request.input.example_list.examples.append(example(price=1.0, site=b"a"))
            getattr(log, f"{method}_log").request.CopyFrom(request)
        logs.append(log)
    return logs


def make(root, version, damage=None):
    """A version, which appears by a rename; `damage(path)` may change it before, and after the manifest."""
    root = os.fspath(root)
    os.makedirs(root, exist_ok=True)
    path = os.path.join(root, f".{version}.part")
    module = _Scores(version)
    tf.saved_model.save(module, path, _signatures(module))
    file = os.path.join(path, "saved_model.pb")
    saved = read_saved_model(file)
    for name in ("regress", "classify"):
        saved.meta_graphs[0].signature_def[name].method_name = f"tensorflow/serving/{name}"
    with open(file, "wb") as f:
        f.write(saved.SerializeToString())
    extra = os.path.join(path, "assets.extra")
    os.makedirs(extra)
    with open(os.path.join(extra, "tf_serving_warmup_requests"), "wb") as f:
        f.writelines(record(log.SerializeToString()) for log in warmup_logs(os.path.basename(root)))
    with open(os.path.join(extra, "reference.jsonl"), "w") as f:
        for price, site, slot in ((4.5, "abc", 9), (None, "", -1)):
            expected = by_hand(version, np.nan if price is None else price, site, slot)
            f.write(
                json.dumps({"inputs": {"price": price, "site": site, "slot": slot}, "probability": expected}) + "\n"
            )
    described = {"context": ["site"], "features": FEATURES, "tolerance": 1e-6, "tolerance_up_to": 1.0}
    write_manifest(path, BundleManifest.from_json(described))
    if damage:
        damage(path)
    os.rename(path, os.path.join(root, str(version)))


def seal(path):
    """Makes bundle.json list the files as they are now: a damage that no checksum shows."""
    write_manifest(os.fspath(path), read_manifest(os.fspath(path)))


def read_saved_model(file):
    from tensorflow.core.protobuf import saved_model_pb2

    with open(file, "rb") as f:
        return saved_model_pb2.SavedModel.FromString(f.read())


@contextlib.contextmanager
def _running(**attributes):
    """What a test sees of a server; `.http` asks it over a new connection each time, with a generous deadline."""
    limits = httpx.Limits(max_keepalive_connections=0)
    with httpx.Client(base_url=attributes["rest"], timeout=120, limits=limits) as http:
        yield SimpleNamespace(http=http, **attributes)


@contextlib.contextmanager
def serving(directory, versions, options=None, **service):
    """Makes versions of the model `clicks` below a directory and serves them, see `running`."""
    for version in versions:
        make(directory / "clicks", version)
    with running(directory / "clicks", options=options, **service) as server:
        yield server


@contextlib.contextmanager
def running(root, security=None, options=None, **service):
    """A ModelServer in a thread: addresses `.rest` and `.grpc`, a client `.http`, `.server`, `.call(coroutine)`."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def call(coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(300)

    async def make_server():
        given = ServerOptions(
            os.fspath(root), 0, 0, **({"security": security} if security else {}), **(options or {}),
            service=InferenceOptions(**{"poll_seconds": 0.05, "threads": 2, **service}),
        )  # fmt: skip
        server = ModelServer(given)
        await server.start()
        return server

    server = call(make_server())
    try:
        rest, address = f"http://127.0.0.1:{server.rest_port}", f"127.0.0.1:{server.grpc_port}"
        with _running(server=server, call=call, rest=rest, grpc=address) as seen:
            yield seen
    finally:
        call(server.stop())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextlib.contextmanager
def program(root, *given, files=None):
    """`export/serve.py` as a process, with `.process` and a file `.log`; it has at most `files` descriptors."""
    repository = Path(__file__).parents[2]
    command = [sys.executable, "export/serve.py", os.fspath(root), "--rest_port=0", "--grpc_port=0", *given]
    if files:
        command = ["sh", "-c", f'ulimit -n {files} && exec "$@"', "sh", *command]
    log = Path(f"{root}.log")
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    with open(log, "w") as err:
        process = subprocess.Popen(
            command, cwd=repository, env=environment, stdout=subprocess.PIPE, stderr=err, text=True
        )
    try:
        rest = address = ""
        while not address:
            line = process.stdout.readline()
            assert line, log.read_text()
            rest = rest or "".join(re.findall(r"http://[\d.:]+\d", line)[:1])
            address = "".join(re.findall(r"gRPC ([\d.:]+)", line))
        with _running(process=process, rest=rest, grpc=address, log=log) as seen:
            yield seen
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
