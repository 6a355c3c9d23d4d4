"""Vectors of numbers, as embeddings are vectors of values."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
import tf_keras as keras


@keras.utils.register_keras_serializable(package="tfrs_dlrm")
class DenseVectors(keras.layers.Layer):
    """A vector v_i for each of W numbers x_i, times the number: [B, W] -> [B, W, dim].

    It is how factorization machines treat numbers (Rendle 2010, "Factorization Machines"). The vectors begin normal
    with a standard deviation of 0.01.

    Args:
      dim: of the vectors.
      seed: makes the initial vectors a function of it; None draws others each time.

    Raises:
      ValueError: `dim` is below 1.
    """

    def __init__(self, dim: int, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if dim < 1:
            raise ValueError(f"dim={dim}; at least 1 is needed")
        self.dim = dim
        self.seed = seed

    def build(self, input_shape: Any) -> None:
        """Creates the vectors."""
        initializer = keras.initializers.RandomNormal(stddev=0.01, seed=self.seed)
        self.vectors = self.add_weight(name="vectors", shape=[input_shape[-1], self.dim], initializer=initializer)
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """[B, W] -> [B, W, dim], in the compute dtype."""
        return inputs[:, :, tf.newaxis] * self.vectors

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return super().get_config() | {"dim": self.dim, "seed": self.seed}
