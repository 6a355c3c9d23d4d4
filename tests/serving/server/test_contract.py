"""The requests and answers that TF Serving publishes: of the local server, and of TF Serving where it is there.

https://www.tensorflow.org/tfx/serving/api_rest, and the protos of tensorflow-serving-api. Where there is a
`tensorflow_model_server` on the PATH, every test is run against it too; none asks for what only the local server says.
"""

import base64
import contextlib
import json
import shutil
import socket
import subprocess
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
import serving_bundles
import tensorflow as tf
from rpc_errors import code
from serving_bundles import by_hand, example
from serving_bundles import predict_request as request
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    regression_pb2,
)
from waiting import wait_for

REAL = shutil.which("tensorflow_model_server")
CONFIG = """model_config_list {{ config {{ name: "clicks" base_path: "{root}" model_platform: "tensorflow"
  model_version_policy {{ specific {{ versions: 3 versions: 4 }} }} }} }}"""
ROW = {"price": 4.0, "site": "abc", "slot": 8}
EXPECTED = by_hand(4, 4, "abc", 8)


@contextlib.contextmanager
def tf_serving(root, directory):
    """The real one, as a user starts it."""
    ports = []
    for _ in range(2):
        with socket.create_server(("127.0.0.1", 0)) as free:
            ports.append(free.getsockname()[1])
    config, log = directory / "models.config", directory / "log.txt"
    config.write_text(CONFIG.format(root=root))
    command = [REAL, f"--rest_api_port={ports[0]}", f"--port={ports[1]}", f"--model_config_file={config}"]
    with open(log, "w") as out, subprocess.Popen(command, stdout=out, stderr=out) as server:
        try:
            url = f"http://127.0.0.1:{ports[0]}"

            def ready():
                assert server.poll() is None, log.read_text()[-2000:]
                with contextlib.suppress(httpx.HTTPError, KeyError):
                    states = httpx.get(f"{url}/v1/models/clicks", timeout=120).json()["model_version_status"]
                    return [s["state"] for s in states] == ["AVAILABLE"] * 2
                return False

            wait_for(ready, "TF Serving serves both versions")
            yield SimpleNamespace(rest=url, grpc=f"127.0.0.1:{ports[1]}", root=root)
        finally:
            server.terminate()


@contextlib.contextmanager
def local(root, directory):
    with serving_bundles.running(root, keep=2) as running:
        yield SimpleNamespace(rest=running.rest, grpc=running.grpc, root=root)


@pytest.fixture(scope="module", params=[local, tf_serving] if REAL else [local], ids=lambda f: f.__name__)
def server(request, tmp_path_factory):
    root = tmp_path_factory.mktemp("contract") / "clicks"
    for version in (3, 4):
        serving_bundles.make(root, version)
    with request.param(root, tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="module")
def ask(server):
    """Sends a body to a path below /v1/models/ and returns the answer's JSON."""
    with httpx.Client(base_url=server.rest, timeout=120) as client:

        def post(path, body, status=200):
            content = body if isinstance(body, bytes | str) else json.dumps(body)
            answer = client.post(f"/v1/models/{path}", content=content)
            assert answer.status_code == status and answer.headers["content-type"] == "application/json", answer.text
            return answer.json()

        post.get = lambda path: client.get(f"/v1/models/{path}")
        yield post


def close(values):
    """JSON of TF Serving has the shortest digits of a float32."""
    return pytest.approx(values, rel=1e-6)


def b64(data):
    return {"b64": base64.b64encode(data).decode()}


def test_rest_rows_and_columns(ask):
    rows = {"instances": [ROW, {"price": float("nan"), "site": b64(b"\xff\0"), "slot": -1}]}
    assert "NaN" in json.dumps(rows)
    expected = [EXPECTED, by_hand(4, 0, b"\xff\0", -1)]
    answer = ask("clicks:predict", rows)
    assert answer == {"predictions": close(expected)}
    columns = {"inputs": {"price": [4, 8.5], "site": ["abc", ""], "slot": [8, 64]}}
    answer = ask("clicks:predict", columns)
    assert answer == {"outputs": close([EXPECTED, by_hand(4, 8.5, "", 64)])}
    named = {"signature_name": "serving_default", "instances": [ROW]}
    assert ask("clicks/versions/3:predict", named) == {"predictions": close([EXPECTED - 1])}


def test_rest_outputs_with_names(ask):
    row = {"site": "abc", "price": [0, 8, 4], "slot": [0, 0, 0]}
    scores = [by_hand(4, p, "abc", 0) for p in (0, 8, 4)]
    (found,) = ask("clicks:predict", {"signature_name": "rank", "instances": [row]})["predictions"]
    assert found == {"scores": close(scores), "order": [1, 2, 0]}
    columns = {"signature_name": "rank", "inputs": {name: [value] for name, value in row.items()}}
    outputs = ask("clicks:predict", columns)["outputs"]
    assert outputs.keys() == {"scores", "order"} and outputs["order"] == [[1, 2, 0]]
    assert outputs["scores"] == [close(scores)]
    top = {"signature_name": "rank_top_k", "instances": [{**row, "k": 2}]}
    assert ask("clicks:predict", top)["predictions"] == [{"scores": close([scores[1], scores[2]]), "indices": [1, 2]}]


def test_rest_examples(ask):
    body = {"signature_name": "regress", "examples": [ROW, {"site": b64(b"ab")}]}
    expected = [EXPECTED, by_hand(4, 0, "ab", -1)]
    assert ask("clicks:regress", body) == {"results": close(expected)}
    shared = {
        "signature_name": "regress",
        "context": {"site": "abc", "slot": 1},
        "examples": [{"price": 4.0, "slot": 8}],
    }
    assert ask("clicks:regress", shared) == {"results": close([EXPECTED])}
    answer = ask("clicks:classify", {**body, "signature_name": "classify"})
    assert [[label for label, _ in row] for row in answer["results"]] == [["0", "1"]] * 2
    assert [[score for _, score in row] for row in answer["results"]] == [close([1 - p, p]) for p in expected]
    serialized = example(**{**ROW, "site": b"abc"}).SerializeToString()
    one = {"signature_name": "serialized_examples", "instances": [b64(serialized)]}
    assert ask("clicks:predict", one) == {"predictions": close([EXPECTED])}
    # Where there is one input, its name may be given as well.
    one["instances"] = [{"examples": b64(serialized)}]
    assert ask("clicks:predict", one) == {"predictions": close([EXPECTED])}


def test_rest_status_and_metadata(ask):
    states = ask.get("clicks").json()["model_version_status"]
    for state in states:
        version = state.pop("version")
        assert ask.get(f"clicks/versions/{version}").json() == {"model_version_status": [{"version": version, **state}]}
        assert state == {"state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    assert len(states) == 2
    metadata = ask.get("clicks/metadata").json()
    assert metadata.keys() == {"model_spec", "metadata"}
    assert metadata["model_spec"] == {"name": "clicks", "signature_name": "", "version": "4"}
    signatures = metadata["metadata"]["signature_def"]["signature_def"]
    price = signatures["serving_default"]["inputs"]["price"]
    assert price.pop("name").startswith("serving_default_price")
    shape = {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False}
    assert price == {"dtype": "DT_FLOAT", "tensor_shape": shape}
    methods = {name: signature["method_name"] for name, signature in signatures.items() if name in ("rank", "regress")}
    assert methods == {"rank": "tensorflow/serving/predict", "regress": "tensorflow/serving/regress"}


@pytest.mark.parametrize(
    "body",
    [
        {"instances": [{"price": 1.0, "site": "a"}]},
        {"instances": [{**ROW, "prise": 1.0}]},
        {"instances": [{**ROW, "slot": 1.5}]},
        {"instances": [ROW, {**ROW, "price": [1.0]}]},
        {"inputs": {"price": [1.0], "site": ["a", "b"], "slot": [1]}, "instances": [ROW]},
        {"signature_name": "nonsense", "instances": [ROW]},
        {"signature_name": 5, "instances": [ROW]},
        {"signature_name": "serialized_examples", "instances": ["junk"]},
        {},
        "{",
        "[1]",
    ],
)
def test_rest_errors(ask, body):
    error = ask("clicks:predict", body, 400)
    assert error.keys() == {"error"} and isinstance(error["error"], str)
    assert ask("clicks:predict", {"instances": [ROW]}) == {"predictions": close([EXPECTED])}


def test_rest_what_is_not_there(ask):
    for path in ("other:predict", "clicks/versions/9:predict"):
        assert ask(path, {"instances": [ROW]}, 404).keys() == {"error"}
    for path in ("other", "clicks/versions/9"):
        answer = ask.get(path)
        assert answer.status_code == 404 and answer.json().keys() == {"error"}


RAW = {"price": np.float32([4, np.nan]), "site": [b"abc", b""], "slot": np.int64([8, -1])}
SCORES = [EXPECTED, by_hand(4, 0, "", -1)]


def probability(answer):
    return tf.make_ndarray(answer.outputs["probability"])


def test_grpc_predict(prediction):
    answer = prediction.Predict(request(RAW))
    np.testing.assert_allclose(probability(answer), SCORES, rtol=1e-6)
    spec = answer.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("clicks", 4, "serving_default")
    one = {key: value[:1] for key, value in RAW.items()}
    assert probability(prediction.Predict(request(one, version=3))) == close([EXPECTED - 1])
    rank = request({"site": [b"abc"], "price": np.float32([[0, 8, 4]]), "slot": np.int64([[0, 0, 0]])}, "rank")
    rank.output_filter.append("order")
    answer = prediction.Predict(rank)
    assert list(answer.outputs) == ["order"] and tf.make_ndarray(answer.outputs["order"]).tolist() == [[1, 2, 0]]


def test_grpc_examples(prediction):
    regress = regression_pb2.RegressionRequest()
    regress.model_spec.name, regress.model_spec.signature_name = "clicks", "regress"
    regress.input.example_list.examples.extend([example(price=4.0, site=b"abc", slot=8), example()])
    assert [r.value for r in prediction.Regress(regress).result.regressions] == close(SCORES)
    classify = classification_pb2.ClassificationRequest()
    classify.model_spec.name, classify.model_spec.signature_name = "clicks", "classify"
    listed = classify.input.example_list_with_context
    listed.context.CopyFrom(example(site=b"abc", slot=1))
    listed.examples.extend([example(price=4.0, slot=8)])
    (row,) = prediction.Classify(classify).result.classifications
    assert [c.label for c in row.classes] == ["0", "1"]
    assert [c.score for c in row.classes] == close([1 - EXPECTED, EXPECTED])


def test_grpc_metadata_status_and_labels(prediction, channel, server):
    ask = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    ask.model_spec.name = "clicks"
    answer = prediction.GetModelMetadata(ask)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert answer.model_spec.version.value == 4 and answer.metadata["signature_def"].Unpack(signatures)
    assert signatures.signature_def["serving_default"].inputs["slot"].dtype == tf.int64.as_datatype_enum
    models = model_service_pb2_grpc.ModelServiceStub(channel)
    status = get_model_status_pb2.GetModelStatusRequest()
    status.model_spec.name = "clicks"
    states = {s.version: s.state for s in models.GetModelStatus(status).model_version_status}
    available = get_model_status_pb2.ModelVersionStatus.AVAILABLE
    assert states == {4: available, 3: available}
    reload = model_management_pb2.ReloadConfigRequest()
    config = reload.config.model_config_list.config.add(
        name="clicks", base_path=str(server.root), model_platform="tensorflow"
    )
    config.model_version_policy.specific.versions.extend([3, 4])
    config.version_labels["stable"] = 3
    assert models.HandleReloadConfigRequest(reload).status.error_code == 0
    np.testing.assert_allclose(
        probability(prediction.Predict(request(RAW, label="stable"))), np.array(SCORES) - 1, rtol=1e-6
    )


def test_grpc_errors(prediction):
    bad = [
        request({k: v for k, v in RAW.items() if k != "slot"}),
        request({**RAW, "prise": np.float32([1, 2])}),
        request({**RAW, "slot": np.int32([1, 2])}),
        request({**RAW, "price": np.float32([1, 2, 3])}),
        request({"examples": [b"junk"]}, "serialized_examples"),
    ]
    assert [code(lambda b=b: prediction.Predict(b))[0] for b in bad] == ["INVALID_ARGUMENT"] * len(bad)
    for absent in (request(RAW, name="other"), request(RAW, version=9)):
        assert code(lambda b=absent: prediction.Predict(b))[0] == "NOT_FOUND"
    np.testing.assert_allclose(probability(prediction.Predict(request(RAW))), SCORES, rtol=1e-6)
