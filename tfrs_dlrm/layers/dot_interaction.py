"""Pairwise dot products: the feature interaction of DLRM."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras

from tfrs_dlrm.layers.serializable import serializable


@serializable
class DotInteraction(keras.layers.Layer):
    """The dot product of every pair of F vectors: [B, F, D] -> [B, P] (arXiv 1906.00091, section 2.1.3).

    The outputs are the lower triangle of the F x F matrix of dot products, row by row, as in the reference code:
    (1,0), (2,0), (2,1), (3,0), ... so P = F (F - 1) / 2. With `self_interaction` the diagonal is in as well:
    (0,0), (1,0), (1,1), (2,0), ... so P = F (F + 1) / 2.

    Input is one tensor [B, F, D], or F tensors [B, D] in a list. F is static, B is not.

    Args:
      self_interaction: whether each vector is paired with itself too.

    Raises:
      ValueError: when built: F is unknown, the inputs have a wrong rank, or a single vector has no pair.
    """

    def __init__(self, self_interaction: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.self_interaction = self_interaction

    def build(self, input_shape: Any) -> None:
        """Computes the index of each output in the F x F matrix, and the output at each index of the matrix."""
        count = _vector_count(input_shape)
        if count < 2 and not self.self_interaction:
            raise ValueError(f"{count} vector has no pairs to interact; at least 2 are needed")
        rows, columns = np.tril_indices(count, 0 if self.self_interaction else -1)
        pairs = np.arange(len(rows))
        pair_at = np.full([count, count], len(pairs))  # len(pairs) stands for "not an output"
        pair_at[rows, columns] = pair_at[columns, rows] = pairs
        self._triangle = (rows * count + columns).astype(np.int32)
        self._pair_at = pair_at.reshape(-1).astype(np.int32)
        self._multiplicity = np.where(rows == columns, 2.0, 1.0)
        super().build(input_shape)

    def call(self, inputs: tf.Tensor | Sequence[tf.Tensor]) -> tf.Tensor:
        """The dot products [B, P], in the compute dtype."""
        vectors: tf.Tensor = tf.stack(inputs, axis=1) if isinstance(inputs, (list, tuple)) else inputs
        return self._lower_triangle(vectors)

    def _lower_triangle(self, vectors: tf.Tensor) -> tf.Tensor:
        count = vectors.shape[1]

        # TensorFlow would differentiate the gather by a scatter. But each element of the matrix is at most one output,
        # so the gradient can be gathered too. Both run over the transpose, where gathering copies whole rows: together
        # 0.4 to 0.7 of TensorFlow's time on a CPU (batch 2048, 27 vectors of 16 or 128, float32, bfloat16).
        @tf.custom_gradient
        def lower_triangle(x: tf.Tensor) -> Any:
            products = tf.reshape(tf.matmul(x, x, transpose_b=True), [-1, count * count])

            def gradient(upstream: tf.Tensor) -> tf.Tensor:
                if self.self_interaction:  # x.x depends on x twice
                    upstream *= tf.constant(self._multiplicity, upstream.dtype)
                or_zero = tf.pad(tf.transpose(upstream), [[0, 1], [0, 0]])
                symmetric = tf.transpose(tf.gather(or_zero, self._pair_at))
                return tf.matmul(tf.reshape(symmetric, [-1, count, count]), x)

            return tf.transpose(tf.gather(tf.transpose(products), self._triangle)), gradient

        return lower_triangle(vectors)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return super().get_config() | {"self_interaction": self.self_interaction}


def _vector_count(input_shape: Any) -> int:
    """Returns F, from the shape of one tensor or a list of shapes."""
    if isinstance(input_shape, (list, tuple)) and isinstance(input_shape[0], (list, tuple, tf.TensorShape)):
        shapes = [tf.TensorShape(s) for s in input_shape]
        if any(s.rank != 2 for s in shapes) or len({s[1] for s in shapes}) > 1:
            raise ValueError(f"inputs of shapes {[str(s) for s in shapes]}; each must be [B, D], with one D for all")
        return len(shapes)
    shape = tf.TensorShape(input_shape)
    if shape.rank != 3 or shape[1] is None:
        raise ValueError(f"input of shape {shape}; [B, F, D] with a static F is needed, or a list of F tensors [B, D]")
    return shape[1]
