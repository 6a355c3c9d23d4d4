"""How long loading and answering take, and how much memory."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from tfrs_dlrm.serving.bundle.warmup import rank_request
from tfrs_dlrm.serving.runtime.runtime import SavedModel
from tfrs_dlrm.serving.verification.subject import Subject
from tfrs_dlrm.serving.verification.verification_report import Latency, Report

_ROWS, _CANDIDATES = (1, 16, 256), (1, 100, 500)
_CALLS, _SECONDS, _WARM = 300, 2.0, 5


def load(subject: Subject, report: Report) -> str:
    """Loads the SavedModel."""
    before, start = memory(), time.perf_counter()
    subject.loaded = SavedModel(subject.path)
    report.load_seconds = time.perf_counter() - start
    after = memory()
    report.memory = (before, after) if before and after else None
    return "in TensorFlow's C++ runtime, without its Python"


def latencies(subject: Subject) -> Iterator[Latency]:
    """Of `serving_default` by rows, and of `rank` by candidates."""
    raw = {name: values[~subject.rows.odd] for name, values in subject.rows.raw.items()}
    for size in _ROWS:
        yield _measured(subject, "serving_default", size, _repeated(raw, size))
    for size in _CANDIDATES if "rank" in subject.model.signatures else ():
        yield _measured(subject, "rank", size, rank_request(_repeated(raw, size), subject.context))


def memory(field: str = "VmRSS") -> int | None:
    """Of this process, in bytes; `VmHWM` is the most that it ever was."""
    if not os.path.exists("/proc/self/status"):
        return None
    with open("/proc/self/status", encoding="ascii") as f:
        sizes = [int(line.split()[1]) * 1024 for line in f if line.startswith(f"{field}:")]
    return sizes[0] if sizes else None


def _measured(subject: Subject, signature: str, size: int, inputs: Mapping[str, Any]) -> Latency:
    with subject.model.prepared(signature, inputs) as call:
        for _ in range(_WARM):
            call()
        times = 1000 * np.array(list(_times(call)))
    p50, p95, p99 = np.percentile(times, [50, 95, 99]).tolist()
    return Latency(signature, size, len(times), p50, p95, p99)


def _times(call: Callable[[], Any]) -> Iterator[float]:
    """Seconds of each call."""
    end = time.perf_counter() + _SECONDS
    for _ in range(_CALLS):
        start = time.perf_counter()
        call()
        now = time.perf_counter()
        yield now - start
        if now > end:
            return


def _repeated(raw: Mapping[str, np.ndarray], size: int) -> dict[str, np.ndarray]:
    return {name: np.resize(values, (size, *values.shape[1:])) for name, values in raw.items()}
