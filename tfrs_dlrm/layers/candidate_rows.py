"""Rows of candidates, whose columns of the context are stored and multiplied once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from tfrs_dlrm.layers.side_by_side import whole_parts


class SplitKernels:
    """The rows of kernels for the columns of contexts, and those for the columns of candidates; made once per kernel.

    Attributes:
      variables: all that were made, to be saved with what uses them.
    """

    def __init__(self) -> None:
        self.variables: list[tf.Variable] = []
        self._parts: dict[tuple[int, bytes], tuple[tf.Variable, tf.Variable]] = {}

    def __call__(self, kernel: tf.Variable, columns: np.ndarray, shared: int) -> tuple[tf.Variable, tf.Variable]:
        """Returns the kernels [shared, units] and [n - shared, units].

        Args:
          kernel: [n, units].
          columns: the rows of the kernel in their new order, those of contexts first.
          shared: how many of them are of contexts.
        """
        key = id(kernel), columns.tobytes()
        if key not in self._parts:
            with tf.init_scope():  # outside of the function that is traced
                values = kernel.numpy()
                parts = [tf.Variable(values[part], trainable=False) for part in np.split(columns, [shared])]
            self.variables += parts
            self._parts[key] = parts[0], parts[1]
        return self._parts[key]


class CandidateRows:
    """Rows [C * N, n, ...] of N candidates for each of C contexts, without copies of the columns of contexts.

    TensorFlow takes it for the tensor of all rows, with the copies. Layers that know it compute less: its methods apply
    to the columns of contexts once, and not once per candidate. It is of inference in float32: kernels are copied when
    they are first used.

    Args:
      context: [C, a, ...], the columns that the candidates of a context share.
      candidate: [C * N, b, ...], the columns that differ; None if all are shared.
      order: for each of the n = a + b columns, its place in concat(context, candidate).
      count: N, int32 [].
      kernels: splits kernels.
    """

    def __init__(
        self,
        context: tf.Tensor,
        candidate: tf.Tensor | None,
        order: np.ndarray,
        count: tf.Tensor,
        kernels: SplitKernels,
    ) -> None:
        self.context, self.candidate, self.order = context, candidate, order
        self.count, self.kernels = count, kernels
        self.dtype = context.dtype
        self.shape = tf.TensorShape([None, len(order), *context.shape[2:]])
        self._shared = context.shape[1]

    @property
    def same_for_all(self) -> bool:
        """Whether the candidates of a context share all columns."""
        return self.candidate is None

    def __tf_tensor__(self, dtype: tf.DType | None = None, name: str | None = None) -> tf.Tensor:
        """Returns the tensor of all rows, for operations that are given this."""
        del name
        if dtype is not None and dtype != self.dtype:
            raise TypeError(f"rows of {self.dtype.name} are taken for {dtype.name}; cast them first")
        copies = self._copied(self.context)
        if self.candidate is None:
            return copies
        of_candidates = self.order >= self._shared
        begins_run = (np.diff(self.order) != 1) | (np.diff(of_candidates.astype(int)) != 0)
        pieces = []
        for run in np.split(self.order, 1 + np.flatnonzero(begins_run)):
            source, skipped = (self.candidate, self._shared) if run[0] >= self._shared else (copies, 0)
            pieces.append(source[:, run[0] - skipped : run[-1] + 1 - skipped])
        return tf.concat(pieces, axis=1)

    def __getitem__(self, key: Any) -> Any:
        """Returns some columns, or a part of each, `rows[:, a:b, ...]`, as such rows; other parts as tensors."""
        if not (isinstance(key, tuple) and len(key) > 1 and key[0] == slice(None) and isinstance(key[1], slice)):
            return tf.convert_to_tensor(self)[key]
        columns = self if key[1] == slice(None) else self._columns(self.order[key[1]])
        inner = (slice(None), slice(None), *key[2:])
        return apply(lambda x: x[inner], columns)

    def _columns(self, places: np.ndarray) -> Rows:
        """Returns the columns that are at these places of concat(context, candidate)."""
        if not len(places):
            return tf.convert_to_tensor(self)[:, :0]
        shared = places < self._shared
        candidate = tf.gather(self.candidate, places[~shared] - self._shared, axis=1) if not shared.all() else None
        if not shared.any():
            return candidate
        context = tf.gather(self.context, places[shared], axis=1)
        return CandidateRows(context, candidate, _places(shared), self.count, self.kernels)

    def __mul__(self, other: Any) -> Any:
        """Returns the products of numbers with those in the same place; such rows if all of `other` is shared."""
        if not isinstance(other, CandidateRows) or not other.same_for_all:
            return tf.convert_to_tensor(self) * other
        if self.candidate is None:
            return self._with(self.context * other.context, None)
        of_context, of_candidate = self._split(other.context, axis=1)
        return self._with(self.context * of_context, self.candidate * self._copied(of_candidate))

    def map(self, function: Callable[..., tf.Tensor], *by_column: tf.Tensor) -> CandidateRows:
        """Applies a function to the columns of contexts, and to those of candidates.

        Args:
          function: maps tensors [R, m, ...] to [R, m, ...]; its further arguments are the entries of `by_column` for
            these m columns.
          *by_column: tensors [n, ...].
        """
        if self.candidate is None:
            return self._with(function(self.context, *by_column), None)
        split = [self._split(x, axis=0) for x in by_column]
        context = function(self.context, *(of_context for of_context, _ in split))
        return self._with(context, function(self.candidate, *(of_candidate for _, of_candidate in split)))

    def times(
        self,
        kernel: tf.Variable,
        bias: tf.Tensor | None = None,
        activation: Callable[[tf.Tensor], tf.Tensor] | None = None,
    ) -> tf.Tensor:
        """Returns activation(rows x kernel + bias), [C * N, units], of rows [C * N, n] and a kernel [n, units]."""
        of_context, of_candidate = self.kernels(kernel, np.argsort(self.order), self._shared)
        function = activation or tf.identity

        def each() -> tf.Tensor:
            return tf.matmul(self.candidate, of_candidate)

        if not self._shared:  # oneDNN ends the process where a matrix without columns is multiplied and a bias added
            return function(each() if bias is None else tf.nn.bias_add(each(), bias))
        once = tf.matmul(self.context, of_context)
        once = once if bias is None else tf.nn.bias_add(once, bias)
        return tf.cond(  # for one context, TensorFlow makes one operation of product, sum and activation
            tf.shape(once)[0] == 1,
            lambda: function(tf.nn.bias_add(each(), once[0])),
            lambda: function(added_to_each(each(), once)),
        )

    def sum(self) -> tf.Tensor:
        """Returns the sum of the columns, [C * N, ...]."""
        once = tf.reduce_sum(self.context, axis=1)
        if self.candidate is None:
            return self._copied(once)
        return added_to_each(tf.reduce_sum(self.candidate, axis=1), once)

    def flattened(self) -> CandidateRows:
        """Returns rows [C * N, n, D] as [C * N, n D]."""
        dim = self.shape[2]
        order = (self.order[:, None] * dim + np.arange(dim)).reshape(-1)
        flat = [None if x is None else tf.reshape(x, [-1, x.shape[1] * dim]) for x in (self.context, self.candidate)]
        return CandidateRows(flat[0], flat[1], order, self.count, self.kernels)

    def _with(self, context: tf.Tensor, candidate: tf.Tensor | None) -> CandidateRows:
        """Returns rows of the same columns with other contents."""
        order = np.arange(context.shape[1]) if candidate is None else self.order
        return CandidateRows(context, candidate, order, self.count, self.kernels)

    def _split(self, x: tf.Tensor, axis: int) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the entries of a tensor for the columns of contexts, and for those of candidates."""
        columns = np.split(np.argsort(self.order), [self._shared])
        return tf.gather(x, columns[0], axis=axis), tf.gather(x, columns[1], axis=axis)

    def _copied(self, x: tf.Tensor) -> tf.Tensor:
        """Copies each of C rows for its N candidates."""
        return tf.reshape(tf.repeat(x, self.count, axis=0), [-1, *x.shape[1:]])


Rows: TypeAlias = tf.Tensor | CandidateRows


def concatenate(parts: Sequence[Rows]) -> Rows:
    """Returns rows of the columns of all parts, one after the other; `CandidateRows` if one of them is that."""
    known = next((x for x in parts if isinstance(x, CandidateRows)), None)
    if known is None:
        whole = whole_parts(parts)
        return tf.concat(whole, axis=1) if len(whole) > 1 else whole[0]
    contexts = [x.context for x in parts if isinstance(x, CandidateRows)]
    candidates = [x.candidate if isinstance(x, CandidateRows) else x for x in parts]
    candidates = [x for x in candidates if x is not None]
    order, shared, own = [], 0, sum(x.shape[1] for x in contexts)  # shared, own: the next places of the two kinds
    for part in parts:
        is_known = isinstance(part, CandidateRows)
        places = part.order if is_known else np.arange(part.shape[1])
        of_context = part.context.shape[1] if is_known else 0
        order.append(np.where(places < of_context, shared + places, own + places - of_context))
        shared, own = shared + of_context, own + len(places) - of_context
    return CandidateRows(
        tf.concat(contexts, axis=1),
        tf.concat(candidates, axis=1) if candidates else None,
        np.concatenate(order),
        known.count,
        known.kernels,
    )


def apply(function: Callable[..., tf.Tensor], rows: Rows, *by_column: tf.Tensor) -> Rows:
    """Applies a function that treats each column by itself; see `CandidateRows.map`."""
    return rows.map(function, *by_column) if isinstance(rows, CandidateRows) else function(rows, *by_column)


def summed(rows: Rows) -> tf.Tensor:
    """Returns the sum of the columns of rows [B, n, ...]."""
    return rows.sum() if isinstance(rows, CandidateRows) else tf.reduce_sum(rows, axis=1)


def added_to_each(x: tf.Tensor, once: tf.Tensor) -> tf.Tensor:
    """Adds `once` [C, units] to `x` [C * N, units], for each candidate of its context."""
    apart = tf.reshape(x, [tf.shape(once)[0], -1, *once.shape[1:]])
    return tf.reshape(apart + once[:, tf.newaxis], [-1, *once.shape[1:]])


def stack(vectors: Sequence[Rows]) -> Rows:
    """Returns vectors [B, D] as rows [B, n, D], a column for each; `CandidateRows` if one of them is that."""
    known = next((x for x in vectors if isinstance(x, CandidateRows)), None)
    if known is None:
        return _stacked(vectors)
    shared = np.array([isinstance(x, CandidateRows) and x.same_for_all for x in vectors])
    contexts = [x.context for x, once in zip(vectors, shared, strict=True) if once]
    candidates = [x for x, once in zip(vectors, shared, strict=True) if not once]
    if not contexts:
        return tf.stack(candidates, axis=1)
    candidate = tf.stack(candidates, axis=1) if candidates else None
    return CandidateRows(tf.stack(contexts, axis=1), candidate, _places(shared), known.count, known.kernels)


def _stacked(vectors: Sequence[tf.Tensor]) -> tf.Tensor:
    """Returns tensors [B, D] as one, [B, n, D]."""
    parts = whole_parts(vectors)
    if len(parts) == len(vectors):
        return tf.stack(vectors, axis=1)
    dim = vectors[0].shape[1]
    columns = [tf.reshape(x, [-1, x.shape[1] // dim, dim]) for x in parts]
    return tf.concat(columns, axis=1) if len(columns) > 1 else columns[0]


def _places(shared: np.ndarray) -> np.ndarray:
    """Returns where columns are in concat(context, candidate), if those of contexts are `shared` and none is moved."""
    return np.where(shared, np.cumsum(shared), np.sum(shared) + np.cumsum(~shared)) - 1
