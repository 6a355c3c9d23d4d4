"""Finds the label of a log, and proposes how it becomes a 0 or 1, for `infer_schema`."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pyarrow as pa

from tfrs_dlrm.data.raw.column_names import words
from tfrs_dlrm.data.raw.column_notes import infinite_note, notation_note
from tfrs_dlrm.data.raw.notations import plain_numbers
from tfrs_dlrm.data.raw.number_or_category import Certainty
from tfrs_dlrm.data.raw.sampled_column import SampledColumn
from tfrs_dlrm.data.raw.values import as_number
from tfrs_dlrm.schema import Label, Task

_LABEL_NAMES = frozenset(
    words(
        "label labels target y click clicked clicks action converted conversion conversions rating outcome response"
        " purchase purchased bought install installed subscribed attributed churn churned fraud"
    )
)
_YES = frozenset({"yes", "y", "true", "t", "positive", "click", "clicked"})
_NO = frozenset({"no", "n", "false", "f", "negative", "none", "noclick"})

# With fewer rows of a class, a tenth of the rows for evaluation may have hardly any.
_RARE_CLASS = 100


def label_column(path: str, first_rows: dict[str, SampledColumn], given: str | None) -> tuple[str, str]:
    """Returns the name of the label's column, and why it is that one; a given name needs no reason.

    It is the only column of 0 and 1. If there are several, or none, the one with the usual name of a label is taken.

    Raises:
      ValueError: several may be the label, or none; the message names them.
    """
    if given is not None:
        return given, ""
    flags = [c.name for c in first_rows.values() if c.distinct == 2 and _is_flag(c)]
    named = [n for n in first_rows if _label_name(n) in _LABEL_NAMES]
    two = [c.name for c in first_rows.values() if c.distinct == 2]
    usual = [n for n in named if n in two or _is_zero_one(first_rows[n].numbers)]
    if len(usual) == 1:
        return usual[0], "" if usual == flags else "the usual name of a label"
    if not usual and len(flags) == 1:
        return flags[0], "the only column of 0 and 1" if first_rows[flags[0]].numbers is not None else "yes or no"
    graded = [n for n in named if (numbers := first_rows[n].numbers) is not None and len(numbers)]
    if not usual and not two and len(graded) == 1:
        return graded[0], "the usual name of a label"
    candidates = usual or two or named
    what = f"it may be {', '.join(map(repr, candidates))}" if candidates else "no column holds two values"
    raise ValueError(f"{path}: it is unclear which column is the label; {what}. Give its name as label")


def _label_name(column: str) -> str:
    """Returns the letters of a name in lower case, without `is` before them."""
    letters = re.sub(r"[^a-z]", "", column.lower())
    return letters if letters in _LABEL_NAMES else letters.removeprefix("is").removeprefix("has")


def _is_flag(column: SampledColumn) -> bool:
    """Whether values are 0 and 1, or words for them."""
    texts = {str(value).lower() for value in column.counts}
    return _is_zero_one(column.numbers) or (len(texts) == 2 and len(texts & _YES) == 1 and bool(texts & _NO))


def _is_zero_one(numbers: np.ndarray | None) -> bool:
    return numbers is not None and len(numbers) > 0 and set(np.unique(numbers).tolist()) <= {0.0, 1.0}


def labels_of(column: SampledColumn, label: Label) -> np.ndarray:
    """Returns the label of each row as float64: 0 or 1, NaN where there is none.

    A number to predict is 1 if it is larger than the median.
    """
    encoded = column.values.dictionary_encode()
    values = encoded.dictionary.to_pylist()
    if label.positive:
        read = [
            float(str(v) in label.positive) if str(v) in (*label.positive, *label.negative) else None for v in values
        ]
    else:
        texts = [str(v).lower() for v in values]
        plain = texts if not column.is_text else plain_numbers(pa.array(texts, pa.string()), label.notation).to_pylist()
        read = [as_number(text) for text in plain]
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    numbers = np.append(np.array([np.nan if v is None else v for v in read], np.float64), np.nan)[codes]
    known = np.isfinite(numbers)
    if label.task == "regression":
        numbers = (numbers > np.median(numbers[known])).astype(np.float64) if known.any() else numbers
    elif label.threshold is not None:
        numbers = (numbers >= label.threshold).astype(np.float64)
    return np.where(known, numbers, np.nan)


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
        note = f"{threshold:g} or more is 1: {share:.1%}{_other_thresholds(values, above, float(threshold))}{none}"
        return Label(column.name, threshold=float(threshold), **written), note
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


def label_certainty(label: Label, given: bool, reason: str) -> Certainty:
    """Says how sure a label is: a threshold is a question, a column that nobody named is likely."""
    if label.threshold is not None:
        return "guess"
    return "likely" if reason and not given else "sure"


def _other_thresholds(values: np.ndarray, above: np.ndarray, threshold: float) -> str:
    """Asks whether a threshold is meant, with the shares of its neighbours; empty if there are two values.

    Args:
      values: the distinct numbers, ascending.
      above: the share of rows with at least this number.
      threshold: the proposed one of `values`.
    """
    if len(values) < 3:
        return ""
    at = int(np.searchsorted(values, threshold))
    others = [f"{values[i]:g} or more: {above[i]:.1%}" for i in (at - 1, at + 1) if 0 < i < len(values)]
    return f"; is this what you want? {', '.join(others)}; for the number itself say task='regression'"


def _few(positives: int, rows: int) -> str:
    """Warns of a label of one class, or of a class so small that an evaluation set may lack it."""
    value, count = min((1, positives), (0, rows - positives), key=lambda pair: pair[1])
    if not count:
        return f"; no row is {value}: a model needs both classes"
    if count >= _RARE_CLASS or count >= 0.1 * rows:
        return ""
    return f"; only {count:,} of {rows:,} rows {'is' if count == 1 else 'are'} {value}: an evaluation set needs many"
