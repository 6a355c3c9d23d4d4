"""Damaged and strange requests, made with a seed: none is an error of the server, and none stops it."""

import base64
import json
import random
import re

import grpc
import httpx
import numpy as np
import pytest
import serving_bundles
from serving_bundles import by_hand, example, predict_request
from tensorflow_serving.apis import regression_pb2

ROW = {"price": 4.0, "site": "abc", "slot": 8}
EXPECTED = by_hand(3, **ROW)
SIGNATURES = ["serving_default", "rank", "rank_top_k", "encoded", "serialized_examples", "regress", "classify"]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving_bundles.serving(tmp_path_factory.mktemp("fuzz"), [3], max_request_bytes=4 << 20) as running:
        yield running


def deep(found):
    """The JSON of `"@960["`: deeper than Python's own writer goes."""
    levels, kind = int(found[1]), found[2].decode()
    return (("[" if kind == "[" else '{"a":') * levels + "1" + ("]" if kind == "[" else "}") * levels).encode()


SERIALIZED = example(price=1.0).SerializeToString()
STRANGE = [None, True, False, 0, -1, 1.5, 2**31, 2**63, -(2**63) - 1, 10**400, 1e308, float("nan"), float("-inf")]
STRANGE += ["", "x" * 70_000, "\ud800", "\udfff\ud800", "é\0", [], {}, [[]], [{}], [None], {"\ud800": 1}, {"": 1}]
STRANGE += [{"b64": "?"}, {"b64": 5}, {"b64": ["a"]}, {"b64": "\ud800"}, {"b64": "aa", "x": 1}, [1, [2]], [[1], [2, 3]]]
STRANGE += [{"b64": base64.b64encode(data).decode()} for data in (b"", b"junk", b"\n", SERIALIZED, SERIALIZED[:-1])]
STRANGE += [[1.0] * 5001, [[1]] * 5001, ["a"] * 3, [[ROW]]]
STRANGE += [f"@{levels}{kind}" for levels in (16, 17, 100, *range(900, 1030, 5)) for kind in "[{"]
NAMES = ["\ud800", "\udfff", "a\ud800", "", "x" * 70_000, "slot ", "k", "b64", "é", "signature_name"]


def changed(value, rng):
    """A value with something strange somewhere in it."""
    if isinstance(value, dict) and value and rng.random() < 0.8:
        result = dict(value)
        key = rng.choice([*value])
        action = rng.random()
        if action < 0.15:
            del result[key]
        elif action < 0.4:
            result[rng.choice(NAMES)] = rng.choice(STRANGE)
        else:
            result[key] = changed(value[key], rng)
        return result
    if isinstance(value, list) and value and rng.random() < 0.8:
        place = rng.randrange(len(value))
        return [*value[:place], changed(value[place], rng), *value[place + 1 :]]
    return rng.choice(STRANGE)


def bodies(rng):
    columns = {"site": ["a"], "price": [[1.0, 2.0]], "slot": [[1, 2]], "k": [1]}
    valid = [
        {"instances": [ROW, ROW]},
        {"inputs": {name: [value] for name, value in ROW.items()}},
        {"signature_name": rng.choice(SIGNATURES), "instances": [{"site": "a", "price": [1.0], "slot": [2], "k": 1}]},
        {"signature_name": "rank_top_k", "inputs": columns},
        {"signature_name": "encoded", "inputs": {"ids": [[1, 2]], "dense": [[1.0]]}},
        {"signature_name": rng.choice(SIGNATURES), "instances": [{"b64": "CgA="}, {"b64": ""}]},
        {"signature_name": rng.choice(SIGNATURES), "examples": [ROW, {}], "context": {"site": ["a", "b"]}},
    ]
    body = changed(rng.choice([*valid, valid[-1]]), rng)
    text = json.dumps(body, ensure_ascii=rng.random() < 0.9).encode(errors="surrogatepass")
    text = re.sub(rb'"@(\d+)([\[{])"', deep, text)
    if rng.random() < 0.15:  # damaged bytes
        text = bytearray(text)
        for _ in range(rng.randrange(1, 4)):
            text[rng.randrange(len(text))] = rng.choice(b'\x00\xff"\\{}[]:,N-0e')
    return bytes(text)


def test_no_body_is_an_error_of_the_server(server):
    rng = random.Random(7)
    with httpx.Client(base_url=server.rest, timeout=120) as client:
        for number in range(600):
            body = bodies(rng)
            methods = ["regress", "classify"] if b'"examples"' in body else ["predict"]
            method = rng.choice(methods if rng.random() < 0.9 else ["predict", "regress", "classify"])
            path = rng.choice(["clicks", "clicks", "clicks", "%FF", "clicks/versions/" + "9" * 30, "x" * 9000])
            answer = client.post(f"/v1/models/{path}:{method}", content=body)
            told = f"{number}: {path[:30]}:{method} {body[:300]} -> {answer.status_code} {answer.text[:300]}"
            assert answer.status_code in (200, 400, 404, 413), told
            assert answer.status_code == 200 or (len(answer.content) < 10_000 and answer.json()["error"]), told
        assert client.post("/v1/models/clicks:predict", json={"instances": [ROW]}).json() == {"predictions": [EXPECTED]}
    _check_metrics(server)


def messages(rng):
    inputs = {"price": np.float32([4, 5]), "site": [b"abc", b""], "slot": np.int64([8, 9])}
    request = predict_request(inputs, rng.choice(["", *SIGNATURES]))
    if rng.random() < 0.3:
        request = predict_request({rng.choice(["examples", "inputs"]): [b"junk", b""]}, rng.choice(SIGNATURES))
    if rng.random() < 0.3:
        request = regression_pb2.RegressionRequest()
        request.model_spec.name, request.model_spec.signature_name = "clicks", rng.choice(SIGNATURES)
        listed = request.input.example_list if rng.random() < 0.5 else request.input.example_list_with_context
        for _ in range(rng.randrange(3)):
            listed.examples.append(rng.choice([example(**{**ROW, "site": b"a"}), example(), example(price=b"text")]))
    else:
        for name in request.inputs:
            tensor = request.inputs[name]
            action = rng.randrange(8)
            if action == 0:
                tensor.dtype = rng.randrange(30)
            elif action == 1:
                tensor.tensor_shape.unknown_rank = True
            elif action == 2:
                for _ in range(rng.choice([1, 5, 40, 100_000])):
                    tensor.tensor_shape.dim.add(size=rng.choice([0, 1, -1, 2**62]))
            elif action == 3:
                tensor.tensor_content = rng.randbytes(rng.randrange(20))
            elif action == 4:
                tensor.float_val.extend([1.0] * rng.randrange(4))
    data = bytearray(request.SerializeToString())
    for _ in range(rng.choice([0, 0, 1, 3])):
        if data:
            data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data)


def test_no_message_is_an_error_of_the_server(server):
    rng = random.Random(8)
    allowed = {grpc.StatusCode[c] for c in ("INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "OUT_OF_RANGE")}
    methods = ["PredictionService/Predict", "PredictionService/Regress", "PredictionService/Classify"]
    methods += ["PredictionService/GetModelMetadata", "ModelService/GetModelStatus"]
    with grpc.insecure_channel(server.grpc) as channel:
        for number in range(600):
            method, data = rng.choice([methods[0], *methods]), messages(rng)
            try:
                channel.unary_unary(f"/tensorflow.serving.{method}")(data, timeout=120)
            except grpc.RpcError as e:
                told = f"{number}: {method} {data[:300]!r} -> {e.code()} {e.details()[:300]}"
                assert e.code() in allowed and len(e.details().encode()) < 2000, told
    _check_metrics(server)


def _check_metrics(server):
    codes = re.findall(r'tfrs_dlrm_requests_total{.*code="(\w+)"', server.http.get("/metrics").text)
    assert "INVALID_ARGUMENT" in codes and not {"INTERNAL", "UNKNOWN"} & set(codes), codes
