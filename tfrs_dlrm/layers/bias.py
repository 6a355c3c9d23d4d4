"""One number that is added to every example."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
import tf_keras as keras


@keras.utils.register_keras_serializable(package="tfrs_dlrm")
class Bias(keras.layers.Layer):
    """Adds a weight, at first 0: x -> x + b."""

    def build(self, input_shape: Any) -> None:
        """Creates the weight."""
        self.bias = self.add_weight(name="bias", shape=[], initializer="zeros")
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Of any shape, in the compute dtype."""
        return inputs + self.bias
