"""Memory and processor time of a process with all that it starts, also of processes that others wait for."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable
from typing import NamedTuple

import psutil


class Sample(NamedTuple):
    """What a tree of processes holds and has done.

    Attributes:
      seconds: since the watch began.
      held: bytes, the sum of the proportional set sizes: pages that processes share count once.
      cpu: seconds of all processes so far.
    """

    seconds: float
    held: int
    cpu: float


class TreeWatch:
    """Samples a process and its descendants in a thread until `stop`.

    A process that lives for less than `interval` seconds may be missed, and so may a peak.
    """

    def __init__(self, pid: int, interval: float = 0.25) -> None:
        self._root = psutil.Process(pid)
        self._interval = interval
        self._cpu: dict[psutil.Process, float] = {}
        self.samples: list[Sample] = []
        self._begin = time.perf_counter()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the watch. Processes that the tree left behind are killed."""
        self._stop.set()
        self._thread.join()
        for process in self._cpu:
            with contextlib.suppress(psutil.Error):
                process.kill()

    def _watch(self) -> None:
        while not self._stop.is_set():
            seconds = time.perf_counter() - self._begin
            self.samples.append(Sample(seconds, self._held(), sum(self._cpu.values())))
            self._stop.wait(self._interval)

    def _held(self) -> int:
        held = 0
        with contextlib.suppress(psutil.Error):
            for process in [self._root, *self._root.children(recursive=True)]:
                with contextlib.suppress(psutil.Error):
                    held += process.memory_full_info().pss
                    times = process.cpu_times()
                    self._cpu[process] = times.user + times.system
        return held


class PhaseUse(NamedTuple):
    """What a phase took: seconds, CPU seconds, and the largest `held` in bytes of its samples and the one before."""

    seconds: float
    cpu: float
    peak: int


def by_phase(samples: Iterable[Sample], ends: dict[str, float]) -> dict[str, PhaseUse]:
    """Returns what each phase took.

    Args:
      samples: of a `TreeWatch`, in order.
      ends: when each phase ended, in seconds, in order. The first one begins at 0.
    """
    samples = list(samples)
    uses, begin, done = {}, 0.0, 0.0
    for name, end in ends.items():
        before = [sample for sample in samples if sample.seconds < begin][-1:]
        within = [sample for sample in samples if begin <= sample.seconds < end]
        cpu = _cpu_at(samples, end)
        uses[name] = PhaseUse(end - begin, cpu - done, max((sample.held for sample in before + within), default=0))
        begin, done = end, cpu
    return uses


def _cpu_at(samples: list[Sample], seconds: float) -> float:
    """Returns the CPU seconds at a time, between two samples in proportion."""
    before = Sample(0.0, 0, 0.0)
    for sample in samples:
        if sample.seconds >= seconds:
            share = (seconds - before.seconds) / ((sample.seconds - before.seconds) or 1.0)
            return before.cpu + share * (sample.cpu - before.cpu)
        before = sample
    return before.cpu
