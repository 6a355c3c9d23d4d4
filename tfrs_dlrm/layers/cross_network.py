"""The cross network of DCN-v2."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfrs_dlrm.layers.hashing import derive_seed
from tfrs_dlrm.layers.mlp import Dense, build_sublayer
from tfrs_dlrm.layers.serializable import serializable
from tfrs_dlrm.messages.arguments import Count, Size


@serializable
class CrossNetwork(keras.layers.Layer):
    """Multiplies the inputs with each other; each layer adds one degree: [B, d] -> [B, d].

        x_{l+1} = x_0 * (W_l x_l + b_l) + x_l

    elementwise, with W_l [d, d] (Wang et al. 2021, "DCN V2", arXiv 2008.13535, eq. 1), or with a `rank` r
    W_l = U_l V_l, of [d, r] and [r, d] (eq. 2).

    It computes the same as a stack of `tfrs.layers.dcn.Cross`, which multiplies in float32 under mixed_bfloat16, and
    with a seeded initializer gives U and V the same initial numbers.

    Args:
      layers: the number of layers.
      rank: the rank of the matrices; 0 for full ones.
      seed: determines the initial weights; None draws others each time.

    Raises:
      ValueError: `layers` is below 1, or `rank` is negative.
    """

    def __init__(self, layers: Count = 3, rank: Size = 0, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.layers = layers
        self.rank = rank
        self.seed = seed

    def build(self, input_shape: Any) -> None:
        """Creates the weights."""
        width = tf.TensorShape(input_shape)[-1]
        inner = self.rank or width
        self.outer = [self._product(width, inner, f"outer_{i}", use_bias=True) for i in range(self.layers)]
        if self.rank:
            self.inner = [self._product(inner, width, f"inner_{i}", use_bias=False) for i in range(self.layers)]
        super().build(input_shape)

    def _product(self, units: int, inputs: int, name: str, use_bias: bool) -> Dense:
        seed = None if self.seed is None else derive_seed(self.seed, name)
        initializer = keras.initializers.GlorotNormal(seed)
        layer = Dense(units, use_bias=use_bias, kernel_initializer=initializer, dtype=self.dtype_policy, name=name)
        build_sublayer(layer, inputs)
        return layer

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Maps [B, d] to [B, d], in the compute dtype."""
        x = inputs
        for i in range(self.layers):
            x = inputs * self.outer[i](self.inner[i](x) if self.rank else x) + x
        return x

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return super().get_config() | {"layers": self.layers, "rank": self.rank, "seed": self.seed}
