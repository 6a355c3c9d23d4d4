"""SIGTERM: a lame duck first, then an end in which nothing is lost that was sent before."""

import contextlib
import json
import signal
import socket

import grpc
import httpx
import numpy as np
import pytest
import serving_bundles
from grpc_health.v1 import health_pb2, health_pb2_grpc
from serving_bundles import by_hand, predict_request
from tensorflow_serving.apis import prediction_service_pb2_grpc
from waiting import wait_for

EXPECTED = by_hand(1, 4, "abc", 8)
BODY = json.dumps({"instances": [{"price": 4.0, "site": "abc", "slot": 8}]})
REQUEST = predict_request({"price": np.float32([4]), "site": [b"abc"], "slot": np.int64([8])})


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("draining") / "clicks"
    serving_bundles.make(root, 1)
    return root


@pytest.mark.process
def test_nothing_that_was_sent_before_the_signal_is_lost(root):
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(serving_bundles.program(root, "--lame_duck_seconds=20"))
        host, port = server.rest.removeprefix("http://").split(":")
        head = f"POST /v1/models/clicks:predict HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(BODY)}\r\n\r\n"
        channel = stack.enter_context(grpc.insecure_channel(server.grpc))
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        stub.Predict(REQUEST)
        rest = []
        for _ in range(50):  # no answer is waited for
            rest.append(stack.enter_context(socket.create_connection((host, int(port)), timeout=300)))
            rest[-1].sendall((head + BODY).encode())
        calls = [stub.Predict.future(REQUEST, timeout=300) for _ in range(50)]
        server.process.send_signal(signal.SIGTERM)
        assert [call.result().outputs["probability"].float_val[0] for call in calls] == [EXPECTED] * 50
        for connection in rest:
            with connection.makefile("rb") as answer:
                assert answer.readline() == b"HTTP/1.1 200 OK\r\n"
        assert server.process.wait(300) == 0
        assert "Traceback" not in server.log.read_text()


@pytest.mark.process
def test_a_second_signal_ends_the_process_at_once(root):
    with serving_bundles.program(root, "--lame_duck_seconds=600") as server:
        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: server.http.get("/healthz").status_code == 503, "the server is a lame duck")
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(300) == -signal.SIGTERM


def test_a_lame_duck_answers_and_tells_its_clients_to_leave(root):
    with (
        serving_bundles.running(root, options={"lame_duck_seconds": 0}) as server,
        grpc.insecure_channel(server.grpc) as channel,
        httpx.Client(base_url=server.rest, timeout=120) as client,
    ):
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        watching = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert next(watching).status == health_pb2.HealthCheckResponse.SERVING
        answer = client.post("/v1/models/clicks:predict", content=BODY)
        assert answer.status_code == client.get("/healthz").status_code == 200 and "connection" not in answer.headers
        server.call(server.server.be_lame_duck())
        assert next(watching).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert client.get("/healthz").status_code == client.get("/readyz").status_code == 503
        for _ in range(2):  # the second on a new connection
            answer = client.post("/v1/models/clicks:predict", content=BODY)
            assert answer.status_code == 200 and answer.headers["connection"] == "close"
        assert stub.Predict(REQUEST).outputs["probability"].float_val[0] == EXPECTED
        server.server.service.admission.closed = True  # as `stop` begins
        with pytest.raises(grpc.RpcError) as raised:
            stub.Predict(REQUEST)
        assert raised.value.code() == grpc.StatusCode.UNAVAILABLE
        answer = client.post("/v1/models/clicks:predict", content=BODY)
        assert answer.status_code == 503 and "is ending" in answer.json()["error"]
        watching.cancel()
