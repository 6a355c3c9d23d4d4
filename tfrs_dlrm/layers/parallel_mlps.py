"""MLPs of one shape side by side, such as the experts of a mixture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras

from tfrs_dlrm.layers.dropout import Dropout
from tfrs_dlrm.layers.hashing import derive_seed
from tfrs_dlrm.layers.mlp import BATCH_NORM_MOMENTUM, FINAL_SCALE, Activation, add_bias, build_sublayer
from tfrs_dlrm.layers.serializable import serializable
from tfrs_dlrm.messages.arguments import Count


def product_shape(count: int, fan_in: int, units: int, shared: bool) -> list[int]:
    """Returns the shape of the kernels of `product`."""
    return [fan_in, count * units] if shared else [count, fan_in, units]


def product(inputs: tf.Tensor, kernels: tf.Tensor, count: int) -> tf.Tensor:
    """Multiplies with `count` kernels at once: [B, n] or [B, count, n] -> [B, count, units].

    These are matrix products on purpose. On CPUs, `tf.einsum` in bfloat16 sums the gradient of the kernels over the
    batch in bfloat16 too, and is off by half in a batch of 8192.

    Args:
      inputs: [B, n], which all kernels read, or [B, count, n], a part for each.
      kernels: [n, count * units], or [count, n, units].
      count: how many.
    """
    if inputs.shape.rank == 2:
        return tf.reshape(tf.matmul(inputs, kernels), [-1, count, kernels.shape[1] // count])
    return tf.transpose(tf.matmul(tf.transpose(inputs, [1, 0, 2]), kernels), [1, 0, 2])


@serializable
class ParallelMLPs(keras.layers.Layer):
    """`count` MLPs of one shape, each with its weights: [B, n] or [B, count, n] -> [B, count, units[-1]].

    From [B, n] all MLPs read the same numbers; from [B, count, n] each reads its own. Every layer of all MLPs is one
    product. Initial weights, batch normalization, dropout and `final_bias` are those of `MLP`.

    Args:
      count: the number of MLPs.
      units: outputs of each layer.
      activation: of every hidden layer, as in `keras.layers.Dense`.
      seed: determines the initial weights and the dropped outputs; None draws others each time.
      dropout: the share of hidden outputs that training drops.
      batch_norm: whether hidden layers are batch normalized.
      final_bias: where the outputs begin: those of the first MLP, then those of the others. None leaves the last layer
        as the others.
      all_hidden: whether the last layer is hidden too, with activation, batch norm and dropout; else it is linear.

    Raises:
      ValueError: `count` or a number of `units` is below 1, `units` is empty, or `final_bias` has another length than
        the MLPs have outputs.
    """

    def __init__(
        self,
        count: Count,
        units: Sequence[Count],
        activation: Activation = "relu",
        seed: int | None = None,
        dropout: float = 0.0,
        batch_norm: bool = False,
        final_bias: Sequence[float] | None = None,
        all_hidden: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not units:
            raise ValueError(f"units={list(units)}; at least one layer is needed")
        if final_bias is not None and len(final_bias) != count * units[-1]:
            raise ValueError(
                f"final_bias={list(final_bias)}: {count} MLPs have {count * units[-1]} outputs; give a number for each"
            )
        self.count = count
        self.units = tuple(units)
        self.hidden_layers = len(self.units) - (not all_hidden)
        self.activation = keras.activations.get(activation)
        self.seed = seed
        self.dropout = dropout
        self.batch_norm = batch_norm
        self.final_bias = None if final_bias is None else tuple(map(float, final_bias))
        hidden = range(self.hidden_layers)
        if batch_norm:
            self.batch_norms = [
                keras.layers.BatchNormalization(
                    momentum=BATCH_NORM_MOMENTUM, synchronized=True, dtype=self.dtype_policy, name=f"batch_norm_{i}"
                )
                for i in hidden
            ]
        if dropout:
            self.dropouts = [
                Dropout(dropout, self._seed(f"dropout/{i}"), dtype=self.dtype_policy, name=f"dropout_{i}")
                for i in hidden
            ]

    def _seed(self, name: str) -> int | None:
        return None if self.seed is None else derive_seed(self.seed, name)

    def build(self, input_shape: Any) -> None:
        """Creates the weights: kernels (see `product`) and biases [count, units] of each layer."""
        shape = tf.TensorShape(input_shape)
        fan_in, shared = shape[-1], shape.rank == 2
        self.kernels, self.biases = [], []
        for i, units in enumerate(self.units):
            kernel, bias = self._initializers(i, fan_in)
            kernel_shape = product_shape(self.count, fan_in, units, shared and i == 0)
            self.kernels.append(self.add_weight(f"kernel_{i}", kernel_shape, initializer=kernel))
            self.biases.append(self.add_weight(f"bias_{i}", [self.count, units], initializer=bias))
            hidden = i < self.hidden_layers
            for on, layers in ((self.batch_norm, "batch_norms"), (self.dropout, "dropouts")):
                if hidden and on:
                    build_sublayer(getattr(self, layers)[i], self.count * units)
            fan_in = units
        super().build(input_shape)

    def _initializers(
        self, i: int, fan_in: int
    ) -> tuple[keras.initializers.Initializer, keras.initializers.Initializer]:
        scale, begins = 1.0, None
        if self.final_bias is not None and i == len(self.units) - 1:
            by_mlp = np.reshape(self.final_bias, [self.count, -1])
            scale, begins = FINAL_SCALE, keras.initializers.Constant(by_mlp.tolist())
        spread = math.sqrt(scale * 2 / (fan_in + self.units[i]))
        kernel = keras.initializers.RandomNormal(stddev=spread, seed=self._seed(f"kernel/{i}"))
        noise = keras.initializers.RandomNormal(stddev=math.sqrt(1 / self.units[i]), seed=self._seed(f"bias/{i}"))
        return kernel, begins or noise

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Maps [B, n] or [B, count, n] to [B, count, units[-1]], in the compute dtype."""
        x = tf.cast(inputs, self.compute_dtype)
        for i, units in enumerate(self.units):
            x = tf.reshape(product(x, self.kernels[i], self.count), [-1, self.count * units])
            x = add_bias(x, tf.cast(tf.reshape(self.biases[i], [-1]), self.compute_dtype))
            hidden = i < self.hidden_layers
            if hidden and self.batch_norm:
                x = self.batch_norms[i](x, training=training)
            x = self.activation(x) if hidden else x
            if hidden and self.dropout:
                x = self.dropouts[i](x, training=training)
            x = tf.reshape(x, [-1, self.count, units])
        return x

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return super().get_config() | {
            "count": self.count,
            "units": list(self.units),
            "activation": keras.activations.serialize(self.activation),
            "seed": self.seed,
            "dropout": self.dropout,
            "batch_norm": self.batch_norm,
            "final_bias": None if self.final_bias is None else list(self.final_bias),
            "all_hidden": self.hidden_layers == len(self.units),
        }
