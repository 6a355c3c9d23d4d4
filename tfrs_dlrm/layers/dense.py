"""A fully connected layer that learns its bias in bfloat16 too."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
import tf_keras as keras


class Dense(keras.layers.Dense):
    """A `keras.layers.Dense` whose bias has the right gradient in bfloat16 too.

    TensorFlow's own sums over the batch in bfloat16 on CPUs, whose 8 bits of mantissa soon stop counting: with a batch
    of 2048 it is off by 10%, with 8192 less than half of it is left. A product with ones is summed in float32, and is
    no slower.
    """

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """[B, ..., fan_in] -> [B, ..., units]."""
        inputs = tf.cast(inputs, self.compute_dtype)
        outputs = tf.matmul(inputs, self.kernel) if inputs.shape.rank == 2 else tf.tensordot(inputs, self.kernel, 1)
        if self.use_bias:
            outputs = _add_bias(outputs, tf.cast(self.bias, self.compute_dtype))
        return outputs if self.activation is None else self.activation(outputs)


@tf.custom_gradient
def _add_bias(x: tf.Tensor, bias: tf.Tensor) -> Any:
    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        flat = tf.reshape(upstream, [-1, upstream.shape[-1]])
        return upstream, tf.matmul(tf.ones([1, tf.shape(flat)[0]], flat.dtype), flat)[0]

    return tf.nn.bias_add(x, bias), gradient
