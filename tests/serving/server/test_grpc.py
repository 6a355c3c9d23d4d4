"""The local server's gRPC: codes for what is wrong, batches, health; see test_contract.py for what is right."""

import concurrent.futures
import threading

import numpy as np
import pytest
import serving_bundles
import tensorflow as tf
from grpc_health.v1 import health_pb2, health_pb2_grpc
from rpc_errors import code
from serving_bundles import by_hand, example
from serving_bundles import predict_request as request
from tensorflow_serving.apis import (
    classification_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    regression_pb2,
)

from tfrs_dlrm.serving.runtime import requests
from tfrs_dlrm.serving.server import grpc_service


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    directory = tmp_path_factory.mktemp("grpc")
    with serving_bundles.serving(directory, (3, 4), keep=2, max_request_bytes=4 << 20) as running:
        yield running


RAW = {"price": np.float32([4, np.nan]), "site": [b"abc", b""], "slot": np.int64([8, -1])}
EXPECTED = [by_hand(4, 4, "abc", 8), by_hand(4, 0, "", -1)]


def test_bad_requests_have_a_code_and_name_the_feature(prediction, channel):
    wrong_count = request(RAW)
    wrong_count.inputs["price"].tensor_shape.dim[0].size = 7
    huge = request(RAW)
    huge.inputs["price"].tensor_shape.dim[0].size = 2**62
    cases = [
        (request({k: v for k, v in RAW.items() if k != "slot"}), ["'slot'", "missing"]),
        (request({**RAW, "prise": np.float32([1, 2])}), ["'prise'"]),
        (request({**RAW, "\u00e9" * 100_000: np.float32([1, 2])}), ["unknown input", "price"]),
        (request({**RAW, "slot": np.int32([1, 2])}), ["'slot'", "int32", "int64"]),
        (request({**RAW, "price": np.float32([[1], [2]])}), ["'price'", "rank 2"]),
        (request({**RAW, "price": np.float32([1])}), ["unequal batch sizes", "'price'"]),
        (request({"price": np.float32([]), "site": np.array([], bytes), "slot": np.int64([])}), ["'price'", "empty"]),
        (request({**RAW, "site": [b"x" * 1_000_000, b""]}), ["'site'", "1000000"]),
        (request({"examples": [b"junk"]}, "serialized_examples"), ["'examples'", "parse"]),
        (request({"ids": np.int32([[1, 2]]), "dense": np.float32([[np.nan]])}, "encoded"), ["'dense'"]),
        (request(RAW, name=""), ["model_spec.name"]),
        (wrong_count, ["'price'", "[7]"]),
        (huge, ["'price'"]),
    ]
    for bad, words in cases:
        name, details = code(lambda bad=bad: prediction.Predict(bad))
        assert name == "INVALID_ARGUMENT" and all(word in details for word in words), details
    name, details = code(lambda: prediction.Predict(request(RAW, "nonsense")))
    assert name == "FAILED_PRECONDITION" and "serving_default" in details
    raw = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
    name, details = code(lambda: raw(b"\xff" * 40))
    assert name == "INVALID_ARGUMENT" and "PredictRequest" in details
    assert code(lambda: prediction.Predict(request(RAW, name="other")))[0] == "NOT_FOUND"
    assert code(lambda: prediction.Predict(request(RAW, version=9)))[0] == "NOT_FOUND"
    large = request({**RAW, "site": [b"x" * (5 << 20), b""]})
    assert code(lambda: prediction.Predict(large))[0] == "RESOURCE_EXHAUSTED"
    labels = model_management_pb2.ReloadConfigRequest()
    labels.config.model_config_list.config.add(name="clicks").version_labels["stable"] = 9
    models = model_service_pb2_grpc.ModelServiceStub(channel)
    assert code(lambda: models.HandleReloadConfigRequest(labels))[0] == "FAILED_PRECONDITION"
    empty = regression_pb2.RegressionRequest()
    empty.model_spec.name, empty.model_spec.signature_name = "clicks", "regress"
    name, details = code(lambda: prediction.Regress(empty))
    assert name == "INVALID_ARGUMENT" and "empty batch" in details
    empty.input.example_list.examples.add(features=example(price=b"text").features)
    name, details = code(lambda: prediction.Regress(empty))
    assert name == "INVALID_ARGUMENT" and "price" in details
    assert tf.make_ndarray(prediction.Predict(request(RAW)).outputs["probability"]).tolist() == EXPECTED


def test_requests_of_other_sizes_are_merged_and_come_back_to_their_callers(prediction, server):
    rng = np.random.default_rng(0)
    batches = [
        {"price": rng.integers(0, 99, n).astype(np.float32), "site": [b"a"] * n, "slot": rng.integers(0, 99, n)}
        for n in rng.integers(1, 200, 60)
    ]
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda batch: prediction.Predict(request(batch)), batches))
    for batch, answer in zip(batches, answers, strict=True):
        expected = 4 + batch["price"] / 8 + 1 / 16 + batch["slot"] / 64
        np.testing.assert_array_equal(tf.make_ndarray(answer.outputs["probability"]), expected.astype(np.float32))


def test_tensors_that_would_take_much_memory_are_refused_before_they_are_made(prediction, server, monkeypatch):
    monkeypatch.setattr(requests, "from_proto", lambda proto: pytest.fail("it was made"))
    large, many = request(RAW), request(RAW)
    for name, dim in (("price", 1 << 20), ("site", 1 << 20), ("slot", 1 << 20)):  # two values stand for a million
        large.inputs[name].tensor_shape.dim[0].size = dim
    large.inputs["site"].string_val[-1] = b"x" * 100
    for name in ("price", "slot"):
        large.inputs[name].tensor_content = b""
        (large.inputs[name].float_val if name == "price" else large.inputs[name].int64_val).extend([1, 2])
        for number in range(10_000):
            many.inputs[f"{name}{number}"].CopyFrom(large.inputs[name])
    name, details = code(lambda: prediction.Predict(large))
    assert name == "RESOURCE_EXHAUSTED" and "bytes of memory, larger than max" in details
    name, details = code(lambda: prediction.Predict(many))
    assert name == "INVALID_ARGUMENT" and "input size does not match signature: 20003!=3" in details
    assert server.server.service.admission.memory == 0


@pytest.mark.parametrize("method", ["Regress", "Classify"])
def test_long_answers_are_built_in_a_thread_so_that_others_do_not_wait(prediction, monkeypatch, method):
    kind, built = {"Regress": "regression", "Classify": "classification"}[method], []
    fill = getattr(grpc_service, f"_fill_{kind}s")

    def noted(*arguments):
        built.append(threading.current_thread().name)
        fill(*arguments)

    monkeypatch.setattr(grpc_service, f"_fill_{kind}s", noted)
    message = {"Regress": regression_pb2.RegressionRequest, "Classify": classification_pb2.ClassificationRequest}[
        method
    ]
    long = message()
    long.model_spec.name, long.model_spec.signature_name = "clicks", method.lower()
    for slot in range(1500):
        long.input.example_list.examples.append(example(price=4.0, site=b"abc", slot=slot))
    answer = getattr(prediction, method)(long)
    if method == "Regress":
        found = [r.value for r in answer.result.regressions]
    else:
        found = [c.classes[1].score for c in answer.result.classifications]
    np.testing.assert_allclose(found, [by_hand(4, 4, "abc", slot) for slot in range(1500)], rtol=1e-6)
    assert len(built) == 1 and built[0].startswith("convert")


def test_health(channel):
    stub = health_pb2_grpc.HealthStub(channel)
    for service in ("", "tensorflow.serving.PredictionService"):
        answer = stub.Check(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == next(stub.Watch(health_pb2.HealthCheckRequest(service=service))).status
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    for bad, words in (("x" * 5000, "at most 1024"), (None, "no HealthCheckRequest")):
        data = b"\xff" if bad is None else health_pb2.HealthCheckRequest(service=bad).SerializeToString()
        name, details = code(lambda data=data: channel.unary_unary("/grpc.health.v1.Health/Check")(data))
        assert name == "INVALID_ARGUMENT" and words in details
