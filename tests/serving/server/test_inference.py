"""The memory of requests: refused before it is taken, and shared where a value stands in many places."""

import asyncio
import re
import threading
from pathlib import Path

import grpc
import pytest
import serving_bundles
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc, regression_pb2
from waiting import wait_for

from tfrs_dlrm.serving.server import json_bodies

NAMES = [f"c{i}" for i in range(26)]


class Lengths(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name) for name in NAMES])
    def total(self, *columns):
        return {"total": tf.add_n([tf.strings.length(column) for column in columns])}


def request(rows, size):
    message = predict_pb2.PredictRequest()
    message.model_spec.name = "lengths"
    for name in NAMES:
        tensor = message.inputs[name]
        tensor.dtype = tf.string.as_datatype_enum
        tensor.tensor_shape.dim.add(size=rows)
        tensor.string_val.append(b"x" * size)
    return message


@pytest.mark.process
def test_a_small_request_takes_little_memory_whatever_it_says(tmp_path):
    module = Lengths()
    tf.saved_model.save(module, str(tmp_path / "lengths" / "1"), {"serving_default": module.total})
    with serving_bundles.program(tmp_path / "lengths", "--lame_duck_seconds=0") as server:
        # It has no manifest, so it is served once it did not change for a while.
        wait_for(lambda: server.http.get("/readyz").status_code == 200, "the model is served")
        status = Path(f"/proc/{server.process.pid}/status")

        def megabytes(field):
            return int(re.search(rf"{field}:\s+(\d+)", status.read_text())[1]) / 1024

        with grpc.insecure_channel(server.grpc) as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            stub.Predict(request(5000, 1))  # which takes what a first run takes
            Path(f"/proc/{server.process.pid}/clear_refs").write_text("5")  # the peak is what is taken now
            before = megabytes("VmHWM")
            answer = stub.Predict(request(5000, 1000))  # 130 MB, if each value had its place
            assert tf.make_ndarray(answer.outputs["total"]).tolist() == [26_000] * 5000
            assert megabytes("VmHWM") < before + 100
            with pytest.raises(grpc.RpcError) as raised:
                stub.Predict(request(5000, 25_000))  # a message of 0.65 MB
            assert raised.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert re.search(r"takes 32\d{8} bytes of memory, larger than max", raised.value.details())
            assert megabytes("VmHWM") < before + 100


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    limits = {"max_request_bytes": 1 << 20, "max_memory_bytes": 4 << 20}
    with serving_bundles.serving(tmp_path_factory.mktemp("memory"), [1], **limits) as running:
        yield running


@pytest.mark.parametrize("item", ["{}", "[]", "[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]", "1", '{"b64":""}'])
def test_bodies_that_would_take_much_memory_are_refused_before_they_are_parsed(server, monkeypatch, item):
    monkeypatch.setattr(json_bodies, "parse", lambda body: pytest.fail("it was parsed"))
    body = '{"instances":[' + ",".join([item] * (900_000 // (len(item) + 1))) + "]}"
    answer = server.http.post("/v1/models/clicks:predict", content=body)
    assert answer.status_code == 413 and "bytes of memory, larger than max" in answer.json()["error"]
    assert server.server.service.admission.memory == 0


def test_an_example_that_all_others_share_counts_as_often_as_it_is_used(server, prediction):
    shared = regression_pb2.RegressionRequest()
    shared.model_spec.name, shared.model_spec.signature_name = "clicks", "regress"
    listed = shared.input.example_list_with_context
    listed.context.CopyFrom(serving_bundles.example(site=b"x" * 60_000))
    for _ in range(100):
        listed.examples.add()
    with pytest.raises(grpc.RpcError) as raised:
        prediction.Regress(shared)
    assert raised.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert server.server.service.admission.memory == 0


def test_requests_that_do_not_fit_beside_others_are_refused_at_once(server):
    url = f"{server.rest}/v1/models/clicks:predict"
    body = '{"instances": [{"price": 4.0, "site": "abc", "slot": 8}]}'
    admission = server.server.service.admission
    taken, done = threading.Event(), threading.Event()

    async def hold():
        with admission.call() as call:
            call.take((4 << 20) - 1000)
            taken.set()
            while not done.is_set():
                await asyncio.sleep(0.01)

    holding = threading.Thread(target=server.call, args=(hold(),))
    holding.start()
    try:
        assert taken.wait(300)
        answer = server.http.post(url, content=body + " " * 2000)
    finally:
        done.set()
        holding.join()
    assert answer.status_code == 429 and "all requests take" in answer.json()["error"]
    assert answer.headers["retry-after"] == "1"
    assert server.http.post(url, content=body + " " * 2000).status_code == 200
