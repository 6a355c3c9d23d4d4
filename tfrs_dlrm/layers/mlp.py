"""A stack of fully connected layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfrs_dlrm.seeds import derive_seed

Activation = str | Callable[[tf.Tensor], tf.Tensor] | None


@keras.utils.register_keras_serializable(package="tfrs_dlrm")
class MLP(keras.layers.Layer):
    """Fully connected layers, one after the other: [B, fan_in] -> [B, units[-1]].

    Weights begin normal with standard deviation sqrt(2 / (fan_in + fan_out)), biases normal with sqrt(1 / fan_out), as
    in the DLRM reference (facebookresearch/dlrm, `dlrm_s_pytorch.py`, `create_mlp`).

    Args:
      units: outputs of each layer.
      activation: of every layer but the last, as in `keras.layers.Dense`.
      final_activation: of the last layer; None leaves it linear.
      use_bias: whether the layers add a bias.
      seed: makes the initial weights a function of it; None draws others each time.

    Raises:
      ValueError: `units` is empty or holds a number below 1.
    """

    def __init__(
        self,
        units: Sequence[int],
        activation: Activation = "relu",
        final_activation: Activation = None,
        use_bias: bool = True,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not units or min(units) < 1:
            raise ValueError(f"units={list(units)}; at least one layer with at least one output each is needed")
        self.units = tuple(units)
        self.activation = keras.activations.get(activation)
        self.final_activation = keras.activations.get(final_activation)
        self.use_bias = use_bias
        self.seed = seed
        self.dense_layers = [self._dense_layer(i) for i in range(len(self.units))]

    def _dense_layer(self, i: int) -> keras.layers.Dense:
        def seed(name: str) -> int | None:
            return None if self.seed is None else derive_seed(self.seed, f"{name}/{i}")

        normal = keras.initializers.RandomNormal
        return _Dense(
            self.units[i],
            activation=self.activation if i < len(self.units) - 1 else self.final_activation,
            use_bias=self.use_bias,
            # scale 1 over the mean of fan_in and fan_out is the variance 2 / (fan_in + fan_out).
            kernel_initializer=keras.initializers.VarianceScaling(
                1.0, "fan_avg", "untruncated_normal", seed=seed("kernel")
            ),
            bias_initializer=normal(stddev=math.sqrt(1 / self.units[i]), seed=seed("bias")),
            dtype=self.dtype_policy,
            name=f"dense_{i}",
        )

    def build(self, input_shape: Any) -> None:
        """Creates the weights."""
        fan_in = tf.TensorShape(input_shape)[-1]
        for layer, units in zip(self.dense_layers, self.units, strict=True):
            layer.build([None, fan_in])
            fan_in = units
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """[B, fan_in] -> [B, units[-1]], in the compute dtype."""
        x = inputs
        for layer in self.dense_layers:
            x = layer(x)
        return x

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return super().get_config() | {
            "units": list(self.units),
            "activation": keras.activations.serialize(self.activation),
            "final_activation": keras.activations.serialize(self.final_activation),
            "use_bias": self.use_bias,
            "seed": self.seed,
        }


class _Dense(keras.layers.Dense):
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
