"""The fusion of FinalMLP: every product of an output of one MLP with one of another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfrs_dlrm.layers.serializable import serializable
from tfrs_dlrm.messages.arguments import Count


@serializable
class BilinearFusion(keras.layers.Layer):
    """A bilinear form of two vectors for each output: [B, p], [B, q] -> [B, outputs].

        z_u = sum_{h = 1..heads} x_h W_hu y_h

    where x_h [p / heads] and y_h [q / heads] are the h-th parts of the two vectors (Mao et al. 2023, "FinalMLP", arXiv
    2304.00902, section "Stream-Level Interaction Aggregation"). More heads multiply fewer pairs, with p q / heads
    weights for each output. Linear terms and a bias are left to other layers.

    Args:
      outputs: how many numbers it gives.
      heads: the number of parts; must divide p and q.
      seed: determines the initial weights; None draws others each time.

    Raises:
      ValueError: `outputs` or `heads` is below 1; when built: `heads` does not divide a width.
    """

    def __init__(self, outputs: Count = 1, heads: Count = 1, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.outputs = outputs
        self.heads = heads
        self.seed = seed

    def build(self, input_shape: Any) -> None:
        """Creates the weights."""
        widths = [tf.TensorShape(shape)[-1] for shape in input_shape]
        if any(width % self.heads for width in widths):
            raise ValueError(f"heads={self.heads} does not divide the widths {widths}; choose a divisor of both")
        self._parts = [width // self.heads for width in widths]
        p, q = self._parts
        # A tenth of that of Glorot and Bengio 2010, as in the last layer of an MLP: first outputs are near 0.
        stddev = 0.1 * (2 / (self.heads * p * q + self.outputs)) ** 0.5
        initializer = keras.initializers.RandomNormal(stddev=stddev, seed=self.seed)
        self.kernel = self.add_weight(name="kernel", shape=[self.heads, p, q, self.outputs], initializer=initializer)
        super().build(input_shape)

    def call(self, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        """Maps a list of [B, p] and [B, q] to [B, outputs], in the compute dtype."""
        x, y = (
            tf.transpose(tf.reshape(z, [-1, self.heads, part]), [1, 0, 2])  # [heads, B, part]
            for z, part in zip(inputs, self._parts, strict=True)
        )
        rows = tf.shape(x)[1]
        kernel = tf.reshape(self.kernel, [self.heads, self._parts[0], -1])
        weighted = tf.reshape(tf.matmul(x, kernel), [self.heads, rows, self._parts[1], self.outputs])
        return tf.reduce_sum(weighted * y[..., tf.newaxis], axis=[0, 2])

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return super().get_config() | {"outputs": self.outputs, "heads": self.heads, "seed": self.seed}
