"""The values of multi-valued features as ragged tensors, from the other forms that a batch may have."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

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
