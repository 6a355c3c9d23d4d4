"""What TF Serving's source answers to requests that it refuses, and to rare ones that it takes, is answered here too.

Each case names the file below tensorflow_serving/ that has the text.
"""

import json
import os

import grpc
import numpy as np
import pytest
import serving_bundles
from serving_bundles import by_hand, predict_request
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, model_service_pb2_grpc

from tfrs_dlrm.serving import protocol

ROW = {"price": 4.0, "site": "abc", "slot": 8}
SCORE = by_hand(4, 4, "abc", 8)
JSON, REST, UTIL = (
    "util/json_tensor.cc",
    "model_servers/http_rest_api_handler.cc",
    "model_servers/http_rest_api_util.cc",
)
CORE, MANAGER, STATUS = (
    "model_servers/server_core.cc",
    "core/basic_manager.cc",
    "model_servers/get_model_status_impl.cc",
)
PREDICT, METADATA = "servables/tensorflow/predict_util.cc", "servables/tensorflow/get_model_metadata_impl.cc"
CLASSIFIER, REGRESSOR = "servables/tensorflow/classifier.cc", "servables/tensorflow/regressor.cc"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving_bundles.serving(tmp_path_factory.mktemp("statuses"), (3, 4), keep=2) as running:
        yield running


def rows(**changed):
    return {"instances": [{**ROW, **changed}]}


def columns(**changed):
    return {"inputs": {**{name: [value] for name, value in ROW.items()}, **changed}}


def examples(*listed):
    return {"signature_name": "regress", "examples": list(listed)}


PREDICTS, REGRESSES = "clicks:predict", "clicks:regress"
# Path, body, status, text, file.
REFUSED = [
    ("other:predict", rows(), 404, "Servable not found for request: Latest(other)", MANAGER),
    ("clicks/versions/9:predict", rows(), 404, "Servable not found for request: Specific(clicks, 9)", MANAGER),
    (f"clicks/versions/{2**63}:predict", rows(), 400, f"Failed to convert version: {2**63} to numeric.", UTIL),
    ("clicks/labels/x:predict", rows(), 400, "Unrecognized servable version label: x", CORE),
    ("clicks/labels/x/metadata", None, 400, "Unrecognized servable version label: x", CORE),
    ("other", None, 404, "Could not find any versions of model other", STATUS),
    ("clicks/versions/9", None, 404, "Could not find version 9 of model clicks", STATUS),
    ("clicks", {}, 400, "Malformed request: POST /v1/models/clicks", REST),
    ("clicks:predict", None, 400, "Malformed request: GET /v1/models/clicks:predict", REST),
    ("clicks:explain", {}, 400, "Malformed request: POST /v1/models/clicks:explain", REST),
    (PREDICTS, {"signature_name": "x", **rows()}, 400,
     'Serving signature name: "x" not found in signature def', REST),
    (REGRESSES, {"examples": [ROW]}, 400, "Expected regression signature method_name to be"
     " tensorflow/serving/regress. Was: tensorflow/serving/predict", REGRESSOR),
    ("clicks:classify", {"examples": [ROW]}, 400, "Expected classification signature method_name to be"
     " tensorflow/serving/classify. Was: tensorflow/serving/predict", CLASSIFIER),
    (PREDICTS, "", 400, "JSON Parse error: ", JSON),
    (PREDICTS, "{", 400, "JSON Parse error: ", JSON),
    (PREDICTS, {"signature_name": 5, **rows()}, 400, "'signature_name' key must be a string value.", JSON),
    (PREDICTS, {}, 400, "Missing 'inputs' or 'instances' key", JSON),
    (PREDICTS, {**rows(), **columns()}, 400,
     "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist", JSON),
    (PREDICTS, {"instances": 5}, 400, "Excepting 'instances' to be an list/array", JSON),
    (PREDICTS, {"instances": []}, 400, "No values in 'instances' array", JSON),
    (PREDICTS, {"instances": [1.0]}, 400, "instances is a plain list, but expecting list of objects as multiple input"
     " tensors required as per tensorinfo_map", JSON),
    (PREDICTS, {"inputs": [1.0]}, 400, "inputs is a plain value/list, but expecting an object as multiple input"
     " tensors required as per tensorinfo_map", JSON),
    (PREDICTS, {"instances": [ROW, [1]]}, 400, "Expecting object but got list at item 1 of input list", JSON),
    (PREDICTS, {"instances": [{"price": 4.0, "site": "abc"}]}, 400, "Failed to process element: 0 of 'instances' list."
     ' JSON object: {"price": 4.0, "site": "abc"} keys must be equal to: price,site,slot', JSON),
    (PREDICTS, rows(prise=1), 400, "Failed to process element: 0 key: prise of 'instances' list. Error:"
     " INVALID_ARGUMENT: JSON object: does not have named input: prise", JSON),
    (PREDICTS, {"inputs": {"price": [4.0], "site": ["abc"]}}, 400, "Missing named input: slot in 'inputs' object.",
     JSON),
    (PREDICTS, rows(slot=1.5), 400, "JSON Value: 1.5 Type: Number is not of expected type: int64", JSON),
    (PREDICTS, rows(slot=2**63), 400, f"JSON Value: {2**63} Type: Number is not of expected type: int64", JSON),
    (PREDICTS, rows(slot=True), 400, "JSON Value: true Type: True is not of expected type: int64", JSON),
    (PREDICTS, rows(slot={}), 400, "JSON Value: {} Type: Object is not of expected type: int64", JSON),
    (PREDICTS, rows(price="4"), 400, 'JSON Value: "4" Type: String is not of expected type: float', JSON),
    (PREDICTS, rows(price=None), 400, "JSON Value: null Type: Null is not of expected type: float", JSON),
    (PREDICTS, rows(price=2**24), 400,
     "Cannot convert JSON value: 16777216 to float without loss of precision.", JSON),
    (PREDICTS, rows(price=1e300), 400, "Cannot convert JSON value: 1e+300 to float without loss of precision.", JSON),
    (PREDICTS, rows(site=7), 400, "JSON Value: 7 Type: Number is not of expected type: string", JSON),
    (REGRESSES, {"signature_name": "regress"}, 400,
     "When method is classify, key 'examples' is expected and was not found", JSON),
    (REGRESSES, {"signature_name": "regress", "examples": 5}, 400,
     "Expecting 'examples' value to be an list/array", JSON),
    (REGRESSES, examples(), 400, "'examples' value is an empty array", JSON),
    (REGRESSES, examples(5), 400, "Example must be JSON object but got JSON Number", JSON),
    (REGRESSES, examples({"slot": [1, 2.5]}), 400,
     "Unexpected element type in feature: slot expecting type: int64", JSON),
    (REGRESSES, examples({"price": [2.5, 1]}), 400,
     "Unexpected element type in feature: price expecting type: float", JSON),
    (REGRESSES, examples({"site": ["a", True]}), 400,
     "Unexpected element type in feature: site expecting type: bytes", JSON),
    (REGRESSES, examples({"site": None}), 400, "Feature: site has element with unexpected JSON type: Null", JSON),
    (REGRESSES, examples({"site": [["a"]]}), 400, "Feature: site has element with unexpected JSON type: Array", JSON),
    (REGRESSES, examples({"site": {"a": 1}}), 400, "Feature: site has element with unexpected JSON type: Object", JSON),
    (REGRESSES, examples({"price": 1e300}), 400,
     "Cannot convert JSON value: 1e+300 to float without loss of precision.", JSON),
]  # fmt: skip


@pytest.mark.parametrize(("path", "body", "status", "text", "file"), REFUSED, ids=lambda v: str(v)[:40])
def test_rest_refuses_with_the_status_and_text_of_the_source(server, path, body, status, text, file):
    url = f"{server.rest}/v1/models/{path}"
    content = body if isinstance(body, str) else json.dumps(body)
    answer = server.http.get(url) if body is None else server.http.post(url, content=content)
    error = answer.json()["error"].replace("'", "").replace('"', "")
    assert answer.status_code == status and text.replace("'", "").replace('"', "") in error, (file, answer.text)


def test_rest_takes_what_the_source_takes(server):
    def ask(path, body):
        answer = server.http.post(f"/v1/{path}", content=json.dumps(body))
        assert answer.status_code == 200, answer.text
        return answer.json()

    # util/json_tensor.cc, FillTensorMapFromInputsMap: columns that the signature does not name are ignored.
    assert ask("models/clicks:predict", columns(more=[1])) == {"outputs": [SCORE]}
    # AddValueToFeature: booleans are whole numbers, alone and among others.
    assert ask("models/clicks:regress", examples({**ROW, "slot": True})) == {"results": [by_hand(4, 4, "abc", 1)]}
    assert ask("models/clicks:regress", examples({**ROW, "slot": []})) == {"results": [by_hand(4, 4, "abc", -1)]}
    # model_servers/http_rest_api_util.cc: names of methods may have any case.
    assert ask("models/clicks:PREDICT", rows()) == {"predictions": [SCORE]}
    assert server.http.get("/v1/models").json() == {"error": "Missing model name in request."}


RAW = {"price": np.float32([4]), "site": [b"abc"], "slot": np.int64([8])}


def filtered(*names):
    request = predict_request(RAW)
    request.output_filter.extend(names)
    return request


def metadata(*fields):
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=fields)
    request.model_spec.name = "clicks"
    return request


def status(name, version=None):
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = name
    if version:
        request.model_spec.version.value = version
    return request


NO_SLOT = {name: value for name, value in RAW.items() if name != "slot"}
REFUSED_BY_GRPC = [
    ("Predict", predict_request(RAW, name=""), "INVALID_ARGUMENT", "ModelSpec has no name specified.", CORE),
    ("Predict", predict_request(RAW, name="other"), "NOT_FOUND", "Servable not found for request: Latest(other)",
     MANAGER),
    ("Predict", predict_request(RAW, version=9), "NOT_FOUND", "Servable not found for request: Specific(clicks, 9)",
     MANAGER),
    ("Predict", predict_request(RAW, label="x"), "INVALID_ARGUMENT", "Unrecognized servable version label: x", CORE),
    ("Predict", predict_request(RAW, "x"), "FAILED_PRECONDITION", '"x" not found', PREDICT),
    ("Predict", predict_request(NO_SLOT), "INVALID_ARGUMENT", "input size does not match signature: 2!=3"
     " len({price,site}) != len({price,site,slot}). Sent extra: {}. Missing but required: {slot}.", PREDICT),
    ("Predict", predict_request({**RAW, "more": [1]}), "INVALID_ARGUMENT", "input size does not match signature: 4!=3"
     " len({more,price,site,slot}) != len({price,site,slot}). Sent extra: {more}. Missing but required: {}.", PREDICT),
    ("Predict", filtered("x"), "INVALID_ARGUMENT", "output tensor alias not found in signature: x Outputs expected to"
     " be in the set {probability}.", PREDICT),
    ("Predict", filtered("probability", "probability"), "INVALID_ARGUMENT",
     "duplicate output tensor alias: probability", PREDICT),
    ("GetModelMetadata", metadata(), "INVALID_ARGUMENT",
     "GetModelMetadataRequest must specify at least one metadata_field", METADATA),
    ("GetModelMetadata", metadata("x"), "INVALID_ARGUMENT", "Metadata field x is not supported", METADATA),
    ("GetModelStatus", get_model_status_pb2.GetModelStatusRequest(), "INVALID_ARGUMENT", "Missing ModelSpec", STATUS),
    ("GetModelStatus", status("other"), "NOT_FOUND", "Could not find any versions of model other", STATUS),
    ("GetModelStatus", status("clicks", 9), "NOT_FOUND", "Could not find version 9 of model clicks", STATUS),
]  # fmt: skip


@pytest.mark.parametrize(("method", "request_", "code", "text", "file"), REFUSED_BY_GRPC, ids=lambda v: str(v)[:40])
def test_grpc_refuses_with_the_code_and_text_of_the_source(prediction, channel, method, request_, code, text, file):
    stub = model_service_pb2_grpc.ModelServiceStub(channel) if method == "GetModelStatus" else prediction
    with pytest.raises(grpc.RpcError) as caught:
        getattr(stub, method)(request_)
    assert caught.value.code().name == code and text in caught.value.details(), (file, caught.value.details())


# model_servers/http_server.cc, ToHTTPStatusCode
@pytest.mark.parametrize(
    ("code", "expected"),
    {
        "CANCELLED": 499, "UNKNOWN": 500, "INVALID_ARGUMENT": 400, "DEADLINE_EXCEEDED": 504, "NOT_FOUND": 404,
        "ALREADY_EXISTS": 409, "PERMISSION_DENIED": 403, "RESOURCE_EXHAUSTED": 429, "FAILED_PRECONDITION": 400,
        "ABORTED": 409, "OUT_OF_RANGE": 400, "UNIMPLEMENTED": 501, "INTERNAL": 500, "UNAVAILABLE": 503,
        "DATA_LOSS": 500, "UNAUTHENTICATED": 401,
    }.items(),
)  # fmt: skip
def test_codes_have_the_http_statuses_of_the_source(code, expected):
    assert protocol.ServingError("", code).status == expected


def remove_model(path):
    os.remove(f"{path}/saved_model.pb")


def test_a_model_without_a_version_is_404(tmp_path):
    serving_bundles.make(tmp_path / "clicks", 1, remove_model)
    with serving_bundles.running(tmp_path / "clicks") as server:
        answer = server.http.post("/v1/models/clicks:predict", content=json.dumps(rows()))
        assert answer.status_code == 404
        assert answer.json()["error"].startswith("Servable not found for request: Latest(clicks)")
