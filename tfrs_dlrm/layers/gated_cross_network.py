"""The gated cross network of GDCN."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfrs_dlrm.layers.hashing import derive_seed
from tfrs_dlrm.layers.mlp import Dense, build_sublayer
from tfrs_dlrm.layers.serializable import serializable
from tfrs_dlrm.messages.arguments import Count


@serializable
class GatedCrossNetwork(keras.layers.Layer):
    """Cross layers whose new products each pass a gate: [B, d] -> [B, d].

        x_{l+1} = x_0 * (W_l x_l + b_l) * sigmoid(G_l x_l) + x_l

    elementwise, with W_l and G_l [d, d] (Wang et al. 2023, "Towards Deeper, Lighter and Interpretable Cross Network for
    CTR Prediction", arXiv 2311.04635, section 3.1). A gate near 0 drops a product that only adds noise, so that deeper
    networks still gain. With gates of 1 it is `CrossNetwork`.

    Args:
      layers: the number of layers.
      seed: determines the initial weights; None draws others each time.

    Raises:
      ValueError: `layers` is below 1.
    """

    def __init__(self, layers: Count = 3, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.layers = layers
        self.seed = seed

    def build(self, input_shape: Any) -> None:
        """Creates the weights."""
        width = tf.TensorShape(input_shape)[-1]
        self.crosses = [self._product(width, f"cross_{i}", use_bias=True) for i in range(self.layers)]
        self.gates = [self._product(width, f"gate_{i}", use_bias=False) for i in range(self.layers)]
        super().build(input_shape)

    def _product(self, width: int, name: str, use_bias: bool) -> Dense:
        seed = None if self.seed is None else derive_seed(self.seed, name)
        initializer = keras.initializers.GlorotNormal(seed)
        layer = Dense(width, use_bias=use_bias, kernel_initializer=initializer, dtype=self.dtype_policy, name=name)
        build_sublayer(layer, width)
        return layer

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Maps [B, d] to [B, d], in the compute dtype."""
        x = inputs
        for cross, gate in zip(self.crosses, self.gates, strict=True):
            x = inputs * cross(x) * tf.sigmoid(gate(x)) + x
        return x

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return super().get_config() | {"layers": self.layers, "seed": self.seed}
