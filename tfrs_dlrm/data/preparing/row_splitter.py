"""Splits the rows of a log into those for training, those for evaluation, and those that are left out."""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import tensorflow as tf

from tfrs_dlrm.data.encoding.tokenizer import MISSING_TEXT, Tokenizer
from tfrs_dlrm.data.preparing.block_values import distinct, with_distinct
from tfrs_dlrm.data.preparing.job import PrepareJob
from tfrs_dlrm.data.preparing.split_rule import written
from tfrs_dlrm.data.raw.parsing import BadRow, is_list
from tfrs_dlrm.data.raw.sources import RawBlock
from tfrs_dlrm.data.raw.typed_rows import TypedRows, parse

_NEGATIVES = 1  # of the draws of a row; 0 draws evaluation rows


class EmptySetError(ValueError):
    """A rule leaves no row for training or for evaluation."""


@dataclasses.dataclass(frozen=True)
class SplitRows:
    """The rows of a block, and the set of each.

    Attributes:
      rows: the usable rows.
      train: bool [N], those for training.
      eval: bool [N], those for evaluation. The other rows are left out, see `Label.keep_negatives`.
      times: int64 [N], microseconds since 1970; None if the job needs no times.
    """

    rows: TypedRows
    train: np.ndarray
    eval: np.ndarray
    times: np.ndarray | None

    def take(self, keep: np.ndarray) -> SplitRows:
        """Selects the rows where `keep`, bool [N], is true."""
        if keep.all():
            return self
        times = None if self.times is None else self.times[keep]
        return SplitRows(self.rows.take(keep), self.train[keep], self.eval[keep], times)


class RowSplitter:
    """Parses the blocks of a job, and splits their rows.

    A row's set depends on the row and on its place in its file; with a rule of times or groups, on its value alone.

    Args:
      job: the job.
    """

    def __init__(self, job: PrepareJob):
        self._job, self._log = job, job.log
        self._tokenizer = Tokenizer(self._log.schema)

    def __call__(self, file: int, block: RawBlock) -> SplitRows:
        """Splits the rows of a block of the file with this number.

        Raises:
          ValueError: see `parse`; or the column of groups holds lists.
        """
        self._check(block)
        rows, times = with_distinct(parse(block, self._log.schema)), None
        if self._log.time:
            rows, times = self._with_times(block, rows)
        in_eval = self._in_eval(file, rows, times)
        train, share = ~in_eval, self._job.schema.label.keep_negatives
        if share < 1:
            train &= (rows.label != 0) | (uniform(self._job.seed, file, rows.numbers, draw=_NEGATIVES) < share)
        return SplitRows(rows, train, in_eval, times)

    def _check(self, block: RawBlock) -> None:
        column = self._job.rule.split_by
        if column and isinstance(block.data, pa.Table) and is_list(block.data.column(column)):
            raise ValueError(f"{block.path}: split_by={column!r}: its values are lists; name a column of single values")

    def _with_times(self, block: RawBlock, rows: TypedRows) -> tuple[TypedRows, np.ndarray]:
        """Returns the rows that have a time, and the times; the others become bad rows."""
        values, indices = distinct(rows.inputs[self._log.time])
        micros, known = (x.numpy()[indices] for x in self._tokenizer.micros(self._job.rule.times, values))
        if known.all():
            return rows, micros
        numbers = rows.numbers[~known].tolist()
        column, reason = self._job.rule.time, "the time is missing"
        bad = [
            BadRow(block.path, number, column, reason, text, block.unit)
            for number, text in zip(numbers, block.texts(numbers), strict=True)
        ]
        rows = dataclasses.replace(rows, bad=sorted([*rows.bad, *bad], key=lambda b: b.row))
        return rows.take(known), micros[known]

    def _in_eval(self, file: int, rows: TypedRows, times: np.ndarray | None) -> np.ndarray:
        job = self._job
        if file >= len(job.train_files):
            return np.ones(len(rows), bool)
        if times is not None and job.rule.eval_after is not None:
            return times >= job.rule.eval_after
        if job.eval_fraction == 0:
            return np.zeros(len(rows), bool)
        drawn = uniform(job.seed, file, rows.numbers)
        if self._log.group:
            drawn = self._drawn_groups(rows, drawn)
        return drawn < job.eval_fraction

    def _drawn_groups(self, rows: TypedRows, of_rows: np.ndarray) -> np.ndarray:
        """Draws a number in [0, 1) for each group, a function of seed and value; a row without a value has its own."""
        values, indices = distinct(rows.inputs[self._log.group])
        text = self._tokenizer.text(values)
        hashes = tf.strings.to_hash_bucket_fast(text, 2**63 - 1).numpy()
        drawn = uniform(self._job.seed, 0, hashes)[indices]
        return np.where((text == MISSING_TEXT).numpy()[indices], of_rows, drawn)


def uniform(seed: int, file: int, numbers: np.ndarray, draw: int = 0) -> np.ndarray:
    """Draws one number in [0, 1) per row, a function of seed, file and row number (splitmix64), for each `draw`."""
    with np.errstate(over="ignore"):
        x = numbers.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15) * np.uint64(1 + file)
        x += np.uint64(seed % 2**64) * np.uint64(0xD1B54A32D192ED03) + np.uint64(draw) * np.uint64(0xA0761D6478BD642F)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x ^= x >> np.uint64(31)
    return (x >> np.uint64(11)) / np.float64(2**53)


Range = tuple[int, int] | None  # the first and the last time


@dataclasses.dataclass(frozen=True)
class SetCounts:
    """How many rows are for training, with the negatives that are left out, and for evaluation, and their times."""

    train: int = 0
    eval: int = 0
    train_times: Range = None
    eval_times: Range = None

    @classmethod
    def of(cls, split: SplitRows) -> SetCounts:
        """Counts the rows of a block."""
        rest = ~split.eval
        ranges = _range_of(split.times, rest), _range_of(split.times, split.eval)
        return cls(int(rest.sum()), int(split.eval.sum()), *ranges)

    @classmethod
    def joined(cls, parts: Iterable[SetCounts]) -> SetCounts:
        """Returns the counts of several parts together."""
        return functools.reduce(operator.add, parts, cls())

    @property
    def times(self) -> Range:
        """The first and the last time of all rows."""
        return _joined(self.train_times, self.eval_times)

    def __add__(self, other: SetCounts) -> SetCounts:
        ranges = _joined(self.train_times, other.train_times), _joined(self.eval_times, other.eval_times)
        return SetCounts(self.train + other.train, self.eval + other.eval, *ranges)


def _range_of(times: np.ndarray | None, keep: np.ndarray) -> Range:
    return None if times is None or not keep.any() else (int(times[keep].min()), int(times[keep].max()))


def _joined(*ranges: Range) -> Range:
    known = [r for r in ranges if r]
    return (min(r[0] for r in known), max(r[1] for r in known)) if known else None


def check_sets(job: PrepareJob, counts: SetCounts) -> None:
    """Makes sure that a rule of times or groups leaves rows in both sets.

    Raises:
      EmptySetError: a set is empty, while the log has rows.
    """
    rule = job.rule
    if bool(counts.train) == bool(counts.eval):
        return
    purpose = "evaluation" if counts.train else "training"
    if rule.eval_after is not None and counts.times:
        given, between = written(rule.eval_after), " to ".join(map(written, counts.times))
        raise EmptySetError(
            f"eval_after={given} leaves no row for {purpose}: the times in column {rule.time!r} are {between}; give a"
            " time after the first and not after the last of them"
        )
    if rule.split_by:
        raise EmptySetError(
            f"split_by={rule.split_by!r} leaves no row for {purpose}: too few values of the column were drawn with"
            f" eval_fraction={job.eval_fraction}; give another share or seed"
        )


def split_description(job: PrepareJob, counts: SetCounts) -> dict[str, Any]:
    """Says how the rows were split, for the manifest; see `PreparedManifest.split`."""
    rule, by_chance = job.rule, {"eval_fraction": job.eval_fraction, "seed": job.seed}
    if rule.eval_after is not None:
        found: dict[str, Any] = {"by": "time", "eval_after": written(rule.eval_after)}
    elif rule.split_by:
        found = {"by": "group", "column": rule.split_by, **by_chance}
    elif job.eval_files:
        found = {"by": "file"}
    else:
        found = {"by": "row", **by_chance} if job.eval_fraction else {"by": "none"}
    if rule.time:
        ranges = {"train": counts.train_times, "eval": counts.eval_times}
        found["time"] = {"column": rule.time, "format": rule.format}
        found["time"] |= {split: list(map(written, times)) for split, times in ranges.items() if times}
    return found | ({"order": "time"} if rule.keep_order else {})
