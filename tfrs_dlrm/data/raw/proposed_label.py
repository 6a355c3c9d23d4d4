"""Finds the label of a log, and proposes how it becomes a 0 or 1, for `infer_schema`."""

from __future__ import annotations

import dataclasses
import re

import numpy as np

from tfrs_dlrm.data.raw.column_notes import infinite_note, notation_note
from tfrs_dlrm.data.raw.sampled_column import SampledColumn
from tfrs_dlrm.schema import Label, Task

_LABEL_NAMES = frozenset(
    {"label", "target", "y", "click", "clicked", "clicks", "isclick", "isclicked", "converted", "conversion"}
    | {"isconversion", "isconverted", "outcome", "response"}
)
_YES = frozenset({"yes", "y", "true", "t", "positive", "click", "clicked"})

# With fewer rows of a class, a tenth of the rows for evaluation may have hardly any.
_RARE_CLASS = 100


def label_column(path: str, first_rows: dict[str, SampledColumn], given: str | None) -> str:
    """Returns the name of the label's column: the given one, or the one with a usual name and two values.

    Raises:
      ValueError: several may be the label, or none; the message names them.
    """
    if given is not None:
        return given
    two = [c.name for c in first_rows.values() if c.distinct == 2]
    named = [n for n in first_rows if re.sub(r"[^a-z]", "", n.lower()) in _LABEL_NAMES]
    found = [n for n in named if n in two or _is_zero_one(first_rows[n].numbers)]
    if len(found) == 1:
        return found[0]
    candidates = found or two or named
    what = f"it may be {', '.join(map(repr, candidates))}" if candidates else "no column holds two values"
    raise ValueError(f"{path}: it is unclear which column is the label; {what}. Give its name as label")


def _is_zero_one(numbers: np.ndarray | None) -> bool:
    return numbers is not None and len(numbers) > 0 and set(numbers) <= {0.0, 1.0}


def propose_label(path: str, column: SampledColumn, task: Task) -> tuple[Label, str]:
    """Proposes how a column becomes a label, and says why.

    Raises:
      ValueError: its values cannot be a label.
    """
    none = f"; {column.missing:.1%} of the rows have none, which makes them bad rows" if column.missing else ""
    numbers = column.numbers
    none += "" if numbers is None else infinite_note(column) + notation_note(column)
    written = dataclasses.asdict(column.notation)
    if task == "regression":
        if numbers is None or not len(numbers):
            raise ValueError(
                f"{path}: column {column.name!r} cannot be predicted as a number; it does not hold numbers"
            )
        note = f"numbers from {numbers.min():g} to {numbers.max():g}, {numbers.mean():g} in the mean{none}"
        return Label(column.name, task=task, **written), note
    if numbers is not None and _is_zero_one(numbers):
        return Label(
            column.name, **written
        ), f"0 or 1; {numbers.mean():.1%} are 1{none}{_few(int(numbers.sum()), len(numbers))}"
    if numbers is not None and column.distinct >= 2:
        values, counts = np.unique(numbers, return_counts=True)
        above = counts[::-1].cumsum()[::-1] / counts.sum()
        threshold = values[int(np.argmax(above <= 0.5)) or -1]  # above[0] is 1, so index 0 means that none was found
        share = (numbers >= threshold).mean()
        none += _few(int((numbers >= threshold).sum()), len(numbers))
        return Label(
            column.name, threshold=float(threshold), **written
        ), f"{threshold:g} or more is 1: {share:.1%}{none}"
    if column.distinct == 2:
        negative, positive = column.counts  # the rarer one is the second
        if str(negative).lower() in _YES and str(positive).lower() not in _YES:
            negative, positive = positive, negative
        share = column.counts[positive] / sum(column.counts.values())
        none += _few(column.counts[positive], sum(column.counts.values()))
        label = Label(column.name, positive=(str(positive),), negative=(str(negative),))
        return label, f"{positive!r} is 1, {negative!r} is 0; {share:.1%} are 1{none}"
    shown = ", ".join(repr(v) for v in list(column.counts)[:5]) if column.distinct else str(column.values.type)
    raise ValueError(
        f"{path}: column {column.name!r} cannot be the label; two values or numbers are needed, it holds: {shown}"
    )


def _few(positives: int, rows: int) -> str:
    """Warns of a label of one class, or of a class so small that an evaluation set may lack it."""
    value, count = min((1, positives), (0, rows - positives), key=lambda pair: pair[1])
    if not count:
        return f"; no row is {value}: a model needs both classes"
    if count >= _RARE_CLASS or count >= 0.1 * rows:
        return ""
    return f"; only {count:,} of {rows:,} rows {'is' if count == 1 else 'are'} {value}: an evaluation set needs many"
