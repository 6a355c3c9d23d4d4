"""DLRM's linear term in serving: of all features of a row, or of a context and of its candidates apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfrs_dlrm.schema import Schema


class LinearKernels(NamedTuple):
    """The kernels of a linear term, float32.

    Attributes:
      vectors: [F * D, labels], of the vectors of all categorical features in the order of the schema.
      numbers: [schema.dense_width, labels]; None without dense features.
    """

    vectors: np.ndarray
    numbers: np.ndarray | None


class ServedLinear(tf.Module):
    """The linear term of a part of the features.

    Args:
      kernels: of the model.
      schema: of the model.
      part: some or all of its features.
      bottom: whether the bottom vector, which has no weights, is the first of the vectors.
    """

    def __init__(self, kernels: LinearKernels, schema: Schema, part: Schema, bottom: bool = False):
        super().__init__(name="linear")
        labels = kernels.vectors.shape[1]
        by_feature = kernels.vectors.reshape([len(schema.categorical), -1, labels])
        mine = by_feature[_positions([f.name for f in part.categorical], [f.name for f in schema.categorical])]
        if bottom:
            mine = np.concatenate([np.zeros_like(by_feature[:1]), mine])
        self._vectors = tf.Variable(mine.reshape([-1, labels]), trainable=False)
        self._numbers = None
        if kernels.numbers is not None and part.dense:
            columns = _positions(part.dense_columns, schema.dense_columns)
            self._numbers = tf.Variable(kernels.numbers[columns], trainable=False)

    def __call__(self, vectors: tf.Tensor, dense: tf.Tensor | None) -> tf.Tensor:
        """Returns float32 [R, labels].

        Args:
          vectors: float32 [R, n, D] of the part's categorical features, after the bottom vector if there is one.
          dense: float32 [R, part.dense_width]; None without dense features.
        """
        width = self._vectors.shape[0]
        terms = [tf.matmul(tf.reshape(vectors, [-1, width]), self._vectors)] if width else []
        if self._numbers is not None:
            terms.append(tf.matmul(dense, self._numbers))
        return tf.add_n(terms)


def _positions(names: Sequence[str], of: Sequence[str]) -> np.ndarray:
    position = {name: i for i, name in enumerate(of)}
    return np.array([position[name] for name in names], int)
