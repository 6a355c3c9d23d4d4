"""The interacting layer of AutoInt: self-attention between the vectors of features."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfrs_dlrm.layers.hashing import derive_seed
from tfrs_dlrm.layers.mlp import Dense, build_sublayer
from tfrs_dlrm.layers.serializable import serializable
from tfrs_dlrm.messages.arguments import Count


@serializable
class FieldAttention(keras.layers.Layer):
    """Multi-head self-attention between F vectors: [B, F, D] -> [B, F, heads * dim].

        a_mk = softmax over k of (Q_h e_m . K_h e_k)           for each head h
        e'_m = relu(concat over h of (sum_k a_mk V_h e_k) + R e_m)

    with Q_h, K_h and V_h [dim, D], and R [heads * dim, D] (Song et al. 2019, "AutoInt", arXiv 1810.11921, section 4.4).
    As in the paper, products are not divided by sqrt(dim), and nothing has a bias.

    Args:
      heads: the number of attention heads.
      dim: the dimension of each head's vectors.
      seed: determines the initial weights; None draws others each time.

    Raises:
      ValueError: `heads` or `dim` is below 1.
    """

    def __init__(self, heads: Count = 2, dim: Count = 32, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.heads = heads
        self.dim = dim
        self.seed = seed

    def build(self, input_shape: Any) -> None:
        """Creates the weights."""
        width = tf.TensorShape(input_shape)[-1]
        names = ("query", "key", "value", "residual")
        self.query, self.key, self.value, self.residual = (self._product(name, width) for name in names)
        super().build(input_shape)

    def _product(self, name: str, width: int) -> Dense:
        seed = None if self.seed is None else derive_seed(self.seed, name)
        initializer = keras.initializers.GlorotNormal(seed)
        units = self.heads * self.dim
        layer = Dense(units, use_bias=False, kernel_initializer=initializer, dtype=self.dtype_policy, name=name)
        build_sublayer(layer, width)
        return layer

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Maps [B, F, D] to [B, F, heads * dim], in the compute dtype."""
        query, key, value = (self._by_head(layer(inputs)) for layer in (self.query, self.key, self.value))
        weights = tf.nn.softmax(tf.matmul(query, key, transpose_b=True))  # [B, heads, F, F]
        attended = tf.transpose(tf.matmul(weights, value), [0, 2, 1, 3])
        joined = tf.reshape(attended, [-1, inputs.shape[1], self.heads * self.dim])
        return tf.nn.relu(joined + self.residual(inputs))

    def _by_head(self, vectors: tf.Tensor) -> tf.Tensor:
        """Maps [B, F, heads * dim] to [B, heads, F, dim]."""
        return tf.transpose(tf.reshape(vectors, [-1, vectors.shape[1], self.heads, self.dim]), [0, 2, 1, 3])

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return super().get_config() | {"heads": self.heads, "dim": self.dim, "seed": self.seed}
