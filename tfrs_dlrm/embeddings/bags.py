"""Bags: what an example looks up in a feature, one row or any number of weighted rows that a combiner pools."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from tfrs_dlrm.schema import Combiner


class Bags(NamedTuple):
    """The bags of a batch, n rows in all. The vector of a bag is scale * sum(weight * row).

    Attributes:
      rows: int [n], ordered by bag.
      size: the number of bags: B, or B * length for sequences, whose positions are bags of one row or none.
      bag_of_row: int32 [n], ascending, the bag of each row; None if every bag has exactly `hotness` rows.
      hotness: rows per bag if all bags have equally many, a tensor if their number may vary by batch; else None.
      weights: float32 [n]; None if all are 1.
      scale: float32 [size]; None if all are 1.
      length: the length of sequences; None if bags are pooled.
      splits: int64 [size + 1], bag i has rows splits[i] to splits[i + 1]; None unless rows came ragged and are pooled.
    """

    rows: tf.Tensor
    size: tf.Tensor
    bag_of_row: tf.Tensor | None = None
    hotness: int | tf.Tensor | None = 1
    weights: tf.Tensor | None = None
    scale: tf.Tensor | None = None
    length: int | None = None
    splits: tf.Tensor | None = None

    @property
    def one_row_each(self) -> bool:
        """Whether bag i has row i only."""
        return self.bag_of_row is None and isinstance(self.hotness, int) and self.hotness == 1

    def positions(self) -> tf.Tensor:
        """Returns the bag of each row, int32 [n]."""
        if self.bag_of_row is not None:
            return self.bag_of_row
        every = tf.range(tf.size(self.rows))
        return every if self.one_row_each else every // self.hotness


def one_hot_bags(rows: tf.Tensor) -> Bags:
    """Returns the bags of a single-valued feature: rows int [B]."""
    return Bags(rows, tf.size(rows))


def multi_hot_bags(
    rows: tf.Tensor | tf.RaggedTensor,
    weights: tf.Tensor | tf.RaggedTensor | None,
    combiner: Combiner,
    length: int | None = None,
) -> Bags:
    """Returns the bags of a multi-valued feature.

    Args:
      rows: int [B, None] ragged; or, unless they make sequences, int [B, L] dense, with L rows in every bag and no
        padding.
      weights: float32 of the same form, or None.
      combiner: see `tfrs_dlrm.Table`. An empty bag has the vector 0; under `mean`, so has a bag whose weights add up to
        0.
      length: makes sequences of the first `length` rows, without pooling.
    """
    if length is not None:
        return _sequences(rows, weights, length)
    if isinstance(rows, tf.Tensor):
        size, hotness = tf.shape(rows)[0], tf.shape(rows)[1] if rows.shape[1] is None else rows.shape[1]
        bags = Bags(tf.reshape(rows, [-1]), size, None, hotness)
        flat_weights = None if weights is None else tf.reshape(weights, [-1])
        lengths = tf.fill([size], tf.cast(hotness, tf.float32))
    else:
        of_row = tf.cast(rows.value_rowids(), tf.int32)
        bags = Bags(rows.flat_values, rows.nrows(), of_row, None, splits=tf.cast(rows.row_splits, tf.int64))
        flat_weights = None if weights is None else weights.flat_values
        lengths = tf.cast(rows.row_lengths(), tf.float32)
    bags = bags._replace(weights=flat_weights)
    if combiner == "sum":
        return bags
    if flat_weights is None:
        total = lengths
    else:
        addends = flat_weights if combiner == "mean" else flat_weights**2
        if isinstance(bags.hotness, tf.Tensor):
            total = tf.reduce_sum(tf.reshape(addends, [bags.size, bags.hotness]), axis=1)
        else:
            total = tf.math.unsorted_segment_sum(addends, bags.positions(), bags.size)
    return bags._replace(scale=tf.math.divide_no_nan(1.0, total if combiner == "mean" else tf.sqrt(total)))


def padded_bags(
    rows: tf.Tensor, weights: tf.Tensor | None, combiner: Combiner, length: int | None = None
) -> tuple[Bags, tf.Tensor]:
    """Returns the bags of a multi-valued feature whose examples are padded to L values, with static shapes.

    Args:
      rows: int [B, L]; -1 is padding.
      weights: float32 [B, L], or None.
      combiner: as in `multi_hot_bags`.
      length: L, to make sequences.

    Returns:
      The bags, with row 0 of weight 0 as padding; and bool [B * L], which values are no padding.
    """
    present = rows >= 0
    factors = tf.cast(present, tf.float32)
    factors = factors if weights is None else factors * weights
    rows = tf.maximum(rows, 0)
    flat = tf.reshape(present, [-1])
    if length is None:
        return multi_hot_bags(rows, factors, combiner), flat
    return Bags(tf.reshape(rows, [-1]), tf.size(rows), weights=tf.reshape(factors, [-1]), length=length), flat


def _sequences(rows: tf.RaggedTensor, weights: tf.RaggedTensor | None, length: int) -> Bags:
    rows = rows.with_row_splits_dtype(tf.int64)[:, :length]
    starts = tf.gather(rows.row_starts(), rows.value_rowids())
    position = tf.range(tf.size(rows.flat_values, tf.int64)) - starts
    bag_of_row = tf.cast(rows.value_rowids() * length + position, tf.int32)
    flat_weights = None if weights is None else weights.with_row_splits_dtype(tf.int64)[:, :length].flat_values
    size = tf.cast(rows.nrows(), tf.int32) * length
    return Bags(rows.flat_values, size, bag_of_row, None, flat_weights, None, length)


def pool(rows: tf.Tensor, bags: Bags) -> tf.Tensor:
    """Pools rows, float32 [n, dim], into vectors of bags: float32 [size, dim], or [B, length, dim] for sequences."""
    if bags.weights is not None:
        rows *= bags.weights[:, tf.newaxis]
    dim = rows.shape[1]
    if bags.bag_of_row is not None:
        # Faster than the ops with `num_segments`, but it leaves out empty bags at the end.
        vectors = tf.math.segment_sum(rows, bags.bag_of_row)
        missing = tf.cast(bags.size, tf.int32) - tf.shape(vectors)[0]
        rows = tf.concat([vectors, tf.zeros([missing, dim], vectors.dtype)], axis=0)
    elif not bags.one_row_each:
        size = bags.size if isinstance(bags.hotness, tf.Tensor) else -1  # which could not be told of 0 rows per bag
        rows = tf.reduce_sum(tf.reshape(rows, [size, bags.hotness, dim]), axis=1)
    if bags.scale is not None:
        rows *= bags.scale[:, tf.newaxis]
    return rows if bags.length is None else tf.reshape(rows, [-1, bags.length, dim])
