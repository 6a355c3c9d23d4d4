"""The compressed interaction network of xDeepFM."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras

from tfrs_dlrm.layers.candidate_rows import CandidateRows, Rows
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

    def call(self, inputs: Rows) -> tf.Tensor:
        """Maps [B, F, D] to [B, sum of maps], in the compute dtype."""
        if isinstance(inputs, CandidateRows) and not inputs.same_for_all:
            return self._of_candidates(inputs)
        first = x = tf.transpose(inputs, [0, 2, 1])  # [B, D, F]
        sums = []
        for kernel in self.kernels:
            pairs = x[:, :, :, tf.newaxis] * first[:, :, tf.newaxis, :]
            products = tf.reshape(pairs, [-1, first.shape[1], kernel.shape[0]])
            x = tf.tensordot(products, kernel, 1)  # [B, D, maps]
            sums.append(tf.reduce_sum(x, axis=1))
        return tf.concat(sums, axis=1)

    def _of_candidates(self, rows: CandidateRows) -> tf.Tensor:
        """Computes the same for C * N candidates: what a layer's weights and the context's vectors make is made once.

            sum_ij W_hij (X_ki * X_0j) = sum_i X_ki * (sum_j W_hij X_0j) + ...

        with j over the vectors of the context in the first term, whose parentheses need no candidate: D matrices.
        """
        contexts, dim = tf.shape(rows.context)[0], rows.shape[2]

        def by_number(vectors: tf.Tensor) -> tf.Tensor:  # [C * N, m, D] -> [C, D, N, m]
            return tf.transpose(tf.reshape(vectors, [contexts, -1, vectors.shape[1], dim]), [0, 3, 1, 2])

        x, own = by_number(tf.convert_to_tensor(rows)), by_number(rows.candidate)
        shared = tf.reshape(by_number(rows.context), [-1, rows.context.shape[1]])  # [C * D, a]
        of_context, of_candidates = np.split(np.argsort(rows.order), [shared.shape[1]])
        sums = []
        for kernel, maps in zip(self.kernels, self.maps, strict=True):
            count = x.shape[3]
            places = np.arange(count) * len(rows.order)  # of the kernel's rows of each vector i
            by_context = (of_context[:, None] + places).reshape(-1)
            order = np.concatenate([by_context, (places[:, None] + of_candidates).reshape(-1)])
            first, second = rows.kernels(kernel, order, len(by_context))
            matrices = tf.matmul(shared, tf.reshape(first, [len(of_context), count * maps]))
            pairs = tf.reshape(x[..., tf.newaxis] * own[..., tf.newaxis, :], [-1, second.shape[0]])
            products = tf.reshape(tf.matmul(pairs, second), [contexts, dim, -1, maps])
            x = tf.matmul(x, tf.reshape(matrices, [contexts, dim, count, maps])) + products  # [C, D, N, maps]
            sums.append(tf.reduce_sum(x, axis=1))
        return tf.reshape(tf.concat(sums, axis=2), [-1, sum(self.maps)])

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return super().get_config() | {"maps": list(self.maps), "seed": self.seed}
