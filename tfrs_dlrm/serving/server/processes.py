"""Several processes that answer on the same ports, and their parent, which starts, watches and ends them.

Each process is a whole server, with its own copy of the models. The kernel gives each connection to one of them
(SO_REUSEPORT). None listens before all have loaded their models. The parent holds the ports, without listening, so that
they stay theirs while a process is replaced.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from typing import Any

from absl import logging

from tfrs_dlrm.serving.server.metric_peers import MetricPeers
from tfrs_dlrm.serving.server.model_server import ModelServer, Served, ServerOptions, serve_until_signal

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def serve_in_processes(options: ServerOptions, begin: Callable[[], None], started: Callable[[Served], None]) -> None:
    """Serves in `options.service.processes` processes until a signal, which each answers as a single one does.

    Args:
      options: of each process.
      begin: called first in each process, to set up its log; it can be pickled.
      started: called in this process once all listen.

    Raises:
      ValueError: the platform has no SO_REUSEPORT.
      OSError: a port is taken, or a process ended before it listened.
    """
    if not hasattr(socket, "SO_REUSEPORT"):
        raise ValueError("--processes needs SO_REUSEPORT, which this platform lacks: leave it at 1")
    with contextlib.ExitStack() as stack:
        ports = [
            stack.enter_context(_reserved(options.security.host, port, flag))
            for port, flag in ((options.rest_port, "--rest_port"), (options.grpc_port, "--grpc_port"))
        ]
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="tfrs-dlrm-serve-"))
        parent = _Parent(options.on_ports(*ports), directory, begin, started)
        parent.run()
    if parent.cut:  # as a single process ends at once by a second signal
        signal.signal(parent.cut, signal.SIG_DFL)
        os.kill(os.getpid(), parent.cut)


@contextlib.contextmanager
def _reserved(host: str, port: int, flag: str) -> Iterator[int]:
    """Holds a port, and yields its number."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as held:
        try:
            with socket.create_server((host, port), family=family):
                pass  # another server, even one that would share, is an error
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            held.bind((host, port))
        except OSError as e:
            raise OSError(f"cannot listen on {host}:{port} ({e}); try another {flag}") from e
        yield held.getsockname()[1]


class _Child:
    """A process, and what it said.

    Attributes:
      told: whether it was told to listen.
      served: what it serves, once it has loaded it.
      listens: whether it has begun to.
      error: why it could not.
    """

    def __init__(self, options: ServerOptions, index: int, directory: str, begin: Callable[[], None]):
        context = multiprocessing.get_context("spawn")
        self.index, self.told, self.listens, self.error = index, False, False, ""
        self.served: Served | None = None
        self.connection, theirs = context.Pipe()
        arguments = (options, index, directory, begin, theirs)
        self.process = context.Process(target=_serve, args=arguments, name=f"serve-{index}")
        self.process.start()
        theirs.close()

    def hear(self) -> None:
        """Takes a message."""
        try:
            kind, content = self.connection.recv()
        except (EOFError, OSError):
            self.connection.close()
            return
        if kind == "loaded":
            self.served = content
        elif kind == "listens":
            self.listens = True
        else:
            self.error = content

    def tell(self) -> None:
        """Lets it listen."""
        self.told = True
        with contextlib.suppress(OSError):  # it has just ended
            self.connection.send("listen")

    def end(self, number: int) -> None:
        """Passes a signal on; a process that has not begun to listen has nothing to lose."""
        if self.process.pid and self.process.is_alive():
            os.kill(self.process.pid, number if self.told else signal.SIGKILL)


class _Parent:
    """Starts the processes, replaces those that end, and ends them.

    Attributes:
      cut: the second signal, which ended all at once; else 0.
    """

    def __init__(
        self, options: ServerOptions, directory: str, begin: Callable[[], None], started: Callable[[Served], None]
    ):
        self._options, self._directory, self._begin, self._started = options, directory, begin, started
        self._children: list[_Child] = []
        self._signals: list[int] = []
        self._wakes, self._wake = os.pipe()
        self._ending = self._all_listened = False
        self._error = ""
        self.cut = 0

    def run(self) -> None:
        """Returns after a signal, once all have ended; raises OSError if one ended before it listened."""
        former = {number: signal.signal(number, self._on_signal) for number in _SIGNALS}
        try:
            for index in range(self._options.service.processes):
                self._start(index)
            while self._children:
                self._step()
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)
            for child in self._children:
                child.process.kill()
            os.close(self._wakes)
            os.close(self._wake)
        if self._error:
            raise OSError(self._error)

    def _on_signal(self, number: int, frame: Any) -> None:
        self._signals.append(number)
        os.write(self._wake, b".")

    def _start(self, index: int) -> None:
        self._children.append(_Child(self._options, index, self._directory, self._begin))

    def _step(self) -> None:
        """Waits for a message, an end or a signal, and does what it asks for."""
        by_pipe: dict[Any, _Child] = {c.connection: c for c in self._children if not c.connection.closed}
        ready = wait([self._wakes, *by_pipe, *(child.process.sentinel for child in self._children)])
        if self._wakes in ready:
            os.read(self._wakes, 100)
        while self._signals:
            self._take_signal(self._signals.pop(0))
        for connection, child in by_pipe.items():
            if connection in ready:
                child.hear()
        for child in [child for child in self._children if not child.process.is_alive()]:
            self._ended(child)
        if not self._ending:
            self._let_listen()

    def _take_signal(self, number: int) -> None:
        if not self._ending:
            self._end(number)
        else:
            self.cut = number
            for child in self._children:
                child.process.kill()

    def _let_listen(self) -> None:
        if self._all_listened or all(child.served for child in self._children):
            for child in self._children:
                if child.served and not child.told:
                    child.tell()
        if not self._all_listened and all(child.listens for child in self._children):
            self._all_listened = True
            self._started(next(child.served for child in self._children if child.served))

    def _ended(self, child: _Child) -> None:
        while not child.connection.closed and child.connection.poll():
            child.hear()
        self._children.remove(child)
        child.connection.close()
        if self._ending:
            return
        code = child.process.exitcode
        if child.listens:
            logging.error("process %d of the server ended with code %s; another takes its place", child.index, code)
            self._start(child.index)
        else:
            why = child.error or f"it ended with code {code}"
            self._error = f"process {child.index} of the server could not start, so all end: {why}"
            self._end(signal.SIGTERM)

    def _end(self, number: int) -> None:
        self._ending = True
        for child in self._children:
            child.end(number)


class _ParentEndedError(Exception):
    """The parent ended before it let this process listen."""


def _serve(options: ServerOptions, index: int, directory: str, begin: Callable[[], None], parent: Connection) -> None:
    """The main function of a process."""
    os.setsid()  # Ctrl-C is for the parent, which passes it on
    begin()
    try:
        asyncio.run(_serve_for(parent, options, index, directory))
    except _ParentEndedError:
        raise SystemExit(1) from None
    except Exception as e:
        parent.send(("failed", str(e)))
        raise SystemExit(1) from e


async def _serve_for(parent: Connection, options: ServerOptions, index: int, directory: str) -> None:
    loop = asyncio.get_running_loop()

    async def loaded(server: ModelServer) -> None:
        """Waits, with its models loaded, until it may listen."""
        peers = MetricPeers(directory, index, server.service.metrics.texts)
        await peers.start()
        server.service.metrics_text = peers.text
        parent.send(("loaded", server.served()))
        told = asyncio.Event()
        loop.add_reader(parent.fileno(), told.set)
        await told.wait()
        loop.remove_reader(parent.fileno())
        try:
            parent.recv()
        except EOFError as e:
            raise _ParentEndedError from e

    def listens(server: ModelServer) -> None:
        parent.send(("listens", None))
        # The parent sends nothing more: there is something to read once it has ended, and then nobody would end this.
        loop.add_reader(parent.fileno(), _end_with_parent, parent)

    await serve_until_signal(options, listens, loaded)


def _end_with_parent(parent: Connection) -> None:
    asyncio.get_running_loop().remove_reader(parent.fileno())
    os.kill(os.getpid(), signal.SIGTERM)
