"""Layer normalization."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfrs_dlrm.layers.serializable import serializable


@serializable
class LayerNorm(keras.layers.Layer):
    """Normalizes each vector to mean 0 and variance 1, then scales and shifts its numbers: [B, ..., d] -> [B, ..., d].

        y = g * (x - mean(x)) / sqrt(variance(x) + epsilon) + b

    with mean and variance over the last axis (Ba et al. 2016, arXiv 1607.06450). Of inputs [B, F, d], each of the F
    vectors has its g and b [d]. Mean and variance are float32 under mixed_bfloat16 too. Unlike that of Keras it has no
    fused operation, which converters to other runtimes lack.

    Args:
      epsilon: is added to the variance.
    """

    def __init__(self, epsilon: float = 1e-5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.epsilon = epsilon

    def build(self, input_shape: Any) -> None:
        """Creates the weights."""
        shape = tf.TensorShape(input_shape)[1:]
        self.gain = self.add_weight(name="gain", shape=shape, initializer="ones")
        self.shift = self.add_weight(name="shift", shape=shape, initializer="zeros")
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns a tensor of the shape of the inputs, in the compute dtype."""
        x = tf.cast(inputs, tf.float32) if inputs.dtype in (tf.bfloat16, tf.float16) else inputs
        x -= tf.reduce_mean(x, axis=-1, keepdims=True)
        x *= tf.math.rsqrt(tf.reduce_mean(tf.square(x), axis=-1, keepdims=True) + self.epsilon)
        return tf.cast(x, inputs.dtype) * self.gain + self.shift

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return super().get_config() | {"epsilon": self.epsilon}
