"""The labels of prepared rows, counted: which metrics a split can give is known before training."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from tfrs_dlrm.data.encoding.statistics import Moments
from tfrs_dlrm.schema import Label, Schema

# With fewer examples of a class, an AUC has a standard error of about 0.06 or more.
FEW = 20


@dataclasses.dataclass(frozen=True)
class LabelCounts:
    """The values of one label in one split. Rows of weight 0, which no metric sees, are not counted.

    Attributes:
      count: how many rows have the label.
      missing: how many rows lack it.
      positives: of a classification, how many labels are 1.
      mean: of a regression, the mean label; None without labels.
      std: of a regression, the standard deviation of the labels.
      min: of a regression, the smallest label.
      max: of a regression, the largest label.
    """

    count: int
    missing: int
    positives: int | None = None
    mean: float | None = None
    std: float | None = None
    min: float | None = None
    max: float | None = None

    @property
    def one_value(self) -> float | None:
        """The value of all labels; None if there are none, or if they differ."""
        if not self.count:
            return None
        if self.positives is not None:
            return {0: 0.0, self.count: 1.0}.get(self.positives)
        return self.min if self.min == self.max else None

    @property
    def mean_label(self) -> float | None:
        """The mean of the labels; None without any."""
        return self.mean if self.positives is None or not self.count else self.positives / self.count

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values, without the fields of other tasks."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}


class LabelCounter:
    """Counts the labels of rows, part by part; `plain` and `add_plain` join the counts of several processes.

    Args:
      schema: of the rows.
    """

    def __init__(self, schema: Schema) -> None:
        self._labels = dict(zip(schema.label_columns, schema.labels, strict=True))
        columns = len(self._labels)
        self._rows = 0
        self._positives = np.zeros(columns, np.int64)
        self._moments = Moments.of(np.zeros((0, columns)))
        self._least, self._most = np.full(columns, np.inf), np.full(columns, -np.inf)

    def add(self, labels: np.ndarray, weights: np.ndarray | None = None) -> None:
        """Adds rows.

        Args:
          labels: float [N, labels]; NaN is missing.
          weights: float [N], or None.
        """
        labels = labels if weights is None else labels[weights > 0]
        if not len(labels):
            return
        self._rows += len(labels)
        self._positives += (labels == 1).sum(0)
        self._moments += Moments.of(labels)
        self._least = np.fmin(self._least, np.fmin.reduce(labels, 0))
        self._most = np.fmax(self._most, np.fmax.reduce(labels, 0))

    def plain(self) -> dict[str, Any]:
        """Returns what is counted as plain values."""
        moments = [self._moments.count, self._moments.mean, self._moments.m2]
        ends = [np.where(np.isfinite(x), x, 0.0) for x in (self._least, self._most)]
        return {"rows": self._rows, "positives": self._positives, "moments": moments, "ends": ends}

    def add_plain(self, found: Mapping[str, Any]) -> None:
        """Adds what another counter of the same schema counted."""
        moments = Moments(*found["moments"])
        self._rows += found["rows"]
        self._positives += np.array(found["positives"], np.int64)
        self._moments += moments
        least, most = np.array(found["ends"], np.float64)
        some = moments.count > 0
        self._least = np.fmin(self._least, np.where(some, least, np.inf))
        self._most = np.fmax(self._most, np.where(some, most, -np.inf))

    def counts(self) -> dict[str, LabelCounts]:
        """Returns the counts of each of `schema.label_columns`."""
        return {column: self._count(i, label) for i, (column, label) in enumerate(self._labels.items())}

    def _count(self, i: int, label: Label) -> LabelCounts:
        count = int(self._moments.count[i])
        found = LabelCounts(count, self._rows - count)
        if label.task == "classification":
            return dataclasses.replace(found, positives=int(self._positives[i]))
        if not count:
            return found
        mean, std = float(self._moments.mean[i]), float(self._moments.std[i])
        least, most = float(self._least[i]), float(self._most[i])
        return dataclasses.replace(found, mean=mean, std=std, min=least, max=most)


def shares(schema: Schema, sums: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    """Returns the share of 1s of each classification label that some rows have, by column.

    If a label comes after another, that is its share among all rows: its share among the known rows with a 1 of the
    earlier label, times the share of these. Rows with a 1 of the earlier label may lack it, and others do not.

    Args:
      schema: of the rows.
      sums: by column, the number of rows with the label, and with a 1 of it; or the sums of their weights.
    """
    found: dict[str, float] = {}
    columns = schema.label_columns
    for column, label, earlier in zip(columns, schema.labels, schema.earlier_labels, strict=True):
        known, positives = sums.get(column, (0.0, 0.0))
        if label.task != "classification" or not known:
            continue
        if earlier is None:
            found[column] = min(positives / known, 1.0)
            continue
        of_earlier, positives_of_earlier = sums[columns[earlier]]
        known -= of_earlier - positives_of_earlier
        rate = min(positives / known, 1.0) if positives > 0 and known > 0 else 0.0
        found[column] = rate * found.get(columns[earlier], 0.0)
    return found


def joined(schema: Schema, parts: Iterable[Mapping[str, Any]]) -> dict[str, LabelCounts]:
    """Returns the counts of several `LabelCounter.plain` together."""
    counter = LabelCounter(schema)
    for part in parts:
        counter.add_plain(part)
    return counter.counts()


def label_notes(schema: Schema, labels: Mapping[str, Mapping[str, LabelCounts]]) -> list[str]:
    """Says what a model cannot learn from the labels of a split, or what metrics cannot say about it.

    Args:
      schema: of the rows.
      labels: by split, `train` or `eval`, and column of the label. Other keys are skipped.
    """
    rows = {"train": "training rows", "eval": "rows of the evaluation set"}
    columns, notes = schema.label_columns, list[tuple[str, str]]()
    earlier = dict(zip(columns, schema.earlier_labels, strict=True))
    for split, text in rows.items():
        counts = labels.get(split, {})
        for column, found in counts.items():
            after = earlier.get(column)
            lacking = "" if after is None else _lacking(text, found, schema.labels[after], counts[columns[after]])
            notes += [(column.replace("/", " "), note) for note in (_note(split, text, found), lacking)]
    return [f"{column}: {note}" for column, note in notes if note]


def _lacking(rows: str, found: LabelCounts, earlier: Label, of_earlier: LabelCounts) -> str:
    """Says how many rows could have a label that comes after another, and lack it."""
    possible = (of_earlier.positives or 0) + of_earlier.missing
    if not found.missing or found.missing == possible:  # of none, see `_note`
        return ""
    unknown = " or nothing" if of_earlier.missing else ""
    name = earlier.name or earlier.column
    return f"{found.missing:,} of {possible:,} {rows} with a 1{unknown} of {name} lack it; a model takes that as random"


def _note(split: str, rows: str, found: LabelCounts) -> str:
    if not found.count:
        return f"none of the {rows} has it" if found.missing else ""
    value = found.one_value
    if value is not None:
        then = "a model learns nothing from them" if split == "train" else _undefined(found)
        return f"all {found.count:,} {rows} are {value:g}; {then}"
    if found.positives is None:
        return ""
    value, few = min((1, found.positives), (0, found.count - found.positives), key=lambda pair: pair[1])
    if few >= FEW:
        return ""
    then = "a model learns little from so few" if split == "train" else "its AUC says little"
    return f"{few:,} of {found.count:,} {rows} {'is' if few == 1 else 'are'} {value}; {then}"


def _undefined(found: LabelCounts) -> str:
    if found.positives is None:
        return "its RMSE says little"
    return "it has no AUC there"
