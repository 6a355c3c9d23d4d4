"""Softmax gates: how much each task takes from each expert."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfrs_dlrm.layers.parallel_mlps import product, product_shape
from tfrs_dlrm.layers.serializable import serializable
from tfrs_dlrm.messages.arguments import Count


@serializable
class Gates(keras.layers.Layer):
    """A softmax over E experts for each of T tasks: [B, n] or [B, T, n] -> [B, T, E].

        g_t = softmax(x_t W_t)         W_t [n, E]

    From [B, n] all gates read the same numbers; from [B, T, n] each reads its own. The softmax is computed in float32,
    also under mixed precision.

    Args:
      tasks: T, the number of gates.
      experts: E, the number of experts.
      seed: determines the initial weights; None draws others each time.

    Attributes:
      watch: called with the weights [B, T, E] of each batch, outside of functions; None calls nothing.

    Raises:
      ValueError: `tasks` or `experts` is below 1.
    """

    def __init__(self, tasks: Count, experts: Count, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.tasks = tasks
        self.experts = experts
        self.seed = seed
        self.watch: Callable[[tf.Tensor], object] | None = None

    def build(self, input_shape: Any) -> None:
        """Creates the weights, see `product`."""
        shape = tf.TensorShape(input_shape)
        width = shape[-1]
        spread = (2 / (width + self.experts)) ** 0.5
        self.kernel = self.add_weight(
            "kernel",
            product_shape(self.tasks, width, self.experts, shape.rank == 2),
            initializer=keras.initializers.RandomNormal(stddev=spread, seed=self.seed),
        )
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Maps [B, n] or [B, T, n] to [B, T, E], in the compute dtype."""
        x = tf.cast(inputs, self.compute_dtype)
        logits = product(x, self.kernel, self.tasks)
        exact = tf.float64 if self.compute_dtype == "float64" else tf.float32
        weights = tf.nn.softmax(tf.cast(logits, exact))
        if self.watch and tf.executing_eagerly():
            self.watch(weights)
        return tf.cast(weights, self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return super().get_config() | {"tasks": self.tasks, "experts": self.experts, "seed": self.seed}
