"""DLRM for many candidates of one context, whose first layer is folded with the context's vectors.

The first layer of the top MLP multiplies the dot product of a candidate's vector v and a context's vector u by a row
k[v, u] of its kernel. The sum over the vectors of the context can be taken first:

    sum over u of <v, u> k[v, u] = v x M[v],   M[v] = sum over u of the outer product of u and k[v, u]

M[v] is [D, units], of the context alone. So a candidate needs no dot products with the U vectors of its context, and
D columns of the layer in place of U for each of its V vectors.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfrs_dlrm.layers.candidate_rows import added_to_each
from tfrs_dlrm.layers.dot_interaction import dot_products, triangle_runs
from tfrs_dlrm.models.dlrm_serving import ServedLayers, pair_numbers, stacked_vectors
from tfrs_dlrm.models.scorers import Inputs
from tfrs_dlrm.schema import Schema


class DLRMCandidateScorer(tf.Module):
    """Computes the logits of candidates whose dense features are all of the context.

    Args:
      layers: of the model.
      context: the part of the schema that candidates share, with all dense features.
      candidate: the part of the schema that differs between candidates.
    """

    def __init__(self, layers: ServedLayers, context: Schema, candidate: Schema):
        super().__init__(name="candidates")
        self.bottom_mlp, self.projections = layers.bottom_mlp, layers.projections
        first, *self.others = layers.top_mlp.dense_layers
        self._activation = first.activation or tf.identity
        self._labels = len(layers.schema.labels)
        self._context, self._candidate = ([f.name for f in part.categorical] for part in (context, candidate))
        names = [f.name for f in layers.schema.categorical]
        shared, own = ([names.index(name) for name in part] for part in (self._context, self._candidate))
        kernel, width = first.kernel.numpy(), 0
        self.bias = tf.Variable(first.bias if first.use_bias else np.zeros(kernel.shape[1:], np.float32), False)
        if self.bottom_mlp is not None:  # its vector comes before the others, and is an input of the first layer too
            shared, own, width = [0, *(1 + i for i in shared)], [1 + i for i in own], layers.dim
        row = width + pair_numbers(len(shared) + len(own))

        def among(x: list[int]) -> np.ndarray:
            return row[np.ix_(x, x)][np.tril_indices(len(x), -1)]

        self._once = tf.Variable(kernel[np.concatenate([np.arange(width), among(shared)])], False)
        self._crossed = tf.Variable(kernel[row[np.ix_(own, shared)]], False)  # [V, U, units]
        self._among_own = tf.Variable(kernel[among(own)], False)
        self.linear_numbers = None
        self._linear: list[tf.Variable] = []  # of the vectors of contexts, and of candidates
        if layers.linear is not None:
            of_vectors, self.linear_numbers = layers.linear
            by_feature = np.reshape(of_vectors.kernel, [len(names), layers.dim, -1])
            for part in (self._context, self._candidate):
                rows = by_feature[[names.index(name) for name in part]]
                self._linear.append(tf.Variable(rows.reshape([-1, rows.shape[2]]), False))

    def __call__(self, context: Inputs, candidate: Inputs, count: tf.Tensor) -> tf.Tensor:
        """See `CandidateScorer.__call__`."""
        own = stacked_vectors(candidate, self._candidate, self.projections)  # [C * N, V, D]
        vectors, bottom = [], []
        if self._context:
            vectors = [stacked_vectors(context, self._context, self.projections)]
        if self.bottom_mlp is not None:
            bottom = [self.bottom_mlp(context.dense)]
        shared = tf.concat([*(b[:, tf.newaxis] for b in bottom), *vectors], axis=1)  # [C, U, D]
        once = tf.matmul(tf.concat([*bottom, *_triangle(shared)], axis=1), self._once)
        once = tf.nn.bias_add(once, self.bias)
        flat = tf.reshape(own, [-1, own.shape[1] * own.shape[2]])
        x = self._first_layer(tf.concat([flat, *_triangle(own)], axis=1), self._folded(shared), once)
        for layer in self.others:
            x = layer(x)
        if self._linear:
            x = added_to_each(x + tf.matmul(flat, self._linear[1]), self._linear_of_context(context, vectors))
        return tf.cast(x[:, 0] if self._labels == 1 else x, tf.float32)

    def _folded(self, shared: tf.Tensor) -> tf.Tensor:
        """Returns M, [C, V * D, units], of the vectors [C, U, D] of contexts."""
        folded = tf.raw_ops.BatchMatMulV3(x=shared[:, tf.newaxis], y=self._crossed, Tout=shared.dtype, adj_x=True)
        return tf.reshape(folded, [-1, self._crossed.shape[0] * shared.shape[2], self._crossed.shape[2]])

    def _first_layer(self, columns: tf.Tensor, folded: tf.Tensor, once: tf.Tensor) -> tf.Tensor:
        """Returns [C * N, units] of the candidates' columns, of M, and of the context's part, [C, units]."""

        def of_one_context() -> tf.Tensor:  # product, sum and activation in one operation
            kernel = tf.concat([folded[0], self._among_own], axis=0)
            return self._activation(tf.nn.bias_add(tf.matmul(columns, kernel), once[0]))

        def of_several() -> tf.Tensor:
            contexts, units = tf.shape(once)[0], once.shape[1]
            among = tf.tile(self._among_own[tf.newaxis], [contexts, 1, 1])
            apart = tf.reshape(columns, [contexts, -1, columns.shape[1]])
            x = tf.matmul(apart, tf.concat([folded, among], axis=1)) + once[:, tf.newaxis]
            return tf.reshape(self._activation(x), [-1, units])

        return tf.cond(tf.shape(once)[0] == 1, of_one_context, of_several)

    def _linear_of_context(self, context: Inputs, vectors: list[tf.Tensor]) -> tf.Tensor:
        """Returns the part of the linear term that the candidates of a context share, [C, labels]."""
        terms = [] if self.linear_numbers is None else [self.linear_numbers(context.dense)]
        terms += [tf.matmul(tf.reshape(v, [-1, v.shape[1] * v.shape[2]]), self._linear[0]) for v in vectors]
        return tf.add_n(terms)


def folding_pays(layers: ServedLayers, context: Schema, candidate: Schema) -> bool:
    """Returns whether `DLRMCandidateScorer` takes this split of a schema, and multiplies clearly less.

    For each vector of a candidate, a dot product costs D multiplications per vector of the context, and its column of
    the first layer `units`. Folded, the vector has D columns. M has to be made for each context: if less than a quarter
    is saved, a few hundred candidates do not make up for it.
    """
    shared = len(context.categorical) + (layers.bottom_mlp is not None)
    dim, units = layers.dim, layers.top_mlp.units[0]
    fits = context.dense_columns == layers.schema.dense_columns and len(candidate.categorical) > 0 and shared > 1
    return fits and dim * units <= 0.75 * shared * (dim + units)


def _triangle(vectors: tf.Tensor) -> list[tf.Tensor]:
    """Returns the products among the vectors [R, n, D] of each row, [R, n (n - 1) / 2], in parts."""
    count = vectors.shape[1]
    if count == 1:
        return []
    products = tf.reshape(dot_products(vectors, vectors), [-1, count * count])
    return [products[:, begin:end] for begin, end in triangle_runs(count, self_interaction=False)]
