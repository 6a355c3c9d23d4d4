"""From the gradients of activations to the gradients of the rows that a batch looked up, duplicates combined."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

# So many numbers of a table are dealt with at a time where a batch may look up very many rows: what lies between
# reading and writing them stays in the cache of a core.
_NUMBERS_AT_A_TIME = 1 << 19

# Takes some rows, int [k], each once, or None for all of the variable's; their gradients, float32 [k, dim]; a function
# that gives how often the batch looked each up divided by the number of examples, float32 [k]; and the number of the
# first of them, an int32 scalar. Among all rows those that were not looked up are to stay as they are.
Apply = Callable[["tf.Tensor | None", tf.Tensor, Callable[[], tf.Tensor], tf.Tensor], None]


class Use(NamedTuple):
    """What one lookup says of the gradient of a variable: row i of the n gets weights[i] * values[positions[i]].

    Attributes:
      rows: int [n].
      values: float32 [m, dim].
      positions: int32 [n]; None where row i gets values[i].
      weights: float32 [n]; None where all are 1.
    """

    rows: tf.Tensor
    values: tf.Tensor
    positions: tf.Tensor | None = None
    weights: tf.Tensor | None = None

    def split(self, boundaries: Sequence[int]) -> list[Use]:
        """For each i the part that looks up rows boundaries[i] to boundaries[i + 1], numbered from 0."""
        if len(boundaries) == 2:
            return [self]
        share = _Shares(self.rows, boundaries)
        rows, weights = share.rows(), share.of(self.weights)
        if self.positions is None:
            return [Use(*part) for part in zip(rows, share.of(self.values), share.of(None), weights, strict=True)]
        return [Use(r, self.values, p, w) for r, p, w in zip(rows, share.of(self.positions), weights, strict=True)]


class _Shares:
    """Shares out what belongs to rows int [n] by the ranges that the rows are in."""

    def __init__(self, rows: tf.Tensor, boundaries: Sequence[int]):
        self._rows, self._boundaries = rows, boundaries
        self._owner = tf.searchsorted(tf.constant(boundaries[1:], rows.dtype), rows, side="right")

    def of(self, values: Any) -> list[Any]:
        """For each range the values, [n, ...], of its rows; None for None."""
        count = len(self._boundaries) - 1
        return [None] * count if values is None else tf.dynamic_partition(values, self._owner, count)

    def rows(self) -> list[tf.Tensor]:
        """For each range its rows, numbered from 0."""
        parts = self.of(self._rows)
        return [part - begin for part, begin in zip(parts, self._boundaries, strict=False)]


class RowGradient(abc.ABC):
    """The gradient of a variable, in the rows that a batch looked up."""

    @abc.abstractmethod
    def visit(self, apply: Apply) -> None:
        """Calls `apply` with all rows, or several times with some of them."""


@dataclasses.dataclass(frozen=True)
class Combined(RowGradient):
    """All rows at once, their gradients added up.

    Attributes:
      rows: int [u], each once.
      values: float32 [u, dim].
      counts: float32 [u], how often the batch looks each up.
      batch_size: the number of examples.
    """

    rows: tf.Tensor
    values: tf.Tensor
    counts: tf.Tensor
    batch_size: tf.Tensor

    @classmethod
    def of(cls, uses: Sequence[Use], batch_size: tf.Tensor) -> Combined:
        """The gradient of the variable that `uses` look up, its rows in the order of their first occurrence."""
        rows = _concat([use.rows for use in uses])
        values = _concat([_each(use) for use in uses])
        return cls.sum(rows, values, tf.ones_like(rows, tf.float32), batch_size)

    @classmethod
    def sum(cls, rows: tf.Tensor, values: tf.Tensor, counts: tf.Tensor, batch_size: tf.Tensor) -> Combined:
        """Of rows int [n], some more than once, with values float32 [n, dim] and counts float32 [n]."""
        # A hash table: a third of the time of sorting.
        distinct, row_of = tf.unique(rows)
        values, counts = (tf.math.unsorted_segment_sum(x, row_of, tf.size(distinct)) for x in (values, counts))
        return cls(distinct, values, counts, batch_size)

    def split(self, boundaries: Sequence[int]) -> list[Combined]:
        """For each i the gradient of rows boundaries[i] to boundaries[i + 1], numbered from 0."""
        if len(boundaries) == 2:
            return [self]
        share = _Shares(self.rows, boundaries)
        parts = zip(share.rows(), share.of(self.values), share.of(self.counts), strict=True)
        return [Combined(rows, values, counts, self.batch_size) for rows, values, counts in parts]

    def visit(self, apply: Apply) -> None:
        """See `RowGradient`."""
        frequency = self.counts / tf.cast(self.batch_size, tf.float32)
        apply(self.rows, self.values, lambda: frequency, tf.zeros([], tf.int32))


@dataclasses.dataclass(frozen=True)
class Whole(RowGradient):
    """Of every row of a small variable, with zeros for those that were not looked up: for devices that compile steps.

    All shapes are static, so XLA can compile it, and replicas add theirs up by an all-reduce. What it costs depends on
    the size of the variable, and not on the batch.

    Attributes:
      values: float32 [rows, dim].
      counts: float32 [rows], how often the batch looks each up.
      batch_size: the number of examples, a float32 scalar.
    """

    values: tf.Tensor
    counts: tf.Tensor
    batch_size: tf.Tensor

    @classmethod
    def of(cls, uses: Sequence[Use], rows: int, batch_size: tf.Tensor) -> Whole:
        """The gradient of a variable that `uses` look up, of all replicas together where there are several.

        Args:
          uses: of this replica; their rows may be -1, for places where nothing is looked up.
          rows: the number of rows of the variable.
          batch_size: the examples of this replica.
        """
        ids = _concat([use.rows for use in uses])
        values = tf.math.unsorted_segment_sum(_concat([_each(use) for use in uses]), ids, rows)
        counts = tf.math.unsorted_segment_sum(tf.ones_like(ids, tf.float32), ids, rows)
        own = [values, counts, tf.cast(batch_size, tf.float32)]
        if tf.distribute.get_strategy().num_replicas_in_sync > 1:
            own = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, own)
        return cls(*own)

    def visit(self, apply: Apply) -> None:
        """See `RowGradient`."""
        frequency = self.counts / self.batch_size
        apply(None, self.values, lambda: frequency, tf.zeros([], tf.int32))


@dataclasses.dataclass(frozen=True)
class InParts(RowGradient):
    """Rows in ascending order, a part of them at a time: for multi-valued features on CPUs.

    As one tensor the gradient could be as large as all the looked-up rows together, and what is computed from it again:
    to write that to memory and read it again costs half the time of an update. Ascending rows are found faster.

    Attributes:
      rows: int [u], ascending, each once.
      starts: int32 [u + 1]: the occurrences of row i are those from starts[i] to starts[i + 1].
      row_of: int32 [n], ascending: which of `rows` each occurrence is.
      values: float32 [m, dim].
      positions: int32 [n], where the gradient of each occurrence is among `values`.
      weights: float32 [n], a factor of each occurrence; None where all are 1.
      batch_size: the number of examples.
      first_positions: int32 [u], `positions` of the first occurrences.
      repeat_positions: int32 [n - u], `positions` of all others.
      repeat_row_of: int32 [n - u], their `row_of`.
    """

    rows: tf.Tensor
    starts: tf.Tensor
    row_of: tf.Tensor
    values: tf.Tensor
    positions: tf.Tensor
    weights: tf.Tensor | None
    batch_size: tf.Tensor
    first_positions: tf.Tensor
    repeat_positions: tf.Tensor
    repeat_row_of: tf.Tensor

    @classmethod
    def of(cls, uses: Sequence[Use], batch_size: tf.Tensor, order: tf.Tensor | None = None) -> InParts:
        """The gradient of the variable that `uses` look up.

        Args:
          uses: of all features.
          batch_size: the number of examples.
          order: int32 [n], a permutation of 0 to n - 1, where the input pipeline knows what sorts the rows of all uses,
            one use after the other. Where it does not sort them, they are sorted here.
        """
        positions, offset = [], 0
        for use in uses:
            own = tf.range(tf.size(use.rows)) if use.positions is None else use.positions
            positions.append(own + offset)
            offset += tf.shape(use.values)[0]
        order, ascending = _sort(_concat([use.rows for use in uses]), order)
        is_first = tf.concat([tf.ones_like(ascending[:1], tf.bool), ascending[1:] != ascending[:-1]], axis=0)
        starts = tf.cast(tf.where(is_first)[:, 0], tf.int32)
        repeats = tf.where(~is_first)[:, 0]
        weights = None
        if any(use.weights is not None for use in uses):
            ones = [tf.ones_like(use.rows, tf.float32) if use.weights is None else use.weights for use in uses]
            weights = tf.gather(_concat(ones), order)
        row_of = tf.cumsum(tf.cast(is_first, tf.int32)) - 1
        in_order = tf.gather(_concat(positions), order)
        return cls(
            rows=tf.gather(ascending, starts),
            starts=tf.concat([starts, tf.shape(ascending)[:1]], axis=0),
            row_of=row_of,
            values=_concat([use.values for use in uses]),
            positions=in_order,
            weights=weights,
            batch_size=batch_size,
            first_positions=tf.gather(in_order, starts),
            repeat_positions=tf.gather(in_order, repeats),
            repeat_row_of=tf.gather(row_of, repeats),
        )

    def visit(self, apply: Apply) -> None:
        """See `RowGradient`."""
        count = tf.size(self.rows)
        step = max(1, _NUMBERS_AT_A_TIME // self.values.shape[1])

        def body(begin: tf.Tensor) -> list[tf.Tensor]:
            end = tf.minimum(begin + step, count)
            apply(self.rows[begin:end], self._gradients(begin, end), lambda: self._frequency(begin, end), begin)
            return [end]

        tf.while_loop(lambda begin: begin < count, body, [tf.constant(0)], parallel_iterations=1)

    def _frequency(self, begin: tf.Tensor, end: tf.Tensor) -> tf.Tensor:
        counts = self.starts[begin + 1 : end + 1] - self.starts[begin:end]
        return tf.cast(counts, tf.float32) / tf.cast(self.batch_size, tf.float32)

    def _gradients(self, begin: tf.Tensor, end: tf.Tensor) -> tf.Tensor:
        """Float32 [end - begin, dim], of the rows number `begin` to `end`."""
        first, last = self.starts[begin], self.starts[end]

        def summed() -> tf.Tensor:
            positions, row_of = self.positions[first:last], self.row_of[first:last] - begin
            if self.weights is None:
                return tf.sparse.segment_sum(self.values, positions, row_of)
            weighted = tf.gather(self.values, positions) * self.weights[first:last][:, tf.newaxis]
            return tf.math.segment_sum(weighted, row_of)

        def copied_then_repeats_added() -> tf.Tensor:
            gradients = tf.gather(self.values, self.first_positions[begin:end])
            # Before occurrence `first` there are `begin` first ones of a row, so first - begin repeated ones.
            repeats = slice(first - begin, last - end)
            repeated = tf.gather(self.values, self.repeat_positions[repeats])
            return tf.tensor_scatter_nd_add(gradients, (self.repeat_row_of[repeats] - begin)[:, tf.newaxis], repeated)

        if self.weights is not None:
            return summed()
        # Where few rows occur more than once, copying beats adding.
        few_repeats = 4 * (last - end - first + begin) < end - begin
        return tf.cond(few_repeats, copied_then_repeats_added, summed)


def _sort(rows: tf.Tensor, order: tf.Tensor | None) -> tuple[tf.Tensor, tf.Tensor]:
    """What sorts `rows`, stably, and the sorted rows."""
    if order is None:
        order = tf.argsort(rows, stable=True)
        return order, tf.gather(rows, order)

    def sorted_by_hint() -> tf.Tensor:
        ascending = tf.gather(rows, order)
        return tf.reduce_all(ascending[1:] >= ascending[:-1])

    fits = tf.cond(tf.equal(tf.size(order), tf.size(rows)), sorted_by_hint, lambda: False)
    order = tf.cond(fits, lambda: order, lambda: tf.argsort(rows, stable=True))
    return order, tf.gather(rows, order)


def _each(use: Use) -> tf.Tensor:
    """Float32 [n, dim], the gradient of each occurrence of a row."""
    each = use.values if use.positions is None else tf.gather(use.values, use.positions)
    return each if use.weights is None else each * use.weights[:, tf.newaxis]


def _concat(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
    return tensors[0] if len(tensors) == 1 else tf.concat(tensors, axis=0)
