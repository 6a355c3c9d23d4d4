"""The compressed interaction network of xDeepFM."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfrs_dlrm.layers.hashing import derive_seed
from tfrs_dlrm.layers.serializable import serializable
from tfrs_dlrm.messages.arguments import Count


@serializable
class CompressedInteraction(keras.layers.Layer):
    """Products of vectors, number by number, compressed layer by layer: [B, F, D] -> [B, sum of maps].

        X_0 = the F vectors
        X_{k+1, h} = sum_ij W_{k, h, i, j} (X_{k, i} * X_{0, j})      h = 1, ..., maps[k]
        outputs: the sums over D of all X_{k, h} with k > 0

    Layer k has products of k + 1 vectors (Lian et al. 2018, "xDeepFM", arXiv 1803.05170, section 3.1). There is no
    activation, which the paper found best, and each map goes both to the output and to the next layer.

    Args:
      maps: the number of vectors ("feature maps") of each layer.
      seed: determines the initial weights; None draws others each time.

    Raises:
      ValueError: `maps` is empty or holds a number below 1.
    """

    def __init__(self, maps: Sequence[Count] = (200, 200, 200), seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not maps:
            raise ValueError(f"maps={list(maps)}; at least one layer is needed")
        self.maps = tuple(maps)
        self.seed = seed

    def build(self, input_shape: Any) -> None:
        """Creates the weights, [vectors of the layer before * F, maps] for each layer."""
        fields = tf.TensorShape(input_shape)[1]
        before = (fields, *self.maps)
        self.kernels = [
            self.add_weight(name=f"kernel_{i}", shape=[before[i] * fields, count], initializer=self._initializer(i))
            for i, count in enumerate(self.maps)
        ]
        super().build(input_shape)

    def _initializer(self, layer: int) -> Any:
        return keras.initializers.GlorotNormal(None if self.seed is None else derive_seed(self.seed, f"kernel/{layer}"))

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Maps [B, F, D] to [B, sum of maps], in the compute dtype."""
        first = x = tf.transpose(inputs, [0, 2, 1])  # [B, D, F]
        sums = []
        for kernel in self.kernels:
            pairs = x[:, :, :, tf.newaxis] * first[:, :, tf.newaxis, :]
            products = tf.reshape(pairs, [-1, first.shape[1], kernel.shape[0]])
            x = tf.tensordot(products, kernel, 1)  # [B, D, maps]
            sums.append(tf.reduce_sum(x, axis=1))
        return tf.concat(sums, axis=1)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return super().get_config() | {"maps": list(self.maps), "seed": self.seed}
