"""A cluster whose processes all run on this machine, for trials and tests."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from tfrs_dlrm.distribute.cluster import EXIT_SERVER_LOST
from tfrs_dlrm.distribute.tf_config import JOBS
from tfrs_dlrm.stores.files import local_path

# How often one task may end in a row without a minute of life in between.
_RESTARTS = 5
_LONG_LIFE = 60.0
# For the processes of a local cluster: below the range from which systems give ports to connections.
_PORTS = range(20_000, 30_000)
# In seconds, how long a process may take to end by itself.
_END_WITHIN = 5.0


@dataclasses.dataclass
class _Task:
    """One process of a local cluster."""

    job: str
    index: int
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    quick_ends: int = 0

    @property
    def name(self) -> str:
        return f"{self.job}-{self.index}"


class LocalCluster:
    """All processes of a cluster on this machine, on loopback, for trials and tests.

    A worker or server that ends is restarted, and so is a coordinator that was killed or lost a server; it resumes from
    its last checkpoint.

    Args:
      strategy: `parameter_server` or `multi_worker`.
      workers: how many.
      servers: how many, of `parameter_server`.
      program: the command that every process runs.
      logs: the directory for their output, a file each.
      environment: more variables for all of them.
      terminal: whether the coordinator, or the first worker of `multi_worker`, prints to the terminal instead.

    Raises:
      ValueError: the strategy has no cluster, or the numbers are too small.
    """

    def __init__(
        self,
        strategy: str,
        workers: int,
        servers: int,
        program: Sequence[str],
        logs: str,
        environment: Mapping[str, str] | None = None,
        terminal: bool = True,
    ) -> None:
        if strategy not in JOBS:
            raise ValueError(f"strategy {strategy!r} has no cluster; choose one of {', '.join(JOBS)}")
        if workers < 1 or (strategy == "parameter_server" and servers < 1):
            raise ValueError(f"workers={workers}, servers={servers}; at least 1 of each is needed")
        self._program, self._logs, self._environment = list(program), logs, dict(environment or {})
        self._asynchronous = strategy == "parameter_server"
        counts = {"worker": workers}
        if self._asynchronous:
            counts = {"ps": servers, "worker": workers, "chief": 1}
        ports = iter(free_ports(sum(counts.values())))
        self._cluster = {job: [f"127.0.0.1:{next(ports)}" for _ in range(n)] for job, n in counts.items()}
        self.tasks = [_Task(job, i) for job, n in counts.items() for i in range(n)]
        self._terminal, self._stopped = terminal, threading.Event()

    @property
    def main(self) -> _Task:
        """The task whose end ends the cluster: the coordinator, or the first worker."""
        return self.tasks[-1] if self._asynchronous else self.tasks[0]

    def run(self, say: Callable[[str], None]) -> int:
        """Starts all processes and watches over them until the main one is done; returns its exit code.

        Args:
          say: is told of every process that ended too early.
        """
        os.makedirs(local_path(self._logs), exist_ok=True)
        with self._pass_on_signals():
            try:
                for each in self.tasks:
                    self._start(each)
                while (code := self._watch(say)) is None:
                    time.sleep(0.1)
                return code
            finally:
                self._end()

    def _start(self, each: _Task) -> None:
        config = {"cluster": self._cluster, "task": {"type": each.job, "index": each.index}}
        environment = {**os.environ, **self._environment, "TF_CONFIG": json.dumps(config)}
        if each.job == "worker":
            environment.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # they share the GPUs
        else:
            environment["CUDA_VISIBLE_DEVICES"] = ""
        with contextlib.ExitStack() as stack:
            output = None
            if each is not self.main or not self._terminal:
                output = stack.enter_context(open(os.path.join(self._logs, f"{each.name}.log"), "ab"))
            # In a new session, so that Ctrl-C reaches it by `_pass_on_signals` alone.
            each.process = subprocess.Popen(
                self._program, env=environment, stdout=output, stderr=output, start_new_session=True
            )
        each.started = time.monotonic()

    def _watch(self, say: Callable[[str], None]) -> int | None:
        """Looks at all processes once; returns the exit code of the cluster if it has ended."""
        for each in self.tasks:
            code = each.process.poll() if each.process else None
            if code is None:
                continue
            if self._stopped.is_set():
                if each is self.main:
                    return code
                continue
            if not self._asynchronous:
                # Workers that step together end together: if one fails, all do.
                if code == 0 and each is not self.main:
                    continue
                return code
            if each is self.main and code >= 0 and code != EXIT_SERVER_LOST:
                return code
            each.quick_ends = each.quick_ends + 1 if time.monotonic() - each.started < _LONG_LIFE else 1
            if each.quick_ends > _RESTARTS:
                say(f"{each.name} ended {each.quick_ends} times in a row; the cluster stops. See {self._logs}")
                return code or 1
            say(f"{each.name} ended with code {code} and is restarted")
            if each is self.main:
                # The servers hold the tables of the lost coordinator, and would hold them twice.
                for server in (t for t in self.tasks if t.job == "ps"):
                    if server.process:
                        server.process.kill()
                        server.process.wait()
                    self._start(server)
            self._start(each)
        return None

    def _end(self) -> None:
        end_all(each.process for each in self.tasks if each.process)

    @contextlib.contextmanager
    def _pass_on_signals(self) -> Iterator[None]:
        """The first SIGTERM, SIGINT or SIGHUP tells the main process to end, with a checkpoint; a second one, all."""

        def pass_on(number: int, frame: Any) -> None:
            del frame
            if self._stopped.is_set():
                sys.exit(128 + number)
            self._stopped.set()
            for each in [self.main] if self._asynchronous else self.tasks:
                if each.process and each.process.poll() is None:
                    each.process.send_signal(signal.SIGTERM)

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {n: signal.signal(n, pass_on) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def free_ports(count: int) -> list[int]:
    """Returns ports of this machine that are free at the moment.

    Raises:
      OSError: the free ports are too few.
    """
    found: list[int] = []
    for port in random.sample(_PORTS, len(_PORTS)):
        with socket.socket() as s, contextlib.suppress(OSError):
            s.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == count:
            return found
    raise OSError(f"no {count} free ports between {_PORTS.start} and {_PORTS.stop}")


def end_all(processes: Iterable[subprocess.Popen[bytes]]) -> None:
    """Ends the processes that run, by SIGTERM, and by SIGKILL after 5 seconds."""
    running = [process for process in processes if process.poll() is None]
    for process in running:
        process.terminate()
    deadline = time.monotonic() + _END_WITHIN
    for process in running:
        try:
            process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
