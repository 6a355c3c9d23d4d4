"""The values of multi-valued features as ragged tensors, from the other forms that a batch may have."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfrs_dlrm.schema import Schema

# Padding in a dense batch of a multi-valued feature, as in requests.
MISSING_ID = -1


def without_padding(ids: tf.Tensor, weights: tf.Tensor | None) -> tuple[tf.RaggedTensor, tf.RaggedTensor | None]:
    """Returns ids int [B, L] and weights float [B, L] as ragged tensors [B, None] without the places of id -1."""
    present = ids != MISSING_ID
    masked = tf.ragged.boolean_mask(ids, present)
    if weights is None:
        return masked, None
    kept = tf.boolean_mask(tf.cast(weights, tf.float32), present)
    return masked, masked.with_values(kept)


def ragged_rows(name: str, values: Any) -> Any:
    """Returns a SparseTensor [B, L] as a RaggedTensor of the values of each row, in the order of their columns.

    As in `tf.nn.embedding_lookup_sparse`, columns without a value count for nothing. Other tensors are unchanged.

    Raises:
      ValueError: the SparseTensor has another rank.
    """
    if not isinstance(values, tf.SparseTensor):
        return values
    if values.shape.rank != 2:
        raise ValueError(f"{name!r}: a SparseTensor of shape {values.shape}; [B, L] is needed")
    ordered = tf.sparse.reorder(values)
    return tf.RaggedTensor.from_value_rowids(
        ordered.values, ordered.indices[:, 0], ordered.dense_shape[0], validate=False
    )


def latest(lists: tf.RaggedTensor, length: int | None) -> tf.RaggedTensor:
    """Returns the last `length` values of each row of a ragged [B, None], all where there are fewer or for None."""
    if length is None or (lists.shape[1] is not None and lists.shape[1] <= length):
        return lists
    lengths = lists.row_lengths()
    before = tf.ragged.range(lengths).with_row_splits_dtype(lists.row_splits.dtype)
    first = tf.repeat(tf.maximum(lengths - length, 0), lengths)
    return tf.ragged.boolean_mask(lists, before.with_flat_values(before.flat_values >= first))


def padded_sequences(
    ids: tf.Tensor, weights: tf.Tensor | None, length: int, last: bool
) -> tuple[tf.Tensor, tf.Tensor | None]:
    """Returns ids int [B, length], padded at the end with -1, and weights float [B, length], padded with 0.

    Unlike `latest`, all tensors are dense, as TensorFlow Lite and ONNX need it.

    Args:
      ids: int [B, L]; -1 is padding, in any place.
      weights: float [B, L], or None.
      length: how many ids of each row count.
      last: whether the last ones count, as in a history, or the first ones.
    """
    present = ids != MISSING_ID
    place = tf.cumsum(tf.cast(present, tf.int32), axis=1) - 1
    if last:
        place -= tf.maximum(tf.reduce_sum(tf.cast(present, tf.int32), axis=1, keepdims=True) - length, 0)
    width = length + 1  # the last place takes the ids that do not count
    place = tf.where(present & (place >= 0), tf.minimum(place, length), length)
    size = tf.shape(ids)[0]
    flat = tf.reshape(tf.expand_dims(tf.range(size) * width, 1) + place, [-1, 1])

    def placed(values: tf.Tensor) -> tf.Tensor:
        found = tf.scatter_nd(flat, tf.reshape(values, [-1]), tf.expand_dims(size * width, 0))
        return tf.reshape(found, [-1, width])[:, :length]

    return placed(ids - MISSING_ID) + MISSING_ID, None if weights is None else placed(weights)


def history_lengths(schema: Schema, features: Any) -> dict[str, tf.Tensor]:
    """Returns how many events of each history of an encoded batch count, int32 [B], at most `sequence_length`.

    Parallel histories have the length of the one to which they are parallel.

    Args:
      schema: of the batch, or of a part of its features.
      features: the batch; batches for TPUs and inputs of served models have the lengths themselves, under
        `CategoricalFeature.length_key`.
    """
    found: dict[str, tf.Tensor] = {}
    for f in schema.histories:
        if f.parallel_to:
            continue
        if f.length_key in features:
            found[f.name] = features[f.length_key]
            continue
        values = ragged_rows(f.name, features[f.name])
        if isinstance(values, tf.RaggedTensor):
            lengths = tf.cast(values.row_lengths(), tf.int32)
        else:
            lengths = tf.math.count_nonzero(tf.convert_to_tensor(values) != MISSING_ID, axis=1, dtype=tf.int32)
        found[f.name] = tf.minimum(lengths, f.sequence_length)
    return found | {f.name: found[f.parallel_to] for f in schema.histories if f.parallel_to}
