"""From the gradients of activations to the gradients of the rows that a batch looked up."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf


class Use(NamedTuple):
    """What one lookup says of the gradient of a variable: row i of the n gets weights[i] * values[positions[i]].

    Attributes:
      rows: int [n].
      values: float32 [m, dim].
      positions: int32 [n].
      weights: float32 [n]; None where all are 1.
    """

    rows: tf.Tensor
    values: tf.Tensor
    positions: tf.Tensor
    weights: tf.Tensor | None = None


@dataclasses.dataclass(frozen=True)
class RowGradient:
    """The gradient of a variable, in the u rows that a batch looked up, duplicates combined.

    It is worked out a part at a time: as one tensor it could be as large as all the looked-up rows together, which
    costs the memory of it twice and half the speed.

    Attributes:
      rows: int [u], ascending, each once.
      starts: int32 [u + 1]: the occurrences of row i are those from starts[i] to starts[i + 1].
      row_of: int32 [n], ascending: to which of `rows` each occurrence belongs.
      values: float32 [m, dim].
      positions: int32 [n], where the gradient of each occurrence is among `values`.
      weights: float32 [n], a factor of each occurrence; None where all are 1.
      batch_size: the number of examples.
      in_parts: whether the rows can be very many, so that they are better dealt with a part at a time.
      first_positions: int32 [u], those of the first occurrences.
      repeat_positions: int32 [n - u], those of all others.
      repeat_row_of: int32 [n - u], their `row_of`.
    """

    rows: tf.Tensor
    starts: tf.Tensor
    row_of: tf.Tensor
    values: tf.Tensor
    positions: tf.Tensor
    weights: tf.Tensor | None
    batch_size: tf.Tensor
    in_parts: bool
    first_positions: tf.Tensor
    repeat_positions: tf.Tensor
    repeat_row_of: tf.Tensor

    def part(self, begin: tf.Tensor, end: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Rows number `begin` to `end`: which they are, int [k], and their gradients, float32 [k, dim]."""
        first, last = self.starts[begin], self.starts[end]
        rows = self.rows[begin:end]
        if self.weights is not None:
            return rows, self._sum(slice(first, last), begin)
        # Before occurrence `first` there are `begin` first occurrences of a row, so first - begin repeated ones.
        repeats = slice(first - begin, last - end)

        def copied_then_repeats_added() -> tf.Tensor:
            gradients = tf.gather(self.values, self.first_positions[begin:end])
            rows_of_repeats = (self.repeat_row_of[repeats] - begin)[:, tf.newaxis]
            repeated = tf.gather(self.values, self.repeat_positions[repeats])
            return tf.tensor_scatter_nd_add(gradients, rows_of_repeats, repeated)

        # Where few rows occur more than once, copying beats adding.
        few_repeats = 4 * (last - end - first + begin) < end - begin
        return rows, tf.cond(few_repeats, copied_then_repeats_added, lambda: self._sum(slice(first, last), begin))

    def whole(self) -> tuple[tf.Tensor, tf.Tensor]:
        """All of them."""
        return self.rows, self._sum(slice(None), 0)

    def frequency(self, begin: tf.Tensor, end: tf.Tensor) -> tf.Tensor:
        """Float32 [k]: how often the batch looked each up, divided by the number of examples."""
        counts = self.starts[begin + 1 : end + 1] - self.starts[begin:end]
        return tf.cast(counts, tf.float32) / tf.cast(self.batch_size, tf.float32)

    def _sum(self, occurrences: slice, first_row: tf.Tensor | int) -> tf.Tensor:
        positions, row_of = self.positions[occurrences], self.row_of[occurrences] - first_row
        if self.weights is None:
            return tf.sparse.segment_sum(self.values, positions, row_of)
        return tf.math.segment_sum(tf.gather(self.values, positions) * self.weights[occurrences][:, tf.newaxis], row_of)


def row_gradient(
    uses: Sequence[Use], batch_size: tf.Tensor, order: tf.Tensor | None = None, in_parts: bool = False
) -> RowGradient:
    """The gradient of one variable.

    Args:
      uses: of all features that look it up.
      batch_size: the number of examples.
      order: int32 [n], where the input pipeline knows what sorts the rows of all uses, one use after the other. It is
        not trusted: where it does not sort them, they are sorted here.
      in_parts: see `RowGradient`.
    """
    values, positions, offset = [], [], 0
    for use in uses:
        values.append(use.values)
        positions.append(use.positions + offset)
        offset += tf.shape(use.values)[0]
    rows = _concat([use.rows for use in uses])
    order, ascending = _sort(rows, order)
    is_first = tf.concat([tf.ones_like(ascending[:1], tf.bool), ascending[1:] != ascending[:-1]], axis=0)
    starts = tf.cast(tf.where(is_first)[:, 0], tf.int32)
    weights = None
    if any(use.weights is not None for use in uses):
        ones = [tf.ones_like(use.rows, tf.float32) if use.weights is None else use.weights for use in uses]
        weights = tf.gather(_concat(ones), order)
    row_of = tf.cumsum(tf.cast(is_first, tf.int32)) - 1
    in_order = tf.gather(_concat(positions), order)
    repeats = tf.where(~is_first)[:, 0]
    return RowGradient(
        rows=tf.gather(ascending, starts),
        starts=tf.concat([starts, tf.shape(ascending)[:1]], axis=0),
        row_of=row_of,
        values=_concat(values),
        positions=in_order,
        weights=weights,
        batch_size=batch_size,
        in_parts=in_parts,
        first_positions=tf.gather(in_order, starts),
        repeat_positions=tf.gather(in_order, repeats),
        repeat_row_of=tf.gather(row_of, repeats),
    )


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


def _concat(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
    return tensors[0] if len(tensors) == 1 else tf.concat(tensors, axis=0)
