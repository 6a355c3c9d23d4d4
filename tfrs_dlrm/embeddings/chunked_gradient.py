"""The gradient of a table that multi-valued features look up on CPUs: a chunk of rows at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import tensorflow as tf

from tfrs_dlrm.embeddings.gradients import Apply, LookupGradient, RowGradient, concat

# Numbers of a table per chunk: rows stay in the cache of a core between reading and writing them.
_NUMBERS_PER_CHUNK = 1 << 19


@dataclasses.dataclass(frozen=True)
class ChunkedGradient(RowGradient):
    """Rows in ascending order, a chunk at a time.

    One tensor of the gradient can be as large as all looked-up rows together, and so can each intermediate result:
    writing them to memory and reading them again costs half the time of an update. Ascending rows are found faster.

    Attributes:
      rows: int [u], ascending, each once.
      starts: int32 [u + 1]: row i has the occurrences starts[i] to starts[i + 1].
      row_of: int32 [n], ascending: which of `rows` each occurrence is.
      values: float32 [m, dim].
      positions: int32 [n], the index of each occurrence's gradient in `values`.
      weights: float32 [n], a factor per occurrence; None if all are 1.
      batch_size: the number of examples.
      first_positions: int32 [u], `positions` of the first occurrences.
      repeat_positions: int32 [n - u], `positions` of the repeated occurrences.
      repeat_row_of: int32 [n - u], `row_of` of the repeated occurrences.
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
    def of(
        cls, lookups: Sequence[LookupGradient], batch_size: tf.Tensor, order: tf.Tensor | None = None
    ) -> ChunkedGradient:
        """Sorts the rows of all lookups in a variable.

        Args:
          lookups: of all features.
          batch_size: the number of examples.
          order: int32 [n], a permutation from the input pipeline that sorts the rows of all lookups, one lookup after
            the other. If it does not sort them, they are sorted here.
        """
        positions, offset = [], 0
        for lookup in lookups:
            in_lookup = tf.range(tf.size(lookup.rows)) if lookup.positions is None else lookup.positions
            positions.append(in_lookup + offset)
            offset += tf.shape(lookup.values)[0]
        order, ascending = _sort(concat([lookup.rows for lookup in lookups]), order)
        is_first = tf.concat([tf.ones_like(ascending[:1], tf.bool), ascending[1:] != ascending[:-1]], axis=0)
        starts = tf.cast(tf.where(is_first)[:, 0], tf.int32)
        repeats = tf.where(~is_first)[:, 0]
        weights = None
        if any(lookup.weights is not None for lookup in lookups):
            ones = [
                tf.ones_like(lookup.rows, tf.float32) if lookup.weights is None else lookup.weights
                for lookup in lookups
            ]
            weights = tf.gather(concat(ones), order)
        row_of = tf.cumsum(tf.cast(is_first, tf.int32)) - 1
        in_order = tf.gather(concat(positions), order)
        return cls(
            rows=tf.gather(ascending, starts),
            starts=tf.concat([starts, tf.shape(ascending)[:1]], axis=0),
            row_of=row_of,
            values=concat([lookup.values for lookup in lookups]),
            positions=in_order,
            weights=weights,
            batch_size=batch_size,
            first_positions=tf.gather(in_order, starts),
            repeat_positions=tf.gather(in_order, repeats),
            repeat_row_of=tf.gather(row_of, repeats),
        )

    def visit(self, apply: Apply) -> None:
        """See `RowGradient.visit`."""
        count = tf.size(self.rows)
        step = max(1, _NUMBERS_PER_CHUNK // self.values.shape[1])

        def body(begin: tf.Tensor) -> list[tf.Tensor]:
            end = tf.minimum(begin + step, count)
            apply(self.rows[begin:end], self._gradients(begin, end), lambda: self._frequency(begin, end), begin)
            return [end]

        tf.while_loop(lambda begin: begin < count, body, [tf.constant(0)], parallel_iterations=1)

    def _frequency(self, begin: tf.Tensor, end: tf.Tensor) -> tf.Tensor:
        counts = self.starts[begin + 1 : end + 1] - self.starts[begin:end]
        return tf.cast(counts, tf.float32) / tf.cast(self.batch_size, tf.float32)

    def _gradients(self, begin: tf.Tensor, end: tf.Tensor) -> tf.Tensor:
        """Returns float32 [end - begin, dim], the gradients of rows number `begin` to `end`."""
        first, last = self.starts[begin], self.starts[end]

        def summed() -> tf.Tensor:
            positions, row_of = self.positions[first:last], self.row_of[first:last] - begin
            if self.weights is None:
                return tf.sparse.segment_sum(self.values, positions, row_of)
            weighted = tf.gather(self.values, positions) * self.weights[first:last][:, tf.newaxis]
            return tf.math.segment_sum(weighted, row_of)

        def copied_then_repeats_added() -> tf.Tensor:
            gradients = tf.gather(self.values, self.first_positions[begin:end])
            # Before occurrence `first` are `begin` first occurrences of a row, so first - begin repeated ones.
            repeats = slice(first - begin, last - end)
            repeated = tf.gather(self.values, self.repeat_positions[repeats])
            return tf.tensor_scatter_nd_add(gradients, (self.repeat_row_of[repeats] - begin)[:, tf.newaxis], repeated)

        if self.weights is not None:
            return summed()
        # If few rows occur more than once, copying is faster than adding.
        few_repeats = 4 * (last - end - first + begin) < end - begin
        return tf.cond(few_repeats, copied_then_repeats_added, summed)


def _sort(rows: tf.Tensor, order: tf.Tensor | None) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the permutation that sorts `rows` stably, and the sorted rows."""
    if order is None:
        order = tf.argsort(rows, stable=True)
        return order, tf.gather(rows, order)

    def sorted_by_hint() -> tf.Tensor:
        ascending = tf.gather(rows, order)
        return tf.reduce_all(ascending[1:] >= ascending[:-1])

    fits = tf.cond(tf.equal(tf.size(order), tf.size(rows)), sorted_by_hint, lambda: False)
    order = tf.cond(fits, lambda: order, lambda: tf.argsort(rows, stable=True))
    return order, tf.gather(rows, order)
