"""All checks of a bundle, in the order in which one needs what another found."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection

from tfrs_dlrm.serving.bundle.manifest import WARMUP
from tfrs_dlrm.serving.bundle.versions import local_version
from tfrs_dlrm.serving.server.loading import warm_up
from tfrs_dlrm.serving.verification import contract, files, forms, measure, operations, prepared, scores
from tfrs_dlrm.serving.verification.subject import Subject, read_reference
from tfrs_dlrm.serving.verification.verification_report import Check, Failed, Report
from tfrs_dlrm.stores import is_store_url, local_copy


def verify(path: str, data: str | None = None, latency: bool = True, allowed: Collection[str] = ()) -> Report:
    """Checks a bundle.

    Args:
      path: of a version, or of the directory of the versions, whose newest is meant; also in an object store.
      data: a prepared directory; the first rows of its evaluation set are compared as well.
      latency: whether to measure it, which takes some seconds.
      allowed: operations beyond the usual that the graph may have.

    Returns:
      What was found; a bundle that is broken raises nothing.

    Raises:
      ValueError: there is no bundle at `path`.
    """
    data = None if data is None else local_copy(data)
    subject = Subject(files.find_version(local_version(path)), data, frozenset(allowed))
    report = Report(path if is_store_url(path) else subject.path)
    steps: list[tuple[str, Callable[[], str], tuple[str, ...]]] = [
        ("manifest", lambda: files.check_manifest(subject), ()),
        ("files", lambda: files.check_files(subject), ("manifest",)),
        ("operations", lambda: operations.check(subject), ()),
        ("load", lambda: measure.load(subject, report), ("operations",)),
        ("signatures", lambda: contract.check(subject), ("manifest", "load")),
        ("warmup", lambda: _warm_up(subject), ("load",)),
        ("reference", lambda: read_reference(subject), ("manifest",)),
        ("scores", lambda: scores.check_reference(subject), ("reference", "load")),
        ("batches", lambda: scores.check_batches(subject), ("reference", "load")),
        ("odd values", lambda: scores.check_values(subject), ("reference", "load")),
        ("examples", lambda: forms.check_examples(subject), ("reference", "load")),
        ("rank", lambda: forms.check_rank(subject), ("reference", "load")),
    ]
    if data is not None:
        steps.append(("data", lambda: prepared.check(subject), ("manifest", "load")))
    if latency:
        steps.append(("latency", lambda: _measure(subject, report), ("scores",)))
    try:
        for name, function, needs in steps:
            report.checks.append(_run(name, function, needs, report))
    finally:
        if subject.loaded:
            subject.loaded.close()
    report.peak_memory = measure.memory("VmHWM")
    return report


def _run(name: str, function: Callable[[], str], needs: tuple[str, ...], report: Report) -> Check:
    ended = {check.name: check.status for check in report.checks}
    unmet = [need for need in needs if ended[need] != "ok"]
    if unmet:
        return Check(name, "skipped", f"needs {' and '.join(unmet)}")
    try:
        return Check(name, "ok", function())
    except Exception as e:  # whatever a broken bundle leads to is a finding, and those after it are still looked for
        known = isinstance(e, (Failed, ValueError, OSError)) or type(e).__module__.startswith("tfrs_dlrm")
        return Check(name, "failed", str(e) if known else f"{type(e).__name__}: {e}")


def _warm_up(subject: Subject) -> str:
    """Replays the warmup file."""
    file = os.path.join(subject.path, WARMUP)
    if not os.path.isfile(file):
        raise Failed(f"{WARMUP} is missing: the first requests would be slow; export the model again")
    replayed = warm_up(subject.model, file)
    cold = sorted(subject.model.signatures.keys() - set(replayed))
    if cold:
        raise Failed(f"{WARMUP} has no request for {', '.join(cold)}, whose first answer would be slow")
    return f"{len(replayed)} requests, for each of {len(set(replayed))} signatures"


def _measure(subject: Subject, report: Report) -> str:
    report.latency.extend(measure.latencies(subject))
    return "one request after the other, see below"
