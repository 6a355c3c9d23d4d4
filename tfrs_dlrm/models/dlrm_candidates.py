"""DLRM on many candidates for one context."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from tfrs_dlrm.layers.dot_interaction import dot_products
from tfrs_dlrm.models.candidates import Broadcast, Inputs
from tfrs_dlrm.schema import Schema

if TYPE_CHECKING:
    from tfrs_dlrm.models.dlrm import DLRM


class DLRMCandidates(tf.Module):
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
        super().__init__(name="candidates")
        self._model = [model]  # in a list, which is not followed when this is saved
        self._broadcast = Broadcast(model.call, model.schema, context, own)
        self._shared_names, self._own_names = ([f.name for f in part.categorical] for part in (context, own))
        self._has_bottom, self._own_bottom = bool(model.schema.dense), bool(own.dense)
        first = model.top_mlp.dense_layers[0]
        kernel = first.kernel.numpy()
        of_bottom = kernel[: model.dim] if self._has_bottom else kernel[:0]
        self._bottom_kernel = tf.Variable(of_bottom, trainable=False)
        shared, others = self._positions()
        count = len(shared) + len(others)
        pair = _pairs(count, model.interaction.self_interaction) + (model.dim if self._has_bottom else 0)
        self._triangles = [_triangle(len(part), model.interaction.self_interaction) for part in (shared, others)]
        rows = [np.array(part)[np.array(t)] for part, t in zip((shared, others), self._triangles, strict=True)]
        # Rows of the kernel in the order in which the products are computed here.
        self._shared_kernel = tf.Variable(kernel[pair[rows[0][0], rows[0][1]]], trainable=False)
        crossed = pair[np.array(others)[:, None], np.array(shared)[None, :]].reshape(-1)
        own_rows = kernel[np.concatenate([crossed, pair[rows[1][0], rows[1][1]]])]
        own_kernel = np.concatenate([of_bottom, own_rows]) if self._own_bottom else own_rows
        self._own_kernel = tf.Variable(own_kernel, trainable=False)

    def _positions(self) -> tuple[list[int], list[int]]:
        """Of the vectors of the context and of the candidate, in the model's order, the bottom vector first."""
        names = [f.name for f in self._model[0].schema.categorical]
        at = {name: i + self._has_bottom for i, name in enumerate(names)}
        shared, own = [at[n] for n in self._shared_names], [at[n] for n in self._own_names]
        if self._has_bottom:
            (own if self._own_bottom else shared).insert(0, 0)
        return shared, own

    def __call__(self, context: Inputs, own: Inputs, candidates: tf.Tensor) -> tf.Tensor:
        """See `tfrs_dlrm.models.candidates.CandidateScorer`."""
        model, dim = self._model[0], self._model[0].dim
        first, *rest = model.top_mlp.dense_layers
        bottom = None
        if self._has_bottom:
            dense = self._broadcast.dense(context, own, candidates) if self._own_bottom else context.dense
            bottom = model.bottom_mlp(dense)
        u = self._stacked(self._shared_names, context, None if self._own_bottom else bottom)  # [C, U, D]
        v = self._stacked(self._own_names, own, bottom if self._own_bottom else None)  # [C * N, V, D]
        contexts = tf.shape(u)[0]
        once = tf.matmul(self._products(u, 0), self._shared_kernel)
        cross = dot_products(tf.reshape(v, [contexts, -1, dim]), u)  # [C, N * V, U]
        columns = [tf.reshape(cross, [-1, v.shape[1] * u.shape[1]]), self._products(v, 1)]
        if bottom is not None and self._own_bottom:
            columns.insert(0, bottom)
        elif bottom is not None:
            once += tf.matmul(bottom, self._bottom_kernel)
        x = tf.matmul(tf.concat(columns, axis=1), self._own_kernel)
        once = tf.nn.bias_add(once, first.bias) if first.use_bias else once
        x = tf.reshape(x, [contexts, -1, x.shape[1]]) + once[:, tf.newaxis]
        x = tf.reshape(x if first.activation is None else first.activation(x), [-1, x.shape[2]])
        for layer in rest:
            x = layer(x)
        return tf.cast(x[:, 0], tf.float32)

    def _stacked(self, names: Sequence[str], inputs: Inputs, bottom: tf.Tensor | None) -> tf.Tensor:
        """The vectors of one side, [R, n, D], the bottom vector first where it is there."""
        model, vectors = self._model[0], inputs.vectors
        if model.projections or not isinstance(vectors, tf.Tensor):
            each = [model.projected(name, v) for name, v in zip(names, inputs.one_by_one(), strict=True)]
            return tf.stack(each if bottom is None else [bottom, *each], axis=1)
        return vectors if bottom is None else tf.concat([bottom[:, tf.newaxis], vectors], axis=1)

    def _products(self, vectors: tf.Tensor, which: int) -> tf.Tensor:
        """Between vectors [R, n, D] of one side: [R, pairs]."""
        rows, columns = self._triangles[which]
        count = vectors.shape[1]
        products = tf.reshape(dot_products(vectors, vectors), [-1, count * count])
        return tf.gather(products, rows * count + columns, axis=1)


def _triangle(count: int, self_interaction: bool) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the pairs among `count` vectors."""
    return np.tril_indices(count, 0 if self_interaction else -1)


def _pairs(count: int, self_interaction: bool) -> np.ndarray:
    """[count, count]: the number of each pair among DotInteraction's outputs; where there is none, no matter what."""
    rows, columns = _triangle(count, self_interaction)
    pairs = np.zeros([count, count], np.int64)
    pairs[rows, columns] = pairs[columns, rows] = np.arange(len(rows))
    return pairs
