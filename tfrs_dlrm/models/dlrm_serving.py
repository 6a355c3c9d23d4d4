"""DLRM in serving: rows, and many candidates for one context; both in few operations.

The top MLP reads the bottom vector b [D], if there is one, and the lower triangle of the dot products, row by row. Its
first layer has a row of its kernel for each. With b and the vectors 1, 2, 3:

         b   1   2   3            rows of the kernel
    b    .                        b           D rows
    1   1b   .                    1b          pair 0
    2   2b  21   .                2b 21       pairs 1, 2
    3   3b  31  32   .            3b 31 32    pairs 3, 4, 5

    (The diagonal is included with self-interaction only.)

The layer is linear: its inputs may come in any order if the kernel's rows do too, and its sum may be split.

    DLRMRowScorer         b, 1b 2b 3b, 21 31 32    products with b, then the triangle of the other vectors
    DLRMCandidateScorer   b, 1b 2b 21              once per context, if b, 1 and 2 are the context's
                          3b 31 32                 per candidate, if 3 is the candidate's

A linear term is added to the logits; its sum is split in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
import tf_keras as keras

from tfrs_dlrm.layers.mlp import MLP
from tfrs_dlrm.models.scorers import DenseColumns, Inputs
from tfrs_dlrm.models.served_linear import LinearKernels, ServedLinear
from tfrs_dlrm.schema import Schema


class ServedLayers(NamedTuple):
    """The layers of a built DLRM, in float32.

    Attributes:
      schema: of the model.
      bottom_mlp: None if the model has no dense features.
      projections: by feature, for tables of another dimension than D.
      top_mlp: an MLP without batch normalization.
      self_interaction: whether the dot products of the vectors with themselves are included.
      dim: D, the dimension of the interacting vectors.
      linear: the kernels of the linear term; None if the model has none.
    """

    schema: Schema
    bottom_mlp: MLP | None
    projections: dict[str, keras.layers.Dense]
    top_mlp: MLP
    self_interaction: bool
    dim: int
    linear: LinearKernels | None = None


class _ServedDLRM(tf.Module):
    """DLRM's layers, without the kernel of the top MLP's first layer, whose rows each subclass reorders."""

    def __init__(self, layers: ServedLayers, name: str):
        super().__init__(name=name)
        self.dim = layers.dim
        self.bottom_mlp = layers.bottom_mlp
        self.projections = layers.projections
        first, *self.others = layers.top_mlp.dense_layers
        self.bias = first.bias if first.use_bias else None
        self._activation = first.activation
        self._labels = len(layers.schema.labels)

    def stacked(self, names: Sequence[str], inputs: Inputs, bottom: tf.Tensor | None) -> tf.Tensor:
        """Returns the vectors [R, n, D] of features; the bottom vector, if given, comes first."""
        vectors = inputs.vectors
        if self.projections or not isinstance(vectors, tf.Tensor):
            each = zip(names, inputs.one_by_one(), strict=True)
            projected = [self.projections[name](v) if name in self.projections else v for name, v in each]
            return tf.stack(projected if bottom is None else [bottom, *projected], axis=1)
        return vectors if bottom is None else tf.concat([bottom[:, tf.newaxis], vectors], axis=1)

    def biased(self, x: tf.Tensor) -> tf.Tensor:
        """Adds the bias of the top MLP's first layer."""
        return x if self.bias is None else tf.nn.bias_add(x, self.bias)

    def outputs(self, x: tf.Tensor) -> tf.Tensor:
        """Returns the top MLP's outputs [R, labels] from the sums [R, units] of its first layer."""
        x = x if self._activation is None else self._activation(x)
        for layer in self.others:
            x = layer(x)
        return x

    def logits(self, outputs: tf.Tensor) -> tf.Tensor:
        """Returns logits, float32 [R] or [R, labels], from [R, labels]."""
        return tf.cast(outputs[:, 0] if self._labels == 1 else outputs, tf.float32)


class DLRMRowScorer(_ServedDLRM):
    """Computes DLRM's logits for the small batches of serving.

    The products with the bottom vector come first, so that the vector is not copied next to the others. The lower
    triangle is copied row by row, since transposes are faster for large batches only.

    Args:
      layers: without self-interaction.
    """

    def __init__(self, layers: ServedLayers):
        super().__init__(layers, "rows")
        self._names = [f.name for f in layers.schema.categorical]
        kernel = layers.top_mlp.dense_layers[0].kernel.numpy()
        count = len(self._names)
        if self.bottom_mlp is not None:
            kernel_row = layers.dim + _pair_numbers(1 + count, False)
            rows, columns = _triangle(count, False)
            order = [np.arange(layers.dim), kernel_row[1:, 0], kernel_row[1 + rows, 1 + columns]]
            kernel = kernel[np.concatenate(order)]
        self._kernel = tf.Variable(kernel, trainable=False)
        self._linear = layers.linear and ServedLinear(layers.linear, layers.schema, layers.schema)

    def __call__(self, inputs: Inputs) -> tf.Tensor:
        """See `RowScorer.__call__`."""
        vectors = self.stacked(self._names, inputs, None)
        count = vectors.shape[1]
        products = tf.reshape(_dot_products(vectors, vectors), [-1, count * count])
        columns = _runs(products, count, self_interaction=False)
        if self.bottom_mlp is not None:
            bottom = self.bottom_mlp(inputs.dense)
            columns = [bottom, tf.reshape(_dot_products(vectors, bottom[:, tf.newaxis]), [-1, count]), *columns]
        outputs = self.outputs(self.biased(tf.matmul(tf.concat(columns, axis=1), self._kernel)))
        return self.logits(outputs + self._linear(vectors, inputs.dense) if self._linear else outputs)


class DLRMCandidateScorer(_ServedDLRM):
    """Computes DLRM's logits with little work per candidate.

    The bottom MLP, if no candidate has dense features, the products among the context's vectors, and the linear term of
    the context are computed once per context. The products of a candidate's vectors with the context's, and among
    themselves, remain.

    Args:
      layers: with at least one vector in the context.
      context: the part of the schema that all candidates of a request share.
      candidate: the part of the schema that differs between candidates.
    """

    def __init__(self, layers: ServedLayers, context: Schema, candidate: Schema):
        super().__init__(layers, "candidates")
        self._dense = DenseColumns(layers.schema, context, candidate)
        self._shared_names, self._candidate_names = (
            [f.name for f in part.categorical] for part in (context, candidate)
        )
        self._candidate_bottom = bool(candidate.dense)
        self._self_interaction = layers.self_interaction
        kernel = layers.top_mlp.dense_layers[0].kernel.numpy()
        bottom_rows = kernel[: 0 if self.bottom_mlp is None else layers.dim]
        self._bottom_kernel = tf.Variable(bottom_rows, trainable=False)
        names = [f.name for f in layers.schema.categorical]
        shared, others = (np.array(part, int) for part in self._positions(names))
        kernel_row = len(bottom_rows) + _pair_numbers(len(shared) + len(others), layers.self_interaction)

        def among(vectors: np.ndarray) -> np.ndarray:
            rows, columns = _triangle(len(vectors), layers.self_interaction)
            return kernel[kernel_row[vectors[rows], vectors[columns]]]

        self._shared_kernel = tf.Variable(among(shared), trainable=False)
        crossed = kernel[kernel_row[others[:, None], shared[None, :]].reshape(-1)]
        candidate_kernel = [*([bottom_rows] if self._candidate_bottom else []), crossed, among(others)]
        self._candidate_kernel = tf.Variable(np.concatenate(candidate_kernel), trainable=False)
        self._linear = None
        if layers.linear is not None:
            bottoms = (self.bottom_mlp is not None and not self._candidate_bottom, self._candidate_bottom)
            self._linear = [
                ServedLinear(layers.linear, layers.schema, part, bottom)
                for part, bottom in zip((context, candidate), bottoms, strict=True)
            ]

    def _positions(self, names: Sequence[str]) -> tuple[list[int], list[int]]:
        """Returns the positions of the context's and the candidate's vectors; the bottom vector's position is 0."""
        has_bottom = self.bottom_mlp is not None
        at = {name: i + has_bottom for i, name in enumerate(names)}
        shared, candidate = [at[n] for n in self._shared_names], [at[n] for n in self._candidate_names]
        if has_bottom:
            (candidate if self._candidate_bottom else shared).insert(0, 0)
        return shared, candidate

    def __call__(self, context: Inputs, candidate: Inputs, count: tf.Tensor) -> tf.Tensor:
        """See `CandidateScorer.__call__`."""
        bottom = None
        if self.bottom_mlp is not None:
            dense = self._dense(context.dense, candidate.dense, count) if self._candidate_bottom else context.dense
            bottom = self.bottom_mlp(dense)
        u = self.stacked(self._shared_names, context, None if self._candidate_bottom else bottom)  # [C, U, D]
        v = self.stacked(self._candidate_names, candidate, bottom if self._candidate_bottom else None)  # [C * N, V, D]
        contexts = tf.shape(u)[0]
        cross = _dot_products(tf.reshape(v, [contexts, -1, self.dim]), u)  # [C, N * V, U]
        columns = [tf.reshape(cross, [-1, v.shape[1] * u.shape[1]]), *self._candidate_products(v)]
        once = self._once(u)
        if bottom is not None and self._candidate_bottom:
            columns.insert(0, bottom)
        elif bottom is not None:
            once += tf.matmul(bottom, self._bottom_kernel)
        once = self.biased(once)
        together = tf.concat(columns, axis=1)
        outputs = tf.cond(  # for one context, TensorFlow makes one operation of product, sum and activation
            contexts == 1,
            lambda: self.outputs(tf.nn.bias_add(tf.matmul(together, self._candidate_kernel), once[0])),
            lambda: self.outputs(_added_to_each(tf.matmul(together, self._candidate_kernel), once)),
        )
        if self._linear:
            of_context, of_candidates = self._linear
            outputs += _added_to_each(of_candidates(v, candidate.dense), of_context(u, context.dense))
        return self.logits(outputs)

    def _once(self, vectors: tf.Tensor) -> tf.Tensor:
        """Returns the share of the products among the vectors [C, U, D] of contexts in the sum: [C, units]."""
        count = vectors.shape[1]
        rows, columns = _triangle(count, self._self_interaction)
        if not len(rows):  # oneDNN ends the process where a matrix without columns is multiplied and a bias added
            return tf.zeros([tf.shape(vectors)[0], self._candidate_kernel.shape[1]])
        products = tf.reshape(_dot_products(vectors, vectors), [-1, count * count])
        return tf.matmul(tf.gather(products, rows * count + columns, axis=1), self._shared_kernel)

    def _candidate_products(self, vectors: tf.Tensor) -> list[tf.Tensor]:
        """Returns the products among the vectors [C * N, V, D] of candidates: [C * N, pairs], in parts."""
        count = vectors.shape[1]
        products = tf.reshape(_dot_products(vectors, vectors), [-1, count * count])
        return _runs(products, count, self._self_interaction)


def _runs(products: tf.Tensor, count: int, self_interaction: bool) -> list[tf.Tensor]:
    """Returns the lower triangle of matrices [R, count * count], one tensor for each matrix row."""
    ends = [i + self_interaction for i in range(count)]
    return [tf.slice(products, [0, i * count], [-1, end]) for i, end in enumerate(ends) if end]


def _dot_products(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """Returns [B, m, n] from [B, m, D] and [B, n, D]; fast even if B is 1.

    On a CPU, oneDNN replaces `tf.matmul` by an operation of 75 microseconds for a batch of 1, most of DLRM's time.
    BatchMatMulV3 computes the same product, and oneDNN does not replace it.
    """
    return tf.raw_ops.BatchMatMulV3(x=x, y=y, Tout=tf.float32, adj_y=True)


def _added_to_each(x: tf.Tensor, once: tf.Tensor) -> tf.Tensor:
    """Adds `once` [C, units] to `x` [C * N, units], for each candidate of its context."""
    apart = tf.reshape(x, [tf.shape(once)[0], -1, once.shape[1]])
    return tf.reshape(apart + once[:, tf.newaxis], [-1, once.shape[1]])


def _triangle(count: int, self_interaction: bool) -> tuple[np.ndarray, np.ndarray]:
    """Returns rows and columns of the pairs among `count` vectors."""
    return np.tril_indices(count, 0 if self_interaction else -1)


def _pair_numbers(count: int, self_interaction: bool) -> np.ndarray:
    """Returns [count, count]: the position of each pair among the outputs of DotInteraction; 0 if it has none."""
    rows, columns = _triangle(count, self_interaction)
    pairs = np.zeros([count, count], np.int64)
    pairs[rows, columns] = pairs[columns, rows] = np.arange(len(rows))
    return pairs
