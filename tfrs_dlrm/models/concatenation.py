"""All features of an example side by side."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf


def concatenated(dense: tf.Tensor | None, embeddings: Sequence[tf.Tensor]) -> tf.Tensor:
    """[B, sum of dims + W] of vectors [B, dim] and numbers [B, W], in the dtype of the vectors."""
    if dense is None:
        return tf.concat(embeddings, axis=1)
    return tf.concat([*embeddings, tf.cast(dense, embeddings[0].dtype)], axis=1) if embeddings else dense
