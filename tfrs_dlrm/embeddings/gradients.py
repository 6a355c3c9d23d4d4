"""Gradients of table rows, from the gradients of the activations that a batch looked up; duplicates are combined."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

# Updates some rows. Arguments: the rows, int [k], each once, or None for all rows of the variable; their gradients,
# float32 [k, dim]; a function that returns lookups per example of each row, float32 [k]; and the index of the first row
# in the gradient, an int32 scalar. Given None, it must leave rows without lookups unchanged.
Apply = Callable[["tf.Tensor | None", tf.Tensor, Callable[[], tf.Tensor], tf.Tensor], None]


class LookupGradient(NamedTuple):
    """The gradient of a variable from one lookup of n rows: row i gets weights[i] * values[positions[i]].

    Attributes:
      rows: int [n].
      values: float32 [m, dim].
      positions: int32 [n]; None if row i gets values[i].
      weights: float32 [n]; None if all are 1.
    """

    rows: tf.Tensor
    values: tf.Tensor
    positions: tf.Tensor | None = None
    weights: tf.Tensor | None = None

    def split(self, boundaries: Sequence[int]) -> list[LookupGradient]:
        """Returns for each i the part with rows boundaries[i] to boundaries[i + 1], numbered from 0."""
        if len(boundaries) == 2:
            return [self]
        share = _RowRanges(self.rows, boundaries)
        rows, weights = share.rows(), share.of(self.weights)
        if self.positions is None:
            return [
                LookupGradient(*part) for part in zip(rows, share.of(self.values), share.of(None), weights, strict=True)
            ]
        return [
            LookupGradient(r, self.values, p, w)
            for r, p, w in zip(rows, share.of(self.positions), weights, strict=True)
        ]


class _RowRanges:
    """Splits what belongs to rows int [n] by the ranges of the rows."""

    def __init__(self, rows: tf.Tensor, boundaries: Sequence[int]):
        self._rows, self._boundaries = rows, boundaries
        self._owner = tf.searchsorted(tf.constant(boundaries[1:], rows.dtype), rows, side="right")

    def of(self, values: Any) -> list[Any]:
        """Returns for each range the values, [n, ...], of its rows; None for None."""
        count = len(self._boundaries) - 1
        return [None] * count if values is None else tf.dynamic_partition(values, self._owner, count)

    def rows(self) -> list[tf.Tensor]:
        """Returns for each range its rows, numbered from 0."""
        parts = self.of(self._rows)
        return [part - begin for part, begin in zip(parts, self._boundaries, strict=False)]


class RowGradient(abc.ABC):
    """The gradient of a variable in the rows that a batch looked up."""

    @abc.abstractmethod
    def visit(self, apply: Apply) -> None:
        """Calls `apply` once with all rows, or once per chunk of rows."""


@dataclasses.dataclass(frozen=True)
class CombinedGradient(RowGradient):
    """All rows at once, the gradients of each added up.

    Attributes:
      rows: int [u], each once.
      values: float32 [u, dim].
      counts: float32 [u], how often the batch looks up each.
      batch_size: the number of examples.
    """

    rows: tf.Tensor
    values: tf.Tensor
    counts: tf.Tensor
    batch_size: tf.Tensor

    @classmethod
    def of(cls, lookups: Sequence[LookupGradient], batch_size: tf.Tensor) -> CombinedGradient:
        """Combines the gradients of all lookups in a variable; rows stay in the order of their first occurrence."""
        rows = concat([lookup.rows for lookup in lookups])
        values = concat([row_gradients(lookup) for lookup in lookups])
        return cls.sum(rows, values, tf.ones_like(rows, tf.float32), batch_size)

    @classmethod
    def sum(cls, rows: tf.Tensor, values: tf.Tensor, counts: tf.Tensor, batch_size: tf.Tensor) -> CombinedGradient:
        """Combines rows int [n], some more than once, with values float32 [n, dim] and counts float32 [n]."""
        # `tf.unique` is a hash table: a third of the time of sorting.
        distinct, row_of = tf.unique(rows)
        values, counts = (tf.math.unsorted_segment_sum(x, row_of, tf.size(distinct)) for x in (values, counts))
        return cls(distinct, values, counts, batch_size)

    def split(self, boundaries: Sequence[int]) -> list[CombinedGradient]:
        """Returns for each i the gradient of rows boundaries[i] to boundaries[i + 1], numbered from 0."""
        if len(boundaries) == 2:
            return [self]
        share = _RowRanges(self.rows, boundaries)
        parts = zip(share.rows(), share.of(self.values), share.of(self.counts), strict=True)
        return [CombinedGradient(rows, values, counts, self.batch_size) for rows, values, counts in parts]

    def visit(self, apply: Apply) -> None:
        """See `RowGradient.visit`."""
        frequency = self.counts / tf.cast(self.batch_size, tf.float32)
        apply(self.rows, self.values, lambda: frequency, tf.zeros([], tf.int32))


@dataclasses.dataclass(frozen=True)
class DenseGradient(RowGradient):
    """A gradient for every row of a small variable, zero for rows without lookups: for devices that compile steps.

    All shapes are static, so XLA can compile it, and an all-reduce sums it over the replicas. The cost depends on the
    size of the variable, not on the batch.

    Attributes:
      values: float32 [rows, dim].
      counts: float32 [rows], how often the batch looks up each.
      batch_size: the number of examples, a float32 scalar.
    """

    values: tf.Tensor
    counts: tf.Tensor
    batch_size: tf.Tensor

    @classmethod
    def of(cls, lookups: Sequence[LookupGradient], rows: int, batch_size: tf.Tensor) -> DenseGradient:
        """Combines the gradients of all lookups in a variable, over all replicas.

        Args:
          lookups: of this replica; rows of -1 are padding.
          rows: the number of rows of the variable.
          batch_size: the examples of this replica.
        """
        ids = concat([lookup.rows for lookup in lookups])
        values = tf.math.unsorted_segment_sum(concat([row_gradients(lookup) for lookup in lookups]), ids, rows)
        counts = tf.math.unsorted_segment_sum(tf.ones_like(ids, tf.float32), ids, rows)
        totals = [values, counts, tf.cast(batch_size, tf.float32)]
        if tf.distribute.get_strategy().num_replicas_in_sync > 1:
            totals = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, totals)
        return cls(*totals)

    def visit(self, apply: Apply) -> None:
        """See `RowGradient.visit`."""
        frequency = self.counts / self.batch_size
        apply(None, self.values, lambda: frequency, tf.zeros([], tf.int32))


def row_gradients(lookup: LookupGradient) -> tf.Tensor:
    """Returns float32 [n, dim], the gradient of each occurrence of a row."""
    each = lookup.values if lookup.positions is None else tf.gather(lookup.values, lookup.positions)
    return each if lookup.weights is None else each * lookup.weights[:, tf.newaxis]


def concat(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
    """Concatenates along the first axis, without an op for a single tensor."""
    return tensors[0] if len(tensors) == 1 else tf.concat(tensors, axis=0)
