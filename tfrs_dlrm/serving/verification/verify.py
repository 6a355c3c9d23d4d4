"""Runs all checks of a bundle, in TensorFlow's C++ runtime."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection

from tfrs_dlrm.serving.bundle.versions import newest_version
from tfrs_dlrm.serving.verification import contents, measure, operations, prepared_rows
from tfrs_dlrm.serving.verification.questions import QUESTIONS
from tfrs_dlrm.serving.verification.subject import Subject, read_reference
from tfrs_dlrm.serving.verification.verification_report import Check, Failed, VerificationReport
from tfrs_dlrm.stores import is_store_url, local_copy

# By name of a check, the checks that must pass before.
_NEEDS = {
    "files": ("manifest",),
    "load": ("operations",),
    "signatures": ("manifest", "load"),
    "warmup": ("load",),
    "example": ("manifest", "load"),
    "reference": ("manifest",),
    **dict.fromkeys(QUESTIONS, ("reference", "load")),
    "data": ("manifest", "load"),
    "latency": ("scores",),
}


def verify(
    path: str, data: str | None = None, latency: bool = True, allowed: Collection[str] = ()
) -> VerificationReport:
    """Checks a bundle.

    Args:
      path: of a version, or of the directory of the versions, whose newest is checked; also in an object store.
      data: a prepared directory; the first rows of its evaluation set are compared as well.
      latency: whether to measure latency, which takes some seconds.
      allowed: operations that the graph may have in addition to the usual ones.

    Returns:
      The findings; a broken bundle raises nothing.

    Raises:
      ValueError: `path` holds no bundle.
    """
    subject = Subject(newest_version(path), None if data is None else local_copy(data), frozenset(allowed))
    report = VerificationReport(path if is_store_url(path) else subject.path)
    checks: dict[str, Callable[[Subject], str]] = {
        "manifest": contents.check_manifest,
        "files": contents.check_files,
        "operations": operations.check,
        "load": functools.partial(measure.load, report=report),
        "signatures": contents.check_signatures,
        "warmup": contents.check_warmup,
        "batching": contents.check_batching,
        "example": contents.check_example,
        "reference": read_reference,
        **QUESTIONS,
    }
    if data is not None:
        checks["data"] = prepared_rows.check
    if latency:
        checks["latency"] = functools.partial(measure.measure_latency, report=report)
    try:
        for name, check in checks.items():
            report.checks.append(_run(name, check, subject, report))
    finally:
        measure.close(subject, report)
    return report


def _run(name: str, check: Callable[[Subject], str], subject: Subject, report: VerificationReport) -> Check:
    ended = {check.name: check.status for check in report.checks}
    unmet = [need for need in _NEEDS.get(name, ()) if ended[need] != "ok"]
    if unmet:
        return Check(name, "skipped", f"needs {' and '.join(unmet)}")
    try:
        return Check(name, "ok", check(subject))
    except Exception as e:  # any error of a broken bundle is a finding, and the later checks still run
        known = isinstance(e, (Failed, ValueError, OSError)) or type(e).__module__.startswith("tfrs_dlrm")
        return Check(name, "failed", str(e) if known else f"{type(e).__name__}: {e}")
