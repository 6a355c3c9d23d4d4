"""AutoDis, soft buckets for numbers (Guo et al. 2021, arXiv 2012.08986)."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfrs_dlrm.layers.hashing import derive_seed
from tfrs_dlrm.layers.serializable import serializable
from tfrs_dlrm.messages.arguments import Count

# The slope of the leaky ReLU for negative numbers, TensorFlow's default.
_SLOPE = 0.2


@serializable
class AutoDis(keras.layers.Layer):
    """Turns each of W numbers into a vector of its own, by soft buckets: [B, W] -> [B, W, dim].

    Each number x has `buckets` vectors, rows of M. Its vector is their average, with weights that depend on x
    (equations 3 to 6 of the paper):

        h = leaky_relu(w x)                          [buckets]
        p = softmax((h V + skip h) / temperature)    [buckets]
        vector = p M                                 [dim]

    where w [buckets], V [buckets, buckets] and M [buckets, dim] are trained, apart for each of the W numbers. Unlike
    `DenseVectors` the result is no multiple of x, and unlike hard buckets it changes smoothly. Numbers should be of the
    order of 1: standardize them or take logarithms.

    Args:
      dim: the dimension of the vectors.
      buckets: vectors for each number.
      temperature: of the softmax; near 0, one bucket takes all the weight.
      skip: the factor of the skip connection.
      seed: determines the initial weights; None draws others each time.

    Raises:
      ValueError: `dim` or `buckets` is below 1, or `temperature` is not positive.
    """

    def __init__(
        self,
        dim: Count,
        buckets: Count = 16,
        temperature: float = 1.0,
        skip: float = 0.1,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not temperature > 0:
            raise ValueError(f"temperature={temperature}; a positive number is needed, such as 1")
        self.dim = dim
        self.buckets = buckets
        self.temperature = temperature
        self.skip = skip
        self.seed = seed

    def build(self, input_shape: Any) -> None:
        """Creates the weights."""
        width, h = input_shape[-1], self.buckets

        def weight(name: str, shape: list[int], stddev: float) -> tf.Variable:
            seed = None if self.seed is None else derive_seed(self.seed, name)
            return self.add_weight(
                name=name, shape=[width, *shape], initializer=keras.initializers.RandomNormal(stddev=stddev, seed=seed)
            )

        # Of the order of 1, so that the buckets differ from the first step on.
        self.slopes = weight("slopes", [h], 1.0)
        self.mixing = weight("mixing", [h, h], h**-0.5)
        self.vectors = weight("vectors", [h, self.dim], self.dim**-0.5)
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Maps [B, W] to [B, W, dim], in the compute dtype."""
        hidden = tf.nn.leaky_relu(inputs[:, :, tf.newaxis] * self.slopes, _SLOPE)
        scores = tf.einsum("bwh,whk->bwk", hidden, self.mixing) + self.skip * hidden
        return tf.einsum("bwk,wkd->bwd", tf.nn.softmax(scores / self.temperature), self.vectors)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return super().get_config() | {
            "dim": self.dim,
            "buckets": self.buckets,
            "temperature": self.temperature,
            "skip": self.skip,
            "seed": self.seed,
        }
