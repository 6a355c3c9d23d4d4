"""DLRM as it is served: rows, and many candidates for one context; both in few operations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from tfrs_dlrm.models.scorers import DenseColumns, Inputs
from tfrs_dlrm.schema import Schema

if TYPE_CHECKING:
    from tfrs_dlrm.models.dlrm import DLRM


class _Served(tf.Module):
    """What both have of a model: its layers, but for the kernel of the top MLP's first, whose rows they rearrange."""

    def __init__(self, model: DLRM, name: str):
        super().__init__(name=name)
        self.dim = model.dim
        self.bottom_mlp = model.bottom_mlp if model.schema.dense else None
        self.projections = {
            f.name: model.projections[f.table] for f in model.schema.categorical if f.table in model.projections
        }
        first, *self.others = model.top_mlp.dense_layers
        self.bias = first.bias if first.use_bias else None
        self._activation = first.activation

    def stacked(self, names: Sequence[str], inputs: Inputs, bottom: tf.Tensor | None) -> tf.Tensor:
        """The vectors [R, n, D] of features, the bottom vector first where it is given."""
        vectors = inputs.vectors
        if self.projections or not isinstance(vectors, tf.Tensor):
            each = zip(names, inputs.one_by_one(), strict=True)
            projected = [self.projections[name](v) if name in self.projections else v for name, v in each]
            return tf.stack(projected if bottom is None else [bottom, *projected], axis=1)
        return vectors if bottom is None else tf.concat([bottom[:, tf.newaxis], vectors], axis=1)

    def biased(self, x: tf.Tensor) -> tf.Tensor:
        """With the bias of the top MLP's first layer."""
        return x if self.bias is None else tf.nn.bias_add(x, self.bias)

    def logits(self, x: tf.Tensor) -> tf.Tensor:
        """Float32 [R] of what the top MLP's first layer adds up, [R, units]."""
        x = x if self._activation is None else self._activation(x)
        for layer in self.others:
            x = layer(x)
        return tf.cast(x[:, 0], tf.float32)


class DLRMRows(_Served):
    """The same logits as DLRM's, for the small batches of serving.

    The kernel of the top MLP's first layer has its rows in another order, so that the bottom vector's products with the
    others come first: it need not be copied next to them. The lower triangle is copied in runs, since transposes, which
    are faster where there are many rows, take longer than they save where there are few.

    Args:
      model: built, in float32, without self-interaction.
    """

    def __init__(self, model: DLRM):
        super().__init__(model, "rows")
        self._names = [f.name for f in model.schema.categorical]
        kernel = model.top_mlp.dense_layers[0].kernel.numpy()
        count = len(self._names)
        if self.bottom_mlp is not None:
            pairs = _pairs(1 + count, False) + model.dim
            rows, columns = _triangle(count, False)
            order = [np.arange(model.dim), pairs[1:, 0], pairs[1 + rows, 1 + columns]]
            kernel = kernel[np.concatenate(order)]
        self._kernel = tf.Variable(kernel, trainable=False)

    def __call__(self, inputs: Inputs) -> tf.Tensor:
        """See `tfrs_dlrm.models.scorers.RowScorer`."""
        vectors = self.stacked(self._names, inputs, None)
        count = vectors.shape[1]
        products = tf.reshape(_dot_products(vectors, vectors), [-1, count * count])
        columns = _runs(products, count, self_interaction=False)
        if self.bottom_mlp is not None:
            bottom = self.bottom_mlp(inputs.dense)
            columns = [bottom, tf.reshape(_dot_products(vectors, bottom[:, tf.newaxis]), [-1, count]), *columns]
        return self.logits(self.biased(tf.matmul(tf.concat(columns, axis=1), self._kernel)))


class DLRMCandidates(_Served):
    """The same logits as DLRM's, with less work for each candidate.

    The top MLP's first layer is linear in the bottom vector and the dot products, so that its sum falls into a part of
    the context (the bottom MLP, where no candidate has dense features, and the products among vectors of the context),
    which is computed once, and a part of the candidate: its products with the context, and those among its own vectors.

    Args:
      model: built, in float32, with at least one vector in the context.
      context: the part of the schema that candidates share.
      own: the rest.
    """

    def __init__(self, model: DLRM, context: Schema, own: Schema):
        super().__init__(model, "candidates")
        self._dense = DenseColumns(model.schema, context, own)
        self._shared_names, self._own_names = ([f.name for f in part.categorical] for part in (context, own))
        self._own_bottom = bool(own.dense)
        kernel = model.top_mlp.dense_layers[0].kernel.numpy()
        of_bottom = kernel[: 0 if self.bottom_mlp is None else model.dim]
        self._bottom_kernel = tf.Variable(of_bottom, trainable=False)
        shared, others = self._positions([f.name for f in model.schema.categorical])
        count = len(shared) + len(others)
        self._self_interaction = model.self_interaction
        pair = _pairs(count, self._self_interaction) + len(of_bottom)
        triangles = [_triangle(len(part), self._self_interaction) for part in (shared, others)]
        rows = [np.array(part)[np.array(t)] for part, t in zip((shared, others), triangles, strict=True)]
        # Rows of the kernel in the order in which the products are computed here.
        self._shared_kernel = tf.Variable(kernel[pair[rows[0][0], rows[0][1]]], trainable=False)
        crossed = pair[np.array(others)[:, None], np.array(shared)[None, :]].reshape(-1)
        own_rows = kernel[np.concatenate([crossed, pair[rows[1][0], rows[1][1]]])]
        own_kernel = np.concatenate([of_bottom, own_rows]) if self._own_bottom else own_rows
        self._own_kernel = tf.Variable(own_kernel, trainable=False)

    def _positions(self, names: Sequence[str]) -> tuple[list[int], list[int]]:
        """Of the vectors of the context and of the candidate, in the model's order, the bottom vector first."""
        has_bottom = self.bottom_mlp is not None
        at = {name: i + has_bottom for i, name in enumerate(names)}
        shared, own = [at[n] for n in self._shared_names], [at[n] for n in self._own_names]
        if has_bottom:
            (own if self._own_bottom else shared).insert(0, 0)
        return shared, own

    def __call__(self, context: Inputs, own: Inputs, candidates: tf.Tensor) -> tf.Tensor:
        """See `tfrs_dlrm.models.scorers.CandidateScorer`."""
        bottom = None
        if self.bottom_mlp is not None:
            dense = self._dense(context.dense, own.dense, candidates) if self._own_bottom else context.dense
            bottom = self.bottom_mlp(dense)
        u = self.stacked(self._shared_names, context, None if self._own_bottom else bottom)  # [C, U, D]
        v = self.stacked(self._own_names, own, bottom if self._own_bottom else None)  # [C * N, V, D]
        contexts = tf.shape(u)[0]
        cross = _dot_products(tf.reshape(v, [contexts, -1, self.dim]), u)  # [C, N * V, U]
        columns = [tf.reshape(cross, [-1, v.shape[1] * u.shape[1]]), *self._own_products(v)]
        once = self._once(u)
        if bottom is not None and self._own_bottom:
            columns.insert(0, bottom)
        elif bottom is not None:
            once += tf.matmul(bottom, self._bottom_kernel)
        once = self.biased(once)
        together = tf.concat(columns, axis=1)
        return tf.cond(  # for one context, TensorFlow makes one operation of product, sum and activation
            contexts == 1,
            lambda: self.logits(tf.nn.bias_add(tf.matmul(together, self._own_kernel), once[0])),
            lambda: self.logits(_added_to_each(tf.matmul(together, self._own_kernel), once)),
        )

    def _once(self, vectors: tf.Tensor) -> tf.Tensor:
        """What the products between the vectors [C, U, D] of contexts, which are few, add: [C, units]."""
        count = vectors.shape[1]
        rows, columns = _triangle(count, self._self_interaction)
        if not len(rows):  # oneDNN ends the process where a matrix without columns is multiplied and a bias added
            return tf.zeros([tf.shape(vectors)[0], self._own_kernel.shape[1]])
        products = tf.reshape(_dot_products(vectors, vectors), [-1, count * count])
        return tf.matmul(tf.gather(products, rows * count + columns, axis=1), self._shared_kernel)

    def _own_products(self, vectors: tf.Tensor) -> list[tf.Tensor]:
        """Between the vectors [C * N, V, D] of candidates: [C * N, pairs], in parts."""
        count = vectors.shape[1]
        products = tf.reshape(_dot_products(vectors, vectors), [-1, count * count])
        return _runs(products, count, self._self_interaction)


def _runs(products: tf.Tensor, count: int, self_interaction: bool) -> list[tf.Tensor]:
    """The lower triangle of matrices [R, count * count], one tensor for each of their rows."""
    ends = [i + self_interaction for i in range(count)]
    return [tf.slice(products, [0, i * count], [-1, end]) for i, end in enumerate(ends) if end]


def _dot_products(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """[B, m, D] and [B, n, D] -> [B, m, n], for serving, where B may be 1.

    `tf.matmul` becomes an operation of oneDNN that takes 75 microseconds for a batch of 1 on a CPU, most of DLRM's
    time there. BatchMatMulV3 is the same product, and oneDNN leaves it alone.
    """
    return tf.raw_ops.BatchMatMulV3(x=x, y=y, Tout=tf.float32, adj_y=True)


def _added_to_each(x: tf.Tensor, once: tf.Tensor) -> tf.Tensor:
    """`x` [C * N, units] with `once` [C, units] added to each candidate of its context."""
    apart = tf.reshape(x, [tf.shape(once)[0], -1, once.shape[1]])
    return tf.reshape(apart + once[:, tf.newaxis], [-1, once.shape[1]])


def _triangle(count: int, self_interaction: bool) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the pairs among `count` vectors."""
    return np.tril_indices(count, 0 if self_interaction else -1)


def _pairs(count: int, self_interaction: bool) -> np.ndarray:
    """[count, count]: the number of each pair among DotInteraction's outputs; where there is none, no matter what."""
    rows, columns = _triangle(count, self_interaction)
    pairs = np.zeros([count, count], np.int64)
    pairs[rows, columns] = pairs[columns, rows] = np.arange(len(rows))
    return pairs
