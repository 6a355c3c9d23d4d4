"""Histories in models: the vectors of their events, which of them count, and one vector of all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import tensorflow as tf

from tfrs_dlrm.schema import Pooling, Schema


class History(NamedTuple):
    """The events of a history, the latest of each example in its last place that counts.

    Attributes:
      vectors: [B, L, dim], zeros after the last event.
      present: bool [B, L], which places have an event.
    """

    vectors: tf.Tensor
    present: tf.Tensor


def with_events(
    schema: Schema, embeddings: Sequence[tf.Tensor], lengths: Mapping[str, tf.Tensor]
) -> list[tf.Tensor | History]:
    """Returns the vectors of categorical features, those of histories as `History`.

    Args:
      schema: the schema of the model.
      embeddings: as `EmbeddingTables.lookup` returns them.
      lengths: how many events of each history count; see `history_lengths`.
    """
    found: list[tf.Tensor | History] = []
    for f, vectors in zip(schema.categorical, embeddings, strict=True):
        if f.history_of:
            found.append(History(vectors, tf.sequence_mask(lengths[f.name], f.sequence_length)))
        else:
            found.append(vectors)
    return found


def pooled(history: History, pooling: Pooling) -> tf.Tensor:
    """Returns the mean or sum [B, dim] of the events of each example, in the dtype of their vectors."""
    present = tf.cast(history.present, tf.float32)
    total = tf.reduce_sum(tf.cast(history.vectors, tf.float32) * tf.expand_dims(present, 2), axis=1)
    if pooling == "mean":
        total = tf.math.divide_no_nan(total, tf.reduce_sum(present, axis=1, keepdims=True))
    return tf.cast(total, history.vectors.dtype)
