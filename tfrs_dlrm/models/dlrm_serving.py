"""DLRM in serving, in few operations.

The top MLP reads the bottom vector b [D], if there is one, and the lower triangle of the dot products, row by row. Its
first layer has a row of its kernel for each. With b and the vectors 1, 2, 3:

         b   1   2   3            rows of the kernel
    b    .                        b           D rows
    1   1b   .                    1b          pair 0
    2   2b  21   .                2b 21       pairs 1, 2
    3   3b  31  32   .            3b 31 32    pairs 3, 4, 5

The layer is linear: its inputs may come in any order if the kernel's rows do too. Here they come as

    b, 1b 2b 3b, 21 31 32         products with b, then the triangle of the other vectors

For candidates of a context see `tfrs_dlrm.models.dlrm_candidates`, and `tfrs_dlrm.layers.candidate_rows`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
import tf_keras as keras

from tfrs_dlrm.layers.dot_interaction import dot_products, triangle_runs
from tfrs_dlrm.layers.mlp import MLP
from tfrs_dlrm.models.scorers import Inputs
from tfrs_dlrm.schema import Schema


class ServedLayers(NamedTuple):
    """The layers of a built DLRM, in float32 and without self-interaction.

    Attributes:
      schema: of the model.
      bottom_mlp: None if the model has no dense features.
      projections: by feature, for tables of another dimension than D.
      top_mlp: an MLP without batch normalization.
      dim: D, the dimension of the interacting vectors.
      linear: the layers of the linear term, of the vectors and of the numbers; None where the model has none.
    """

    schema: Schema
    bottom_mlp: MLP | None
    projections: dict[str, keras.layers.Dense]
    top_mlp: MLP
    dim: int
    linear: tuple[keras.layers.Layer, keras.layers.Layer | None] | None = None


class DLRMRowScorer(tf.Module):
    """Computes DLRM's logits for the small batches of serving.

    The products with the bottom vector come first, so that the vector is not copied next to the others. The lower
    triangle is copied row by row, since transposes are faster for large batches only.

    Args:
      layers: of the model.
    """

    def __init__(self, layers: ServedLayers):
        super().__init__(name="rows")
        self.bottom_mlp = layers.bottom_mlp
        self.projections = layers.projections
        first, *self.others = layers.top_mlp.dense_layers
        self.bias = first.bias if first.use_bias else None
        self._activation = first.activation
        self._labels = len(layers.schema.labels)
        self._names = [f.name for f in layers.schema.categorical]
        kernel = first.kernel.numpy()
        count = len(self._names)
        if self.bottom_mlp is not None:
            kernel_row = layers.dim + pair_numbers(1 + count)
            rows, columns = np.tril_indices(count, -1)
            order = [np.arange(layers.dim), kernel_row[1:, 0], kernel_row[1 + rows, 1 + columns]]
            kernel = kernel[np.concatenate(order)]
        self._kernel = tf.Variable(kernel, trainable=False)
        self.linear = layers.linear

    def __call__(self, inputs: Inputs) -> tf.Tensor:
        """See `RowScorer.__call__`."""
        vectors = stacked_vectors(inputs, self._names, self.projections)
        count = vectors.shape[1]
        products = tf.reshape(dot_products(vectors, vectors), [-1, count * count])
        columns = [products[:, begin:end] for begin, end in triangle_runs(count, self_interaction=False)]
        if self.bottom_mlp is not None:
            bottom = self.bottom_mlp(inputs.dense)
            columns = [bottom, tf.reshape(dot_products(vectors, bottom[:, tf.newaxis]), [-1, count]), *columns]
        x = tf.matmul(tf.concat(columns, axis=1), self._kernel)
        x = x if self.bias is None else tf.nn.bias_add(x, self.bias)
        x = x if self._activation is None else self._activation(x)
        for layer in self.others:
            x = layer(x)
        if self.linear is not None:
            of_vectors, of_numbers = self.linear
            x += of_vectors(tf.reshape(vectors, [-1, count * vectors.shape[2]]))
            x = x if of_numbers is None else x + of_numbers(inputs.dense)
        return tf.cast(x[:, 0] if self._labels == 1 else x, tf.float32)


def stacked_vectors(inputs: Inputs, names: Sequence[str], projections: Mapping[str, keras.layers.Layer]) -> tf.Tensor:
    """Returns the projected vectors [R, n, D] of the named categorical features, which are those of the inputs."""
    if isinstance(inputs.vectors, tf.Tensor) and not any(name in projections for name in names):
        return inputs.vectors
    each = zip(names, inputs.one_by_one(), strict=True)
    return tf.stack([projections[name](v) if name in projections else v for name, v in each], axis=1)


def pair_numbers(count: int) -> np.ndarray:
    """Returns [count, count]: the position of each pair among the outputs of DotInteraction; 0 if it has none."""
    rows, columns = np.tril_indices(count, -1)
    pairs = np.zeros([count, count], np.int64)
    pairs[rows, columns] = pairs[columns, rows] = np.arange(len(rows))
    return pairs
