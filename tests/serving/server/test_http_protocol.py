"""Slow clients and many connections: others are answered, and the log stays small."""

import contextlib
import resource
import socket
import threading

import grpc
import httpx
import pytest
import serving_bundles
from grpc_health.v1 import health_pb2, health_pb2_grpc

HEAD = b"POST /v1/models/clicks:predict HTTP/1.1\r\nHost: localhost\r\n"
RECEIVE_SECONDS = 3.0  # a request that is not slow arrives in this time on a busy machine
ROW = {"price": 4.0, "site": "abc", "slot": 8}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("connections") / "clicks"
    serving_bundles.make(root, 1)
    return root


@pytest.fixture(scope="module")
def server(root):
    with serving_bundles.running(root, options={"max_connections": 20}, receive_seconds=RECEIVE_SECONDS) as running:
        yield running


def connect(server):
    host, port = server.rest.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=300)


def asked(server):
    answer = server.http.post("/v1/models/clicks:predict", json={"instances": [ROW]})
    assert answer.status_code == 200
    return answer.json()["predictions"]


@pytest.mark.parametrize("sent", [b"", b"POST / HT", HEAD, HEAD + b"Content-Length: 9\r\n\r\n{"], ids=len)
def test_slow_headers_and_bodies_are_cut(server, sent):
    with connect(server) as slow, slow.makefile("rb") as answer:
        slow.sendall(sent)
        received = answer.read()  # until the server closes
    assert received.startswith(b"HTTP/1.1 408") if sent else received == b""


def test_a_second_request_that_is_slow_is_cut_and_idle_connections_stay(server):
    with (
        httpx.Client(base_url=server.rest, timeout=120) as idle,
        connect(server) as slow,
        slow.makefile("rb") as answer,
    ):
        port = idle.get("/healthz").extensions["network_stream"].get_extra_info("client_addr")
        slow.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /he")
        received = answer.read()
        assert received.startswith(b"HTTP/1.1 200 OK") and b"HTTP/1.1 408" in received
        assert idle.get("/healthz").extensions["network_stream"].get_extra_info("client_addr") == port


@pytest.mark.parametrize("sent", [b"", HEAD, HEAD + b"Content-Length: 9\r\n\r\n{"], ids=len)
def test_the_connection_that_waits_longest_makes_room(root, sent):
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(serving_bundles.running(root, options={"max_connections": 20}))
        idle = [stack.enter_context(connect(server)) for _ in range(100)]
        for connection in idle:
            with contextlib.suppress(OSError):  # it is closed already
                connection.sendall(sent)
        assert asked(server) == [serving_bundles.by_hand(1, **ROW)]
        assert len(server.server._connections) <= 20 and server.server.service.admission.calls <= 20
        with contextlib.suppress(ConnectionResetError):
            assert idle[0].recv(1) == b""


@pytest.fixture
def many_descriptors():
    """Allows this process its 1600 connections: the limit is often 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 4096:
        pytest.skip(f"the limit of descriptors is {hard}: ulimit -Hn")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4096), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.process
@pytest.mark.usefixtures("many_descriptors")
def test_idle_connections_beyond_all_descriptors_stop_nobody(root):
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(serving_bundles.program(root, "--lame_duck_seconds=0", files=400))
        for _ in range(1100):
            stack.enter_context(connect(server)).sendall(b"GET / HTTP/1.1\r\n")
        host, port = server.grpc.split(":")
        for _ in range(500):
            stack.enter_context(socket.create_connection((host, int(port)), timeout=300))
        for _ in range(3):
            assert asked(server) == [serving_bundles.by_hand(1, **ROW)]
        assert server.log.stat().st_size < 10_000, server.log.read_text()[:3000]


@pytest.mark.parametrize("method", ["tensorflow.serving.PredictionService/Predict", "grpc.health.v1.Health/Check"])
def test_a_grpc_message_that_does_not_arrive_is_cut(server, method):
    with grpc.insecure_channel(server.grpc) as channel:
        grpc.channel_ready_future(channel).result(300)
        never = threading.Event()
        try:
            with pytest.raises(grpc.RpcError) as raised:
                channel.stream_unary(f"/{method}")((b"" for _ in range(1) if never.wait(600)), timeout=300)
        finally:
            never.set()
        assert raised.value.code() == grpc.StatusCode.CANCELLED
        assert f"did not arrive within {RECEIVE_SECONDS:g} s" in raised.value.details()
        assert health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest()).status == 1
