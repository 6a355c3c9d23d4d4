"""The layers of factorization machines and linear models: vectors of numbers, and a bias."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfrs_dlrm.layers.candidate_rows import Rows, apply
from tfrs_dlrm.layers.serializable import serializable
from tfrs_dlrm.messages.arguments import Count


@serializable
class DenseVectors(keras.layers.Layer):
    """Multiplies each of W numbers x_i with a vector v_i: [B, W] -> [B, W, dim].

    This is how factorization machines treat numbers (Rendle 2010, "Factorization Machines"). The initial vectors are
    normal with a standard deviation of 0.01.

    Args:
      dim: the dimension of the vectors.
      seed: determines the initial vectors; None draws others each time.

    Raises:
      ValueError: `dim` is below 1.
    """

    def __init__(self, dim: Count, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dim = dim
        self.seed = seed

    def build(self, input_shape: Any) -> None:
        """Creates the vectors."""
        initializer = keras.initializers.RandomNormal(stddev=0.01, seed=self.seed)
        self.vectors = self.add_weight(name="vectors", shape=[input_shape[-1], self.dim], initializer=initializer)
        super().build(input_shape)

    def call(self, inputs: Rows) -> Rows:
        """Maps [B, W] to [B, W, dim], in the compute dtype."""
        return apply(lambda x, vectors: x[:, :, tf.newaxis] * vectors, inputs, self.vectors)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return super().get_config() | {"dim": self.dim, "seed": self.seed}


@serializable
class Bias(keras.layers.Layer):
    """Adds one weight to every number: x -> x + b.

    Args:
      initial: the initial weight.
    """

    def __init__(self, initial: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.initial = initial

    def build(self, input_shape: Any) -> None:
        """Creates the weight."""
        self.bias = self.add_weight(name="bias", shape=[], initializer=keras.initializers.Constant(self.initial))
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns inputs + b, of any shape, in the compute dtype."""
        return inputs + self.bias

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return super().get_config() | {"initial": self.initial}
