"""Decides whether whole numbers are numbers, names of things, or names that never come again, and says why."""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np

from tfrs_dlrm.data.raw.column_names import named_for_once, said_by_name
from tfrs_dlrm.data.raw.number_evidence import LabelEvidence, ValueCounts, label_evidence
from tfrs_dlrm.data.raw.sampled_column import SampledColumn

Certainty = Literal["sure", "likely", "guess"]

# Whole numbers of at most _FEW values, each of which occurs _OFTEN times on average, lose nothing as categories.
_FEW, _OFTEN = 32, 10
# What is spread evenly without being drawn: percentages, minutes, days of a year, bytes.
_LIMITS = frozenset({59, 60, 99, 100, 255, 256, 364, 365, 366, 1439, 1440})
_CALENDAR = 366
# Names of things are hardly ever all multiples of this or more.
_ROUNDED = 5
# With fewer rows, most columns may be spread evenly.
_MANY_ROWS = 1000
# Numbers of so few values, whatever their name is, lose nothing either.
_FEW_NUMBERS = 5
# Fewer rows do not show that values are unique, or what their digits look like.
ENOUGH_ROWS = 50
# A score of at least this is as good as sure, or likely.
_SURE, _LIKELY = 4.0, 2.0


@dataclasses.dataclass(frozen=True)
class Decision:
    """What whole numbers are.

    Attributes:
      kind: what they are; `once` are ids that hardly ever come again.
      reason: why, in a few words.
      certainty: how sure this is.
    """

    kind: Literal["number", "category", "once"]
    reason: str
    certainty: Certainty


def decide(column: SampledColumn, labels: np.ndarray | None) -> Decision:
    """Decides what a column of whole numbers is.

    Args:
      column: it; `column.whole` is not None.
      labels: float64 [rows], 0 or 1, NaN where there is none; None if there are no labels.
    """
    said, present = said_by_name(column.name), len(column.values) - column.values.null_count
    if column.is_boolean:
        return Decision("category", "true or false", "sure")
    unique = column.distinct > 0.9 * present and present >= ENOUGH_ROWS
    if unique and (column.is_large or said == "id"):
        return Decision("once", "ids that hardly ever come again", "sure")
    if column.is_large:
        return Decision("category", "larger than numbers of things are", "sure")
    counted = column.value_counts()
    if unique:
        return _unique(counted, said)
    if said == "id":
        once = named_for_once(column.name) and counted.is_drawn_once() and column.distinct > 0.1 * present
        if once:
            return Decision("once", "ids that grow row by row and do not come again", "likely")
        return Decision("category", "its name is that of ids or codes", "sure")
    if said == "number" and column.distinct > _FEW_NUMBERS:
        return Decision("number", "its name is that of a number", "sure")
    if counted.is_drawn_once() and column.distinct > 0.2 * present and present >= ENOUGH_ROWS:
        return Decision("once", "they grow row by row and do not come again, as ids do", "likely")
    return _weighed(counted, None if labels is None else label_evidence(counted, labels))


def _unique(counted: ValueCounts, said: str) -> Decision:
    """Decides what whole numbers are that hardly ever come again: amounts, or ids."""
    if said == "number" and not counted.is_drawn_once():
        return Decision("number", "its name is that of a number", "likely")
    if counted.is_drawn_once() or counted.is_drawn_down():
        return Decision("once", "they grow row by row, as ids do", "sure")
    if counted.is_even():
        return Decision("once", "their digits look drawn: ids that hardly ever come again", "likely")
    return Decision("number", "some sizes are more frequent than others, as those of amounts are", "likely")


def _weighed(counted: ValueCounts, told: LabelEvidence | None) -> Decision:
    """Weighs the evidence of the values and of the label; what counts for categories is positive."""
    label, why = _of_label(told)
    if _is_few(counted):
        label = max(label, -1.5)  # as categories they lose little
    arguments = [argument for argument in (*_of_values(counted), (label, why)) if argument[0]]
    score = sum(weight for weight, _ in arguments)
    kind: Literal["number", "category"] = "category" if score > 0 else "number"
    against = sorted(arguments, key=lambda a: -a[0] if score > 0 else a[0])
    said = [reason for weight, reason in against if reason and weight * score > 0][:2]
    size = abs(score)
    certainty: Certainty = "sure" if size >= _SURE else "likely" if size >= _LIKELY else "guess"
    return Decision(kind, "; ".join(said) or "nothing speaks for ids", certainty)


def _is_few(counted: ValueCounts) -> bool:
    return len(counted.values) <= _FEW and counted.present >= _OFTEN * len(counted.values)


def _of_values(counted: ValueCounts) -> list[tuple[float, str]]:
    """Weighs what the values alone show."""
    values, distinct, present = counted.values, len(counted.values), counted.present
    few = _is_few(counted)
    arguments = [(3.5 if distinct <= 10 else 2.0, "few values") if few else (-0.5, "")]
    zeros = counted.counts[values == 0].sum() / present
    if values[0] < -1:
        arguments.append((-2.5, "some are negative"))
    if zeros > 0.4 and distinct > 8 and values[-1] > 2 * distinct:
        arguments.append((-9.0 if zeros > 0.75 else -5.0, f"{zeros:.0%} are 0, as amounts often are"))
    if few and counted.is_count():
        arguments.append((-4.0, "the larger, the rarer, as with counts"))
    if few or present < ENOUGH_ROWS:
        return arguments
    lumps = counted.lumps()
    if lumps > 0.1:
        arguments.append((min(5.0, 10 * lumps), "some values are far more frequent than the values around them"))
    elif distinct > _FEW:
        arguments.append((-1.0, "values are about as frequent as the values around them"))
    limited = values[0] in (0, 1) and values[-1] in _LIMITS
    numbered = values[0] in (0, 1) and distinct > _FEW
    step = counted.step()
    if step >= _ROUNDED and values[0] % step == 0 and distinct > _FEW:
        arguments.append((-3.0, f"all are multiples of {step}, as rounded amounts are"))
    if present >= _MANY_ROWS and not limited and counted.is_even() and (distinct > _CALENDAR or numbered):
        arguments.append((2.5 if distinct > _CALENDAR else 1.7, "all are about as frequent, as numbered things are"))
    elif values[0] >= -1 and counted.is_falling():
        arguments.append((-2.0, "small values are the most frequent, as with counts and amounts"))
    if counted.is_peaked():
        arguments.append((-2.5, "most are of middle size"))
    return arguments


def _of_label(told: LabelEvidence | None) -> tuple[float, str]:
    """Weighs what the label shows: by how much of what can be told needs the single values."""
    if told is None:
        return 0.0, ""
    by_number, by_value = max(told.constant - told.number, 0.0), max(told.number - told.category, 0.0)
    share = by_value / max(by_number + by_value, 1e-9)
    losses = f"log loss {told.category:.4f}, by their size {told.number:.4f}"
    if told.category_sure > 1.5 and share > 0.15:
        weight = min(4.0, 0.8 * told.category_sure) * min(1.0, 2 * (share - 0.15))
        return weight, f"single values tell the label better than their size ({losses})"
    if told.number_sure > 2.5 and share < 0.3:
        return -min(3.0, 0.5 * told.number_sure) * (1 - share / 0.3), "the label follows their size"
    return 0.0, ""
