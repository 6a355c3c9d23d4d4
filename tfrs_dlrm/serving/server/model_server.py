"""A server for REST and gRPC, in one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import math
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, cast

import grpc
import uvicorn
from grpc_health.v1 import health, health_pb2

from tfrs_dlrm.serving.server import grpc_service, rest
from tfrs_dlrm.serving.server.connections import BoundedListener, Connections, most_connections
from tfrs_dlrm.serving.server.direct_requests import DirectRequests
from tfrs_dlrm.serving.server.grpc_health import health_handler
from tfrs_dlrm.serving.server.http_protocol import BoundedHttpProtocol
from tfrs_dlrm.serving.server.inference import Inference, InferenceOptions
from tfrs_dlrm.serving.server.security import BearerTokenRpc, Security

_SETTLING_SECONDS = 0.5
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_SPARE_STREAMS = 100  # of a connection, for watches of its health and for calls that are refused
_IDLE_MILLISECONDS = 300_000  # after which gRPC closes a connection without calls; clients open a new one


@dataclasses.dataclass(frozen=True)
class ServerOptions:
    """The options of a server.

    Attributes:
      root: a model's directory of versions, or a directory of models.
      rest_port: 0 for any free port.
      grpc_port: 0 for any free port.
      lame_duck_seconds: how long the server takes further requests after SIGTERM, while it tells its clients to leave.
      drain_seconds: how long requests may take after that.
      max_connections: of REST, and as many of gRPC; 0 for a number that fits the limit of file descriptors.
      security: the address and the access control.
      service: how models are run.
    """

    root: str
    rest_port: int = 8501
    grpc_port: int = 8500
    lame_duck_seconds: float = 5
    drain_seconds: float = 30
    max_connections: int = 0
    security: Security = dataclasses.field(default_factory=Security)
    service: InferenceOptions = dataclasses.field(default_factory=InferenceOptions)

    def on_ports(self, rest_port: int, grpc_port: int) -> ServerOptions:
        """Returns these options with other ports."""
        return dataclasses.replace(self, rest_port=rest_port, grpc_port=grpc_port)


@dataclasses.dataclass(frozen=True)
class Served:
    """What a server serves.

    Attributes:
      models: the numbers of the versions that answer, newest first, by the name of the model.
      rest_port: on which it listens.
      grpc_port: on which it listens.
    """

    models: dict[str, list[int]]
    rest_port: int
    grpc_port: int


class ModelServer:
    """A server: `await start()`, then `await stop()`, before it perhaps `await be_lame_duck()`.

    Attributes:
      service: its models.
      rest_port: on which it listens, once started.
      grpc_port: on which it listens, once started.
    """

    def __init__(self, options: ServerOptions):
        self.options = options
        self.service = Inference(options.root, options.service)
        self.rest_port = self.grpc_port = 0
        self._token = options.security.token()
        self._connections = Connections(options.max_connections or most_connections())
        self._health = health.aio.HealthServicer()
        self._grpc: grpc.aio.Server | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    async def start(self, loaded: Callable[[ModelServer], Awaitable[None]] | None = None) -> None:
        """Loads the models and listens.

        Args:
          loaded: awaited in between.

        Raises:
          OSError: a port is taken.
        """
        self.service.listeners.append(self._report_health)
        await self.service.start()
        try:
            if loaded:
                await loaded(self)
            await self._start_grpc()
            await self._start_rest()
        except BaseException:
            await self._stop_grpc(None)
            await self.service.close()
            raise
        self._report_health()

    def served(self) -> Served:
        """Returns what it serves, on the ports of its options until it has started."""
        models = {
            name: [version.number for version in model.available()] for name, model in self.service.models.items()
        }
        return Served(models, self.rest_port or self.options.rest_port, self.grpc_port or self.options.grpc_port)

    async def be_lame_duck(self) -> None:
        """Tells clients to go elsewhere for `lame_duck_seconds`, and still answers: nothing that was sent is lost."""
        self._begin_draining()
        await asyncio.sleep(self.options.lame_duck_seconds)

    async def stop(self) -> None:
        """Refuses new requests, answers the current ones, and unloads the models."""
        self._begin_draining()
        end = time.monotonic() + self.options.drain_seconds
        # Until all is answered, the server refuses by itself: gRPC would cancel calls that it has not yet taken.
        self.service.admission.closed = True
        while self.service.admission.calls and time.monotonic() < end:
            await asyncio.sleep(0.01)
        await self._stop_listening(end)
        left = max(1.0, end - time.monotonic())
        self._web.config.timeout_graceful_shutdown = math.ceil(left)
        self._web.should_exit = True
        await asyncio.gather(self._stop_grpc(left), self._web_task)
        await self.service.close()

    async def _stop_listening(self, end: float) -> None:
        """Accepts whoever has connected, so that a request is refused by an answer and not by a reset."""
        while self._listener.has_waiting() and time.monotonic() < end:
            await asyncio.sleep(0)
        for server in self._web.servers:
            server.close()
        # Their requests are on the way. Connections that stay open longer are idle.
        settled = min(end, time.monotonic() + _SETTLING_SECONDS)
        while len(self._connections) and time.monotonic() < settled:
            await asyncio.sleep(0.01)

    def _begin_draining(self) -> None:
        self.service.draining = True
        self._report_health()

    async def _start_grpc(self) -> None:
        security, most = self.options.security, self.options.service.max_request_bytes
        server = self._grpc = grpc.aio.server(
            interceptors=[BearerTokenRpc(self._token)] if self._token else [],
            options=[
                ("grpc.max_receive_message_length", most),
                ("grpc.so_reuseport", int(self.options.service.processes > 1)),
                ("grpc.max_allowed_incoming_connections", self._connections.most),
                ("grpc.max_concurrent_streams", self.options.service.max_concurrent + _SPARE_STREAMS),
                ("grpc.server_handshake_timeout_ms", int(1000 * self.options.service.receive_seconds)),
                ("grpc.max_connection_idle_ms", _IDLE_MILLISECONDS),
            ],
        )
        seconds = self.options.service.receive_seconds
        server.add_generic_rpc_handlers([*grpc_service.handlers(self.service), health_handler(self._health, seconds)])
        address = f"{bracketed(security.host)}:{self.options.grpc_port}"
        credentials = security.grpc_credentials()
        try:
            self.grpc_port = (
                server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
            )
        except RuntimeError as e:
            raise OSError(f"cannot listen on {address} for gRPC; another --grpc_port may be free") from e
        await server.start()

    async def _stop_grpc(self, seconds: float | None) -> None:
        """Answers the current calls for so long; None: ends them at once. Does nothing before gRPC has begun."""
        if self._grpc is not None:
            await self._grpc.stop(seconds)

    async def _start_rest(self) -> None:
        security, port = self.options.security, self.options.rest_port
        direct, seconds = DirectRequests(self.service, security), self.options.service.receive_seconds
        protocol = functools.partial(BoundedHttpProtocol, self._connections, seconds, direct)
        config = uvicorn.Config(
            rest.application(self.service, security),
            http=cast(Any, protocol),
            lifespan="off",
            log_config=None,
            access_log=False,
            timeout_keep_alive=75,  # longer than clients keep idle connections, which would break in use
            ssl_certfile=security.tls_cert or None,
            ssl_keyfile=security.tls_key or None,
            timeout_graceful_shutdown=int(self.options.drain_seconds),
        )
        family = socket.AF_INET6 if ":" in security.host else socket.AF_INET
        try:
            listening = socket.create_server(
                (security.host, port), family=family, backlog=2048, reuse_port=self.options.service.processes > 1
            )
        except OSError as e:
            raise OSError(f"cannot listen on {security.host}:{port} for REST ({e}); try another --rest_port") from e
        # Accepted sockets inherit it. Without it, an answer takes 40 ms; asyncio sets it only if the protocol is named.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.rest_port = listening.getsockname()[1]
        self._web = _Web(config)
        self._listener = BoundedListener(listening, self._connections)
        self._web_task = asyncio.get_running_loop().create_task(self._web.serve([self._listener]))
        while not self._web.started and not self._web_task.done():
            await asyncio.sleep(0.005)
        if self._web_task.done():
            self._web_task.result()

    def _report_health(self) -> None:
        states = health_pb2.HealthCheckResponse
        ready = self.service.ready()
        for name in ("", grpc_service.PREDICTION, grpc_service.MODEL):
            state = states.SERVING if ready else states.NOT_SERVING
            task = asyncio.get_running_loop().create_task(self._health.set(name, state))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)


def serve(options: ServerOptions, started: Callable[[ModelServer], None]) -> None:
    """Serves until a signal, see `serve_until_signal`."""
    asyncio.run(serve_until_signal(options, started))


async def serve_until_signal(
    options: ServerOptions,
    started: Callable[[ModelServer], None],
    loaded: Callable[[ModelServer], Awaitable[None]] | None = None,
) -> None:
    """Serves until a signal, and then answers what was sent; a second signal ends the process at once.

    SIGTERM comes from a supervisor, whose clients need time to learn of it: the server is a lame duck first. SIGINT
    comes from a person, who waits.

    Args:
      options: of the server.
      started: called once it listens.
      loaded: awaited before it listens, with its models loaded.
    """
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[int] = loop.create_future()

    def end(number: int) -> None:
        for each in _SIGNALS:
            loop.remove_signal_handler(each)
            signal.signal(each, signal.SIG_DFL)
        ended.set_result(number)

    for number in _SIGNALS:
        loop.add_signal_handler(number, end, number)
    server = ModelServer(options)
    await server.start(loaded)
    started(server)
    if await ended == signal.SIGTERM:
        await server.be_lame_duck()
    await server.stop()


def bracketed(host: str) -> str:
    """Returns the host as it stands before a port: IPv6 in brackets."""
    return f"[{host}]" if ":" in host else host


class _Web(uvicorn.Server):
    """Uvicorn that leaves the signals to `serve`."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
