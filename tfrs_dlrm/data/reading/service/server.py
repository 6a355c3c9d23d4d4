"""Runs the processes of an input service: one dispatcher, and workers that read, decode and shuffle."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tfrs_dlrm.data.reading.service.worker_graph import register
from tfrs_dlrm.distribute.cluster import unreachable

# A killed trainer leaves a job behind, of which each worker holds two windows until it is removed.
_CLEAR_AFTER_MS = 10_000
_WORKER_TIMEOUT_MS = 15_000
_HEARTBEAT_MS = 1_000
_ANSWER_WITHIN = 20.0


def run_dispatcher(port: int, say: Callable[[str], None], parent: int = 0) -> object:
    """Hands out work to input workers until SIGTERM or SIGINT.

    Returns an object to keep until the process ends, since stopping it takes long if trainers are not done.

    Args:
      port: the port; 0 picks a free one.
      say: called with the address.
      parent: a process whose end also ends this one; 0 for none.

    Raises:
      OSError: the port is taken.
    """
    stop = _stop_on_signals()
    service = tf.data.experimental.service
    config = service.DispatcherConfig(
        port=port,
        job_gc_check_interval_ms=_CLEAR_AFTER_MS // 2,
        job_gc_timeout_ms=_CLEAR_AFTER_MS,
        worker_timeout_ms=_WORKER_TIMEOUT_MS,
    )
    try:
        server = service.DispatchServer(config)
    except tf.errors.OpError as e:
        raise OSError(f"port {port}: {str(e).splitlines()[0]}; is it taken?") from e
    say(f"dispatcher at port {server.target.rpartition(':')[2]}")
    _until(stop, parent)
    return server


def run_worker(dispatcher: str, host: str, port: int, say: Callable[[str], None], parent: int = 0) -> object:
    """Reads, decodes and shuffles for the trainers of a dispatcher until SIGTERM or SIGINT.

    Returns an object to keep until the process ends.

    Args:
      dispatcher: HOST:PORT.
      host: the name by which trainers reach this machine.
      port: the port; 0 picks a free one.
      say: called with the address.
      parent: see `run_dispatcher`.

    Raises:
      ConnectionError: no dispatcher answers within 20 seconds.
      OSError: the port is taken.
    """
    stop = _stop_on_signals()
    deadline = time.monotonic() + _ANSWER_WITHIN
    while reason := unreachable([dispatcher]).get(dispatcher):
        if time.monotonic() > deadline:
            text = f"no dispatcher at {dispatcher} within {_ANSWER_WITHIN:g} seconds ({reason})"
            raise ConnectionError(f"{text}; start it first, with --role=dispatcher")
        time.sleep(0.2)
    keep = register(f"{host}, process {os.getpid()}")
    service = tf.data.experimental.service
    config = service.WorkerConfig(
        dispatcher_address=dispatcher,
        worker_address=f"{host}:%port%",
        port=port,
        heartbeat_interval_ms=_HEARTBEAT_MS,
        dispatcher_timeout_ms=int(_ANSWER_WITHIN * 1000),
    )
    try:
        server = service.WorkerServer(config)
    except tf.errors.OpError as e:
        raise OSError(f"{host}, port {port}: {str(e).splitlines()[0]}") from e
    say(f"input worker on {host}, process {os.getpid()}")
    _until(stop, parent)
    return server, keep


def _stop_on_signals() -> threading.Event:
    stop = threading.Event()

    def received(number: int, frame: Any) -> None:
        del number, frame
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, received)
    return stop


def _until(stop: threading.Event, parent: int) -> None:
    while not stop.wait(0.5) and (not parent or os.getppid() == parent):
        pass
