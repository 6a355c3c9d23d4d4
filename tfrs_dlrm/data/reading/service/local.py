"""Runs an input service on one machine, on loopback, for trials, tests and measurements."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from tfrs_dlrm.distribute.cluster import unreachable
from tfrs_dlrm.distribute.local_cluster import end_all, free_ports

_RESTARTS = 5  # summed over all processes
_START_WITHIN = 180.0  # on a busy machine; a process that ends is noticed at once


class LocalService:
    """A dispatcher and input workers, one process each, which are restarted a few times if they end.

    Args:
      workers: the number of input workers.
      port: the port of the dispatcher; 0 picks a free one.
      program: the command that takes `--role=dispatcher` and `--role=worker`, tfrs-dlrm input-service.
      say: called with a message about each process that ended.

    Raises:
      ConnectionError: a process did not start.
    """

    def __init__(self, workers: int, port: int, program: Sequence[str], say: Callable[[str], None]):
        self.address = f"127.0.0.1:{port or free_ports(1)[0]}"
        self._program, self._say, self._restarts = list(program), say, 0
        if not unreachable([self.address]):
            raise ConnectionError(f"{self.address}: the port is in use; choose another --port")
        self.dispatcher = self._start_dispatcher()
        self.workers: list[subprocess.Popen[bytes]] = []
        try:
            self._wait_for("dispatcher", [self.address], [self.dispatcher])
            ports = free_ports(workers)
            self.workers += [self._start_worker(port) for port in ports]
            self._wait_for("input workers", [f"127.0.0.1:{port}" for port in ports], self.workers)
        except BaseException:
            self.stop()
            raise

    def run(self) -> int:
        """Watches the processes until SIGTERM or SIGINT, then ends all; returns an exit code."""
        stop = threading.Event()

        def received(number: int, frame: Any) -> None:
            del number, frame
            stop.set()

        before = {n: signal.signal(n, received) for n in (signal.SIGTERM, signal.SIGINT)}
        try:
            while not stop.wait(0.2):
                if not self.watch():
                    return 1
            return 0
        finally:
            self.stop()
            for number, handler in before.items():
                signal.signal(number, handler)

    def watch(self) -> bool:
        """Restarts processes that ended; returns False if too many did."""
        for i, process in enumerate([self.dispatcher, *self.workers]):
            code = process.poll()
            if code is None:
                continue
            name = f"input worker {i - 1}" if i else "the dispatcher"
            self._restarts += 1
            if self._restarts > _RESTARTS:
                self._say(f"{name} ended with code {code}, the {self._restarts}th end of a process; the service stops")
                return False
            self._say(f"{name} (process {process.pid}) ended with code {code} and is started again")
            if i:
                self.workers[i - 1] = self._start_worker(free_ports(1)[0])
            else:
                self.dispatcher = self._start_dispatcher()
        return True

    def stop(self) -> None:
        """Ends all processes."""
        end_all([*self.workers, self.dispatcher])

    def _start_dispatcher(self) -> subprocess.Popen[bytes]:
        return self._start("dispatcher", f"--port={self.address.rpartition(':')[2]}")

    def _start_worker(self, port: int) -> subprocess.Popen[bytes]:
        return self._start("worker", f"--dispatcher={self.address}", f"--port={port}")

    def _start(self, role: str, *arguments: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
        command = [*self._program, f"--role={role}", f"--parent={os.getpid()}", *arguments]
        # A new session, so that Ctrl-C reaches them through `stop` only.
        return subprocess.Popen(command, env=environment, stdout=sys.stderr, start_new_session=True)

    def _wait_for(self, who: str, addresses: Sequence[str], processes: Sequence[subprocess.Popen[bytes]]) -> None:
        deadline = time.monotonic() + _START_WITHIN
        while missing := unreachable(addresses):
            if any(p.poll() is not None for p in processes) or time.monotonic() > deadline:
                raise ConnectionError(f"{who} at {', '.join(missing)} did not start; see the messages above")
            time.sleep(0.1)
