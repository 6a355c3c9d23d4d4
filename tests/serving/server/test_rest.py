"""The local server's REST API: what bad requests get, limits, health, metrics; test_contract.py has the good ones."""

import asyncio
import concurrent.futures
import gzip
import json
import re
import socket
import threading
from pathlib import Path

import httpx
import numpy as np
import pytest
import serving_bundles
from serving_bundles import by_hand
from waiting import wait_for

from tfrs_dlrm.serving.server import json_bodies
from tfrs_dlrm.serving.server.model_server import ModelServer, ServerOptions
from tfrs_dlrm.serving.server.row_plan import RowPlan


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving_bundles.serving(tmp_path_factory.mktemp("rest"), [3], max_request_bytes=4 << 20) as running:
        yield running


@pytest.fixture(scope="module")
def ask(server):
    with httpx.Client(base_url=server.rest, timeout=120) as client:

        def post(path, body):
            return client.post(
                f"/v1/models/{path}", content=body if isinstance(body, bytes | str) else json.dumps(body)
            )

        post.get = lambda path: client.get(f"/v1/models/{path}")
        yield post


ROW = {"price": 4.0, "site": "abc", "slot": 8}
EXPECTED = by_hand(3, 4, "abc", 8)


DEEP = json.loads("[" * 100 + "1" + "]" * 100)
ONE = {"site": ["a"], "price": [[1.0]], "slot": [[1]]}
SEVERAL = {"site": ["a"] * 3, "price": [[1.0] * 2000] * 3, "slot": [[1] * 2000] * 3}
MANY = {"site": ["a"], "price": [[1.0] * 10_000], "slot": [[1] * 10_000]}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"instances": [{"price": 1.0, "site": "a"}]}, ["'slot'", "missing"]),
        ({"instances": [{**ROW, "prise": 1.0}]}, ["unknown input 'prise'", "did you mean", "'price'"]),
        ({"instances": [{**ROW, "x" * 1_000_000: 1.0}]}, ["unknown input 'xxx", "price"]),
        ({"instances": [{**ROW, "slot": 1.5}]}, ["'slot'", "1.5", "int64"]),
        ({"instances": [{**ROW, "slot": 2**63}]}, ["'slot'", "range"]),
        ({"instances": [{**ROW, "price": 1e300}]}, ["'price'", "1e+300", "range", "float32"]),
        ({"inputs": {"price": DEEP, "site": ["a"], "slot": [1]}}, ["'price'", "rank 2", "rank 1"]),
        ({"instances": [{**ROW, "price": None}]}, ["'price'", "null", "NaN"]),
        ({"instances": [{**ROW, "price": True}]}, ["'price'", "true"]),
        ({"instances": [{**ROW, "site": 7}]}, ["'site'", "7", "string"]),
        ({"instances": [{**ROW, "site": {"b64": "?"}}]}, ["'site'", "base64"]),
        ('{"instances": [{"price": 1, "site": "\\ud800", "slot": 1}]}', ["'site'", "Unicode"]),
        ({"instances": [{**ROW, "price": [1.0]}]}, ["'price'", "rank 2", "rank 1"]),
        ({"instances": [ROW, {**ROW, "price": [1.0]}]}, ["'price'"]),
        ({"instances": [ROW, {"price": 1.0, "site": "a"}]}, ["instances[1]", "'slot'"]),
        ({"inputs": {"price": [1.0], "site": ["a", "b"], "slot": [1]}}, ["unequal batch sizes", "'site'", "2", "1"]),
        ({"inputs": {"price": [], "site": [], "slot": []}}, ["'price'", "empty batch"]),
        ({"instances": []}, ["empty batch", "price"]),
        ({"instances": [{**ROW, "site": "x" * 1_000_000}]}, ["'site'", "1000000", "65536"]),
        ({"instances": [ROW] * 6000}, ["'price'", "6000 rows", "5000"]),
        ({"signature_name": "rank", "inputs": MANY}, ["'price'", "10000 candidates", "5000"]),
        ({"signature_name": "rank", "inputs": {**MANY, "price": [[1, 2]], "slot": [[1]]}}, ["'price'", "'slot'"]),
        ({"signature_name": "rank", "inputs": {**MANY, "price": [[]], "slot": [[]]}}, ["'price'", "no candidates"]),
        ({"signature_name": "rank", "inputs": SEVERAL}, ["'price'", "3 contexts with 2000 candidates", "6000", "5000"]),
        ({"signature_name": "rank_top_k", "inputs": {**ONE, "k": [0]}}, ["'k' is 0", "at least 1"]),
        ({"signature_name": "encoded", "inputs": {"ids": [[1, 2]], "dense": [[float("nan")]]}}, ["'dense'"]),
        ({"signature_name": "encoded", "inputs": {"ids": [[1, 2, 3]], "dense": [[1]]}}, ["'ids'", "axis 1", "3"]),
        ({"signature_name": "serialized_examples", "instances": ["junk"]}, ["'examples'", "parse"]),
        ({"signature_name": "nonsense", "instances": [ROW]}, ["'nonsense'", "serving_default"]),
        ({"signature_name": 5, "instances": [ROW]}, ["signature_name"]),
        ({"inputs": {"price": [1.0], "sight": ["a"], "slot": [1]}}, ["site", "did you mean 'sight'"]),
        ({"inputs": 1, "instances": [ROW]}, ["'instances'", "'inputs'"]),
        ({}, ["'instances'", "'inputs'"]),
        ({"instances": [1.0]}, ["several inputs", "price"]),
        ("{", ["JSON"]),
        (b"\xff\xfe\x00", ["JSON"]),
        ("[1]", ["object"]),
        ('{"instances": ' + "[" * 100_000, ["JSON"]),
    ],
)  # fmt: skip
def test_bad_input_is_refused_by_name_and_the_server_stays_up(ask, body, words):
    answer = ask("clicks:predict", body)
    error = answer.json()["error"]
    assert answer.status_code == 400 and len(error) < 2000
    assert all(word in error for word in words), error
    assert ask("clicks:predict", {"instances": [ROW]}).json() == {"predictions": [EXPECTED]}


def test_bad_examples_are_refused_by_name(ask):
    for row, words in (
        ({"price": "text"}, ["price"]),
        ({"price": None}, ["examples[0]", "'price'", "null"]),
        ({"price": 1e300}, ["examples[0]", "'price'", "1e+300"]),
        ({"slot": 2**63}, ["'slot'"]),
        ({"site": "x" * 1_000_000}, ["row 0, feature 'site'", "1000000", "65536"]),
        (5, ["examples[0]"]),
    ):
        answer = ask("clicks:regress", {"signature_name": "regress", "examples": [row]})
        error = answer.json()["error"]
        assert answer.status_code == 400 and all(word in error for word in words), error[:300]
        assert "{{node" not in error  # which is nothing to whoever asks
    answer = ask("clicks:regress", {"examples": [ROW]})  # of a predict signature, as TF Serving refuses it
    assert answer.status_code == 400 and "tensorflow/serving/regress" in answer.json()["error"]


@pytest.mark.parametrize("name", ["\ud800", "a\udfff", "x" * 20_000])
def test_strange_names_are_refused_in_short_messages(ask, name):
    text = len(name) > 100  # in an Example, a feature that the model does not have: it is ignored
    for method, status, body in (
        ("predict", 400, {"instances": [{**ROW, name: 1}]}),
        ("predict", 400, {"inputs": {name: [1]}}),
        ("predict", 400, {"signature_name": name, "instances": [ROW]}),
        ("regress", 200 if text else 400, {"signature_name": "regress", "examples": [{name: 1}]}),
        ("regress", 400, {"signature_name": "regress", "examples": [{"price": name}, {name: "a"}]}),
        (
            "classify",
            200 if text else 400,
            {"signature_name": "classify", "examples": [ROW], "context": {name: [1.5]}},
        ),
    ):
        answer = ask(f"clicks:{method}", body)
        assert answer.status_code == status, (method, body)
        assert len(answer.content) < 4000
    assert len(ask(name.encode(errors="replace").decode(), {}).content) < 4000


@pytest.mark.parametrize("levels", [100, 900, 940, 950, 955, 960, 965, 970, 980, 1000, 1020, 5000])
def test_deep_values_are_refused(ask, levels):
    for begin, end in (("[", "]"), ('{"a":', "}")):
        deep = begin * levels + "1" + end * levels
        for method, body in (
            ("predict", '{"instances": [{"price": DEEP, "site": "a", "slot": 1}]}'),
            ("predict", '{"inputs": {"price": [1], "site": [DEEP], "slot": [1]}}'),
            ("predict", '{"signature_name": DEEP, "instances": [1]}'),
            ("regress", '{"signature_name": "regress", "examples": [{"a": DEEP}]}'),
        ):
            assert ask(f"clicks:{method}", body.replace("DEEP", deep)).status_code == 400


def test_a_client_that_hangs_up_is_counted_as_cancelled(ask, server):
    host, port = server.rest.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as client:
        client.sendall(b"POST /v1/models/clicks:regress HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{")
    line = r'tfrs_dlrm_requests_total\{(?=.*code="CANCELLED")(?=.*method="regress").*\} 1\.0'
    wait_for(lambda: re.search(line, server.http.get("/metrics").text), "the request is counted as cancelled")
    assert "INTERNAL" not in server.http.get("/metrics").text


def test_a_nan_is_refused_where_the_schema_has_no_missing_value(tmp_path):
    def required(path):
        file = Path(path) / "assets.extra" / "bundle.json"
        manifest = json.loads(file.read_text())
        manifest["features"][0]["may_be_missing"] = False
        file.write_text(json.dumps(manifest))

    serving_bundles.make(tmp_path / "clicks", 1, required)
    with serving_bundles.running(tmp_path / "clicks") as server:
        url = f"{server.rest}/v1/models/clicks:predict"
        answer = server.http.post(url, content=json.dumps({"instances": [{**ROW, "price": float("nan")}]}))
        assert answer.status_code == 400 and "'price' has a NaN" in answer.json()["error"]
        assert server.http.post(url, json={"instances": [ROW]}).status_code == 200


def test_what_is_not_there_is_404_and_too_large_413(ask, server):
    for path in ("other", "clicks/versions/9"):
        assert ask.get(path).status_code == 404, path
    for path in ("other:predict", "clicks/versions/9:predict"):
        answer = ask(path, {"instances": [ROW]})
        assert answer.status_code == 404 and list(answer.json()) == ["error"]
    assert ask.get("clicks:predict").status_code == ask("clicks:explain", {}).status_code == 400
    large = ask("clicks:predict", b" " * (5 << 20))
    assert large.status_code == 413 and str(4 << 20) in large.json()["error"]
    parts = server.http.post("/v1/models/clicks:predict", content=iter([b" " * (1 << 20)] * 5))
    assert parts.status_code == 413


def test_a_server_whose_port_is_taken_leaves_nothing_behind(server):
    async def start():
        second = ModelServer(ServerOptions(server.server.options.root, server.server.rest_port, 0))
        with pytest.raises(OSError, match=r"cannot listen on 127\.0\.0\.1:.* for REST .*; try another --rest_port"):
            await second.start()
        return second.service

    assert not asyncio.run(start()).models["clicks"].available()


def test_answers_are_sent_without_delay(server):
    (listening,) = server.server._web.servers[0].sockets
    assert listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_health_and_metrics(ask, server):
    ask("clicks:predict", {"instances": [ROW]})
    ask("clicks:predict", {"instances": []})
    for path in ("/healthz", "/readyz"):
        assert server.http.get(path).status_code == 200
    for path in ("/metrics", "/monitoring/prometheus/metrics"):
        text = server.http.get(path).text
        for line in (
            'tfrs_dlrm_requests_total{api="rest",code="OK",method="predict",model="clicks",'
            'signature="serving_default",version="3"}',
            'tfrs_dlrm_requests_total{api="rest",code="INVALID_ARGUMENT",method="predict",model="clicks",'
            'signature="",version="3"}',
            'tfrs_dlrm_version_loaded{model="clicks",version="3"} 1.0',
            "tfrs_dlrm_batch_rows_bucket",
            "tfrs_dlrm_request_seconds_bucket",
        ):
            assert line in text


def test_gzip_is_decoded_within_the_limits(server):
    url, body = f"{server.rest}/v1/models/clicks:predict", json.dumps({"instances": [ROW]}).encode()

    def ask(content, encoding="gzip"):
        answer = server.http.post(url, content=content, headers={"Content-Encoding": encoding})
        return answer.status_code, answer.json().get("error") or answer.json()["predictions"]

    assert ask(gzip.compress(body)) == (200, [EXPECTED])
    assert ask(gzip.compress(body[:20]) + gzip.compress(body[20:])) == (200, [EXPECTED])
    blanks = [b" " * 5000] * 700 + [body]
    parts = [gzip.compress(blank, 0) for blank in blanks]  # which end in the middle of what is decoded in one go
    assert ask(b"".join(parts)) == ask(gzip.compress(b"".join(blanks), 0)) == (200, [EXPECTED])
    assert ask(body, "identity") == (200, [EXPECTED])
    status, error = ask(gzip.compress(b" " * (5 << 20)))
    assert status == 413 and f"more than {4 << 20} bytes" in error
    for content, encoding, words in (
        (body, "gzip", "no gzip"),
        (gzip.compress(body)[:-9], "gzip", "does not end"),
        (gzip.compress(b"") * 200_000, "gzip", "more than 1000 members; send one"),  # each is read on its own
        (body, "br", "Content-Encoding 'br' is not supported"),
    ):
        status, error = ask(content, encoding)
        assert status == 400 and words in error


def test_long_requests_are_measured_and_parsed_in_threads_so_that_others_do_not_wait(ask, monkeypatch):
    threads = {}

    def noted(name, function):
        def call(*arguments):
            threads[name] = threading.current_thread().name
            return function(*arguments)

        return call

    for module, name in ((json_bodies, "memory_of_values"), (json_bodies, "parse_quickly"), (RowPlan, "read")):
        monkeypatch.setattr(module, name, noted(name, getattr(module, name)))
    assert ask("clicks:predict", {"instances": [ROW] * 3000}).json() == {"predictions": [EXPECTED] * 3000}
    assert {name.split("_")[0] for name in threads.values()} == {"convert"} and len(threads) == 3


def test_a_request_among_many_that_fails_hurts_no_other(ask, server):
    def one(i):
        row = {"price": float(i), "site": "a" * (i % 5), "slot": -2000 if i % 7 == 3 else i}
        with httpx.Client(timeout=120) as client:
            return i, row, client.post(f"{server.rest}/v1/models/clicks:predict", json={"instances": [row]})

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        for i, row, answer in pool.map(one, range(64)):
            if i % 7 == 3:
                assert answer.status_code == 400 and "below -1000" in answer.json()["error"]
            else:
                np.testing.assert_allclose(answer.json()["predictions"], [by_hand(3, **row)], atol=1e-6)
