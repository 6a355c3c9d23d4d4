"""From the ids of a batch to vectors, and from gradients of the vectors to gradients of rows.

A *bag* is what one example looks up in one feature: one row, or any number of weighted rows that a combiner makes one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from tfrs_dlrm.schema import Combiner


class Bags(NamedTuple):
    """The bags of a batch of B examples, n rows in all. The vector of an example is scale * sum(weight * row).

    Attributes:
      rows: int [n], ordered by example.
      size: B.
      examples: int [n], the example of each; None where every example has exactly one row.
      weights: float32 [n]; None where all are 1.
      scale: float32 [B]; None where all are 1.
    """

    rows: tf.Tensor
    size: tf.Tensor
    examples: tf.Tensor | None = None
    weights: tf.Tensor | None = None
    scale: tf.Tensor | None = None


class RowGradient(NamedTuple):
    """The gradient of a table, in the rows that a batch looked up.

    Attributes:
      rows: int [n], ascending, each once.
      values: float32 [n, dim].
      frequency: float32 [n], how often the batch looked each up, divided by the number of examples.
    """

    rows: tf.Tensor
    values: tf.Tensor
    frequency: tf.Tensor


def one_hot_bags(rows: tf.Tensor) -> Bags:
    """The bags of a feature with one value: rows int [B]."""
    return Bags(rows, tf.size(rows))


def multi_hot_bags(rows: tf.RaggedTensor, weights: tf.RaggedTensor | None, combiner: Combiner) -> Bags:
    """The bags of a multi-valued feature.

    Args:
      rows: int [B, None].
      weights: float32 [B, None] with the same row splits, or None.
      combiner: see `tfrs_dlrm.Table`. A bag that is empty, or whose weights add up to 0, has the vector 0.
    """
    examples = rows.value_rowids()
    values = None if weights is None else weights.flat_values
    if combiner == "sum":
        return Bags(rows.flat_values, rows.nrows(), examples, values)
    if values is None:
        total = tf.cast(rows.row_lengths(), tf.float32)
    else:
        addends = values if combiner == "mean" else values**2
        total = tf.math.unsorted_segment_sum(addends, examples, rows.nrows())
    scale = tf.math.divide_no_nan(1.0, total if combiner == "mean" else tf.sqrt(total))
    return Bags(rows.flat_values, rows.nrows(), examples, values, scale)


def pool(table: tf.Variable, bags: Bags) -> tf.Tensor:
    """The vectors of the bags: float32 [B, dim], differentiable with respect to `table`."""
    # A gather reads single rows of the variable. Any op that takes the whole table as a tensor would copy all of it:
    # variables that scatter ops write to are copied whenever they are read as a whole.
    rows = tf.gather(table, bags.rows)
    if bags.weights is not None:
        rows *= bags.weights[:, tf.newaxis]
    if bags.examples is not None:
        every = tf.range(tf.size(bags.rows))
        rows = tf.sparse.segment_sum(rows, every, bags.examples, num_segments=bags.size)
    return rows if bags.scale is None else rows * bags.scale[:, tf.newaxis]


def row_gradient(uses: Sequence[tuple[Bags, tf.Tensor]]) -> RowGradient:
    """The gradient of one table.

    Args:
      uses: for each feature that looks it up, its bags and the gradient float [B, dim] of the loss with respect to
        their vectors.
    """
    values, positions, offset = [], [], 0
    for bags, gradient in uses:
        value, position = _per_row(bags, tf.cast(gradient, tf.float32))
        values.append(value)
        positions.append(position + offset)
        offset += tf.shape(value)[0]
    rows = _concat([bags.rows for bags, _ in uses])
    return _combine(rows, _concat(values), _concat(positions), batch_size=uses[0][0].size)


def _per_row(bags: Bags, gradient: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Values [m, dim], and for each row of the bags the position int32 [n] of its gradient among them."""
    if bags.scale is not None:
        gradient *= bags.scale[:, tf.newaxis]
    if bags.weights is not None:
        gradient = tf.gather(gradient, bags.examples) * bags.weights[:, tf.newaxis]
    if bags.examples is None or bags.weights is not None:
        return gradient, tf.range(tf.shape(gradient)[0])
    return gradient, tf.cast(bags.examples, tf.int32)  # as tf.range counts


def _combine(rows: tf.Tensor, values: tf.Tensor, positions: tf.Tensor, batch_size: tf.Tensor) -> RowGradient:
    """Adds up the `values` at the `positions` of equal `rows`. Sorted rows make all that follows faster."""
    order = tf.argsort(rows, stable=True)
    ascending = tf.gather(rows, order)
    is_first = tf.concat([tf.ones_like(ascending[:1], tf.bool), ascending[1:] != ascending[:-1]], axis=0)
    segments = tf.cumsum(tf.cast(is_first, tf.int32)) - 1
    counts = tf.math.segment_sum(tf.ones_like(segments, tf.float32), segments)
    return RowGradient(
        rows=tf.boolean_mask(ascending, is_first),
        values=tf.sparse.segment_sum(values, tf.gather(positions, order), segments),
        frequency=counts / tf.cast(batch_size, tf.float32),
    )


def _concat(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
    return tensors[0] if len(tensors) == 1 else tf.concat(tensors, axis=0)
