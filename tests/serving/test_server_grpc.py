"""The local server's gRPC: TF Serving's own stubs get the scores worked out by hand, and codes for what is wrong."""

import concurrent.futures

import grpc
import numpy as np
import pytest
import serving_bundles
import tensorflow as tf
from grpc_health.v1 import health_pb2, health_pb2_grpc
from serving_bundles import by_hand, example
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    root = tmp_path_factory.mktemp("grpc") / "clicks"
    for version in (3, 4):
        serving_bundles.make(root, version)
    with serving_bundles.running(root, keep=2, max_request_bytes=4 << 20) as running:
        yield running


@pytest.fixture(scope="module")
def channel(server):
    with grpc.insecure_channel(server.grpc) as channel:
        yield channel


@pytest.fixture(scope="module")
def prediction(channel):
    return prediction_service_pb2_grpc.PredictionServiceStub(channel)


def request(inputs, signature="", name="clicks", **spec):
    built = predict_pb2.PredictRequest()
    built.model_spec.name, built.model_spec.signature_name = name, signature
    if "version" in spec:
        built.model_spec.version.value = spec["version"]
    if "label" in spec:
        built.model_spec.version_label = spec["label"]
    for key, value in inputs.items():
        built.inputs[key].CopyFrom(tf.make_tensor_proto(value))
    return built


RAW = {"price": np.float32([4, np.nan]), "site": [b"abc", b""], "slot": np.int64([8, -1])}
EXPECTED = [by_hand(4, 4, "abc", 8), by_hand(4, 0, "", -1)]


def test_predict(prediction):
    answer = prediction.Predict(request(RAW))
    assert tf.make_ndarray(answer.outputs["probability"]).tolist() == EXPECTED
    spec = answer.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("clicks", 4, "serving_default")
    one = {key: value[:1] for key, value in RAW.items()}
    older = prediction.Predict(request(one, version=3))
    assert tf.make_ndarray(older.outputs["probability"]).tolist() == [EXPECTED[0] - 1]
    rank = {"site": [b"abc"], "price": np.float32([[0, 8, 4]]), "slot": np.int64([[0, 0, 0]])}
    filtered = request(rank, "rank")
    filtered.output_filter.append("order")
    answer = prediction.Predict(filtered)
    assert list(answer.outputs) == ["order"] and tf.make_ndarray(answer.outputs["order"]).tolist() == [[1, 2, 0]]


def test_regress_and_classify_take_examples_and_their_context(prediction):
    regress = regression_pb2.RegressionRequest()
    regress.model_spec.name, regress.model_spec.signature_name = "clicks", "regress"
    regress.input.example_list.examples.extend([example(price=4.0, site=b"abc", slot=8), example()])
    values = [r.value for r in prediction.Regress(regress).result.regressions]
    assert values == EXPECTED
    classify = classification_pb2.ClassificationRequest()
    classify.model_spec.name, classify.model_spec.signature_name = "clicks", "classify"
    listed = classify.input.example_list_with_context
    listed.context.CopyFrom(example(site=b"abc", slot=1))
    listed.examples.extend([example(price=4.0, slot=8)])
    (row,) = prediction.Classify(classify).result.classifications
    assert [(c.label, c.score) for c in row.classes] == [("0", 1 - EXPECTED[0]), ("1", EXPECTED[0])]


def test_metadata_status_and_labels(prediction, channel):
    ask = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    ask.model_spec.name = "clicks"
    answer = prediction.GetModelMetadata(ask)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert answer.model_spec.version.value == 4 and answer.metadata["signature_def"].Unpack(signatures)
    assert signatures.signature_def["serving_default"].inputs["slot"].dtype == tf.int64.as_datatype_enum
    models = model_service_pb2_grpc.ModelServiceStub(channel)
    status = get_model_status_pb2.GetModelStatusRequest()
    status.model_spec.name = "clicks"
    states = [(s.version, s.state) for s in models.GetModelStatus(status).model_version_status]
    available = get_model_status_pb2.ModelVersionStatus.AVAILABLE
    assert states == [(4, available), (3, available)]
    reload = model_management_pb2.ReloadConfigRequest()
    config = reload.config.model_config_list.config.add(name="clicks")
    config.version_labels["stable"] = 3
    assert models.HandleReloadConfigRequest(reload).status.error_code == 0
    older = prediction.Predict(request(RAW, label="stable"))
    assert tf.make_ndarray(older.outputs["probability"]).tolist() == [p - 1 for p in EXPECTED]
    config.version_labels["stable"] = 9
    assert code(lambda: models.HandleReloadConfigRequest(reload))[0] == "NOT_FOUND"


def code(call):
    with pytest.raises(grpc.RpcError) as raised:
        call()
    return raised.value.code().name, raised.value.details()


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
        (request(RAW, "nonsense"), ["'nonsense'", "serving_default"]),
        (request(RAW, name=""), ["model_spec.name"]),
        (wrong_count, ["'price'", "[7]"]),
        (huge, ["'price'"]),
    ]
    for bad, words in cases:
        name, details = code(lambda bad=bad: prediction.Predict(bad))
        assert name == "INVALID_ARGUMENT" and all(word in details for word in words), details
    raw = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
    name, details = code(lambda: raw(b"\xff" * 40))
    assert name == "INVALID_ARGUMENT" and "PredictRequest" in details
    assert code(lambda: prediction.Predict(request(RAW, name="other")))[0] == "NOT_FOUND"
    assert code(lambda: prediction.Predict(request(RAW, version=9)))[0] == "NOT_FOUND"
    large = request({**RAW, "site": [b"x" * (5 << 20), b""]})
    assert code(lambda: prediction.Predict(large))[0] == "RESOURCE_EXHAUSTED"
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


def test_health(channel):
    stub = health_pb2_grpc.HealthStub(channel)
    for service in ("", "tensorflow.serving.PredictionService"):
        answer = stub.Check(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
