"""Pairwise dot products: the feature interaction of DLRM."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras

from tfrs_dlrm.layers.candidate_rows import CandidateRows, Rows, stack
from tfrs_dlrm.layers.serializable import serializable


@serializable
class DotInteraction(keras.layers.Layer):
    """The dot product of every pair of F vectors: [B, F, D] -> [B, P] (arXiv 1906.00091, section 2.1.3).

    The outputs are the lower triangle of the F x F matrix of dot products, row by row, as in the reference code:
    (1,0), (2,0), (2,1), (3,0), ... so P = F (F - 1) / 2. With `self_interaction` the diagonal is in as well:
    (0,0), (1,0), (1,1), (2,0), ... so P = F (F + 1) / 2.

    Input is one tensor [B, F, D], or F tensors [B, D] in a list. F is static, B is not.

    Args:
      self_interaction: whether each vector is paired with itself too.

    Raises:
      ValueError: when built: F is unknown, the inputs have a wrong rank, or a single vector has no pair.
    """

    def __init__(self, self_interaction: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.self_interaction = self_interaction

    def build(self, input_shape: Any) -> None:
        """Computes the index of each output in the F x F matrix, and the output at each index of the matrix."""
        count = _vector_count(input_shape)
        if count < 2 and not self.self_interaction:
            raise ValueError(f"{count} vector has no pairs to interact; at least 2 are needed")
        rows, columns = np.tril_indices(count, 0 if self.self_interaction else -1)
        pairs = np.arange(len(rows))
        pair_at = np.full([count, count], len(pairs))  # len(pairs) stands for "not an output"
        pair_at[rows, columns] = pair_at[columns, rows] = pairs
        self._triangle = (rows * count + columns).astype(np.int32)
        self._pair_at = pair_at.reshape(-1).astype(np.int32)
        self._multiplicity = np.where(rows == columns, 2.0, 1.0)
        super().build(input_shape)

    def call(self, inputs: Rows | Sequence[Rows]) -> Rows:
        """The dot products [B, P], in the compute dtype."""
        vectors: Rows = stack(inputs) if isinstance(inputs, (list, tuple)) else inputs
        if not isinstance(vectors, CandidateRows):
            return self._lower_triangle(vectors)
        return vectors.map(self._lower_triangle) if vectors.same_for_all else self._of_candidates(vectors)

    def _of_candidates(self, rows: CandidateRows) -> CandidateRows:
        """Computes the same for candidates. Products among the vectors of a context are columns that they share.

        They come first. Then come those of a candidate's vectors with the context's, and among a candidate's vectors.
        """
        shared: tf.Tensor = rows.context  # [C, U, D]
        own: tf.Tensor = rows.candidate  # [C * N, V, D]
        crossed = dot_products(tf.reshape(own, [tf.shape(shared)[0], -1, own.shape[2]]), shared)  # [C, N * V, U]
        of_candidates = [tf.reshape(crossed, [-1, own.shape[1] * shared.shape[1]]), *self._triangle_of(own)]
        once = self._triangle_of(shared) or [tf.zeros([tf.shape(shared)[0], 0], shared.dtype)]

        at = self._pair_at.reshape([len(rows.order), -1])  # the output of each pair
        u, v = np.split(np.argsort(rows.order), [shared.shape[1]])
        among_u, among_v = (at[np.ix_(x, x)][np.tril_indices(len(x), self.self_interaction - 1)] for x in (u, v))
        order = np.argsort(np.concatenate([among_u, at[np.ix_(v, u)].reshape(-1), among_v]))
        return CandidateRows(tf.concat(once, axis=1), tf.concat(of_candidates, axis=1), order, rows.count, rows.kernels)

    def _triangle_of(self, vectors: tf.Tensor) -> list[tf.Tensor]:
        """Returns the products among the vectors of each row, [R, pairs], in parts."""
        count = vectors.shape[1]
        products = tf.reshape(dot_products(vectors, vectors), [-1, count * count])
        return [products[:, begin:end] for begin, end in triangle_runs(count, self.self_interaction)]

    def _lower_triangle(self, vectors: tf.Tensor) -> tf.Tensor:
        count = vectors.shape[1]

        # TensorFlow would differentiate the gather by a scatter. But each element of the matrix is at most one output,
        # so the gradient can be gathered too. Both run over the transpose, where gathering copies whole rows: together
        # 0.4 to 0.7 of TensorFlow's time on a CPU (batch 2048, 27 vectors of 16 or 128, float32, bfloat16).
        @tf.custom_gradient
        def lower_triangle(x: tf.Tensor) -> Any:
            products = tf.reshape(tf.matmul(x, x, transpose_b=True), [-1, count * count])

            def gradient(upstream: tf.Tensor) -> tf.Tensor:
                if self.self_interaction:  # x.x depends on x twice
                    upstream *= tf.constant(self._multiplicity, upstream.dtype)
                or_zero = tf.pad(tf.transpose(upstream), [[0, 1], [0, 0]])
                symmetric = tf.transpose(tf.gather(or_zero, self._pair_at))
                return tf.matmul(tf.reshape(symmetric, [-1, count, count]), x)

            return tf.transpose(tf.gather(tf.transpose(products), self._triangle)), gradient

        return lower_triangle(vectors)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return super().get_config() | {"self_interaction": self.self_interaction}


def triangle_runs(count: int, self_interaction: bool) -> list[tuple[int, int]]:
    """Returns where the lower triangle of `count` vectors is in their products [count * count], row by row."""
    ends = ((i * count, i * count + i + self_interaction) for i in range(count))
    return [(begin, end) for begin, end in ends if end > begin]


def dot_products(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """Returns [B, m, n] from [B, m, D] and [B, n, D]; fast even if B is 1.

    On a CPU, oneDNN replaces `tf.matmul` by an operation of 75 microseconds for a batch of 1, most of DLRM's time.
    BatchMatMulV3 computes the same product, and oneDNN does not replace it.
    """
    return tf.raw_ops.BatchMatMulV3(x=x, y=y, Tout=x.dtype, adj_y=True)


def _vector_count(input_shape: Any) -> int:
    """Returns F, from the shape of one tensor or a list of shapes."""
    if isinstance(input_shape, (list, tuple)) and isinstance(input_shape[0], (list, tuple, tf.TensorShape)):
        shapes = [tf.TensorShape(s) for s in input_shape]
        if any(s.rank != 2 for s in shapes) or len({s[1] for s in shapes}) > 1:
            raise ValueError(f"inputs of shapes {[str(s) for s in shapes]}; each must be [B, D], with one D for all")
        return len(shapes)
    shape = tf.TensorShape(input_shape)
    if shape.rank != 3 or shape[1] is None:
        raise ValueError(f"input of shape {shape}; [B, F, D] with a static F is needed, or a list of F tensors [B, D]")
    return shape[1]
