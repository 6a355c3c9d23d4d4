"""What differs between a log and an earlier one, by more than chance."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from tfrs_dlrm.data.preparing.profiling.column_profile import ColumnProfile, LabelProfile, Profile
from tfrs_dlrm.tools.profile.finding import Finding
from tfrs_dlrm.tools.profile.stability import Stability, stability

MOVED_LABEL, MOVED_MISSING, MORE_NEW = 0.1, 0.02, 0.05
_SIGMAS = 4.0


def differences(now: Profile, before: Profile, new: Mapping[str, float]) -> Iterator[Finding]:
    """Yields what has moved from one log to another.

    Args:
      now: of the log.
      before: of the earlier log.
      new: by feature with a vocabulary, the share of its values in the log that the earlier vocabulary lacks.
    """
    earlier = {label.column: label for label in before.labels}
    for label in now.labels:
        if label.column in earlier and earlier[label.column].task == label.task:
            yield from _label(label, earlier[label.column])
    for column in now.columns:
        old = before.column(column.name)
        if old is None or column.kind == "cross":
            continue
        yield from _missing(column, old, now.sampled, before.sampled)
        if column.name in new:
            yield from _new_values(column, old, new[column.name], (now.sampled, before.sampled))
        moved = stability(column, old)
        if moved is not None and moved.index > moved.limit:
            yield Finding(
                "distribution",
                column.name,
                moved.index,
                moved.limit,
                f"the population stability index is {moved.index:.3f}: {described(column, old, moved, 'before')}",
                "see what changed in the log or in the traffic; earlier models may need training on these rows",
            )


def skew(now: Profile, served: Profile) -> Iterator[Finding]:
    """Yields where what a server is asked differs from what a model was trained on.

    Args:
      now: of the training rows.
      served: of the request log.
    """
    advice = "compare how the feature is computed for the log and for requests"
    for asked in served.columns:
        column = now.column(asked.name)
        if column is None or column.kind == "cross":
            continue
        rows = served.sampled, now.sampled
        limit = max(MOVED_MISSING, _SIGMAS * deviation(asked.missing, column.missing, rows))
        if abs(asked.missing - column.missing) > limit:
            text = f"{asked.missing:.2%} of the requests lack it, and {column.missing:.2%} of the training rows"
            yield Finding("skew", asked.name, abs(asked.missing - column.missing), limit, text, advice)
        unknown, expected = asked.out_of_vocabulary or 0.0, column.expected_new or 0.0
        limit = expected + max(MORE_NEW, _SIGMAS * deviation(unknown, expected, rows))
        if unknown > limit:
            text = f"{unknown:.1%} of its values in requests have no row, and {expected:.1%} were expected"
            yield Finding("skew", asked.name, unknown, limit, text, advice)
        moved = stability(asked, column)
        if moved is not None and moved.index > moved.limit:
            how = described(asked, column, moved, "in training")
            text = f"the population stability index of requests is {moved.index:.3f}: {how}"
            yield Finding("skew", asked.name, moved.index, moved.limit, text, advice)


def described(now: ColumnProfile, before: ColumnProfile, moved: Stability, other: str) -> str:
    """Says how a distribution differs from that of another log, which is called `other`."""
    if now.is_number:
        return f"the median is {now.quantiles['0.5']:g} ({other}: {before.quantiles['0.5']:g})"
    shares = [dict(zip(c.top.values, c.top.rows, strict=True)) for c in (before, now)]
    old, new = moved.rows[1], moved.rows[0]
    by = {v: (shares[0].get(v, 0) / old, shares[1].get(v, 0) / new) for v in {**shares[0], **shares[1]}}
    if not by:
        return "no value has a row of its own"
    most = max(by, key=lambda v: abs(by[v][0] - by[v][1]))
    return f"{most!r} is {by[most][1]:.1%} of the values ({other}: {by[most][0]:.1%})"


def deviation(share: float, other: float, rows: tuple[int, int]) -> float:
    """Returns the standard error of the difference of two shares that are equal in truth."""
    n, m = (max(1, x) for x in rows)
    pooled = (share * n + other * m) / (n + m)
    return math.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m))


def _label(now: LabelProfile, before: LabelProfile) -> Iterator[Finding]:
    error = math.sqrt(now.std**2 / now.rows + before.std**2 / before.rows)
    unit = before.mean if now.task == "classification" else before.std
    limit = max(MOVED_LABEL * abs(unit), _SIGMAS * error)
    if abs(now.mean - before.mean) <= limit:
        return
    form = ".2%" if now.task == "classification" else ".4g"
    word = "label rate" if now.task == "classification" else "mean label"
    yield Finding(
        "label",
        now.column,
        abs(now.mean - before.mean),
        limit,
        f"the {word} was {before.mean:{form}} and is {now.mean:{form}}",
        "see whether labels are complete and counted as before; if they are, watch the calibration of earlier models",
    )


def _missing(now: ColumnProfile, before: ColumnProfile, rows: int, rows_before: int) -> Iterator[Finding]:
    limit = max(MOVED_MISSING, _SIGMAS * deviation(now.missing, before.missing, (rows, rows_before)))
    moved = abs(now.missing - before.missing)
    if moved > limit:
        text = f"{before.missing:.2%} of the rows lacked it, and {now.missing:.2%} do now"
        yield Finding(
            "missing", now.name, moved, limit, text, "mend what writes the column, or find out why it changed"
        )


def _new_values(now: ColumnProfile, before: ColumnProfile, share: float, rows: tuple[int, int]) -> Iterator[Finding]:
    """Compares the share of new values with that of the day before; on a first day, with what its counts predict."""
    expected = before.since[-1] + (before.out_of_vocabulary or 0) if before.since else before.expected_new or 0.0
    limit = expected + max(MORE_NEW, _SIGMAS * deviation(share, expected, rows))
    if share > limit:
        text = f"{share:.1%} of the values are new, and {expected:.1%} were expected"
        advice = "see where they come from; if they are right, train on these rows before serving them"
        yield Finding("new values", now.name, share, limit, text, advice)
