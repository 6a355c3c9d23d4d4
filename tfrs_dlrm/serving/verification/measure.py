"""Measures the time of loading and answering, and memory."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from tfrs_dlrm.serving.bundle.warmup import rank_request, repeat_rows
from tfrs_dlrm.serving.runtime.saved_model import SavedModel
from tfrs_dlrm.serving.verification.subject import Subject
from tfrs_dlrm.serving.verification.verification_report import Latency, VerificationReport

_ROWS, _CANDIDATES = (1, 16, 256), (1, 100, 500)
_CALLS, _SECONDS, _WARM_CALLS = 300, 2.0, 5


def load(subject: Subject, report: VerificationReport) -> str:
    """Loads the SavedModel."""
    before, start = memory(), time.perf_counter()
    subject.runtime = SavedModel(subject.path)
    report.load_seconds = time.perf_counter() - start
    after = memory()
    report.memory = (before, after) if before and after else None
    return "in TensorFlow's C++ runtime, without its Python"


def close(subject: Subject, report: VerificationReport) -> None:
    """Frees the SavedModel, and notes the peak memory."""
    if isinstance(subject.runtime, SavedModel):
        subject.runtime.close()
    report.peak_memory = memory("VmHWM")


def measure_latency(subject: Subject, report: VerificationReport) -> str:
    """Measures `serving_default` by rows, and `rank` by candidates."""
    raw = {name: values[~subject.rows.odd] for name, values in subject.rows.raw.items()}
    for size in _ROWS:
        report.latency.append(_latency(subject, "serving_default", size, repeat_rows(raw, size)))
    for size in _CANDIDATES if "rank" in subject.signatures else ():
        request = rank_request(repeat_rows(raw, size), subject.manifest.context_inputs)
        report.latency.append(_latency(subject, "rank", size, request))
    return "one request after the other, see below"


def memory(field: str = "VmRSS") -> int | None:
    """Returns the resident memory of this process in bytes, or with `VmHWM` its peak; None if it is unknown."""
    if not os.path.exists("/proc/self/status"):
        return None
    with open("/proc/self/status", encoding="ascii") as f:
        sizes = [int(line.split()[1]) * 1024 for line in f if line.startswith(f"{field}:")]
    return sizes[0] if sizes else None


def _latency(subject: Subject, signature: str, size: int, inputs: Mapping[str, Any]) -> Latency:
    with subject.saved_model.prepared(signature, inputs) as call:
        for _ in range(_WARM_CALLS):
            call()
        milliseconds = 1000 * np.array(list(_seconds(call)))
    p50, p95, p99 = np.percentile(milliseconds, [50, 95, 99]).tolist()
    return Latency(signature, size, len(milliseconds), p50, p95, p99)


def _seconds(call: Callable[[], Any]) -> Iterator[float]:
    """Yields the seconds of each call."""
    end = time.perf_counter() + _SECONDS
    for _ in range(_CALLS):
        start = time.perf_counter()
        call()
        now = time.perf_counter()
        yield now - start
        if now > end:
            return
