"""How served models score: rows, or many candidates for one context, whose shared work is done once.

A request has C contexts with N candidates each. The features of a context are shared by its candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
import tensorflow as tf
import tensorflow_recommenders as tfrs
import tf_keras as keras

from tfrs_dlrm.layers.candidate_rows import CandidateRows, SplitKernels
from tfrs_dlrm.schema import Schema


class Inputs(NamedTuple):
    """The inputs of a model for R rows, of all features or of a part of them.

    Attributes:
      dense: float32 [R, width], or None.
      vectors: [R, dim], or [R, sequence_length, dim], per categorical feature; or all in one tensor [R, n, dim].
      lengths: int32 [R], how many events count, by `length_key` of each history whose events are in `vectors`.
    """

    dense: tf.Tensor | None
    vectors: list[tf.Tensor] | tf.Tensor
    lengths: Mapping[str, tf.Tensor] = {}  # a dict, which tf.function can take apart

    def one_by_one(self) -> list[tf.Tensor]:
        """Returns the vectors of each feature."""
        return tf.unstack(self.vectors, axis=1) if isinstance(self.vectors, tf.Tensor) else self.vectors


class RowScorer(Protocol):
    """Computes the logits of R rows."""

    def __call__(self, inputs: Inputs) -> tf.Tensor:
        """Returns logits, float32 [R], or [R, labels] for several labels."""


class CandidateScorer(Protocol):
    """Computes the logits of the candidates of each context."""

    def __call__(self, context: Inputs, candidate: Inputs, count: tf.Tensor) -> tf.Tensor:
        """Returns logits, float32 [C * N], or [C * N, labels] for several labels.

        Args:
          context: C rows.
          candidate: C * N rows.
          count: N, the number of candidates per context.
        """


class ModelScorer(tf.Module):
    """A `RowScorer` that calls any model.

    Args:
      call: maps (features, activations=vectors, training=False) to logits.
      layers: the layers that `call` uses, to be saved with the served model.
    """

    def __init__(self, call: Callable[..., tf.Tensor], layers: Sequence[keras.layers.Layer]):
        super().__init__(name="rows")
        self._call = call
        self.layers = list(layers)

    def __call__(self, inputs: Inputs) -> tf.Tensor:
        """See `RowScorer.__call__`."""
        features = dict(inputs.lengths)
        if inputs.dense is not None:
            features["dense"] = inputs.dense
        return self._call(features, activations=inputs.one_by_one(), training=False)


class BroadcastScorer(tf.Module):
    """A `CandidateScorer` for any model, which copies the inputs of a context for each of its candidates.

    Args:
      rows: scores the copies.
      schema: of the model.
      context: the part of the schema that candidates share.
      candidate: the part of the schema that differs between candidates.
    """

    def __init__(self, rows: RowScorer, schema: Schema, context: Schema, candidate: Schema):
        super().__init__(name="candidates")
        self._rows = rows
        self._dense = DenseColumns(schema, context, candidate)
        self._positions = _positions(schema, context, candidate)

    def __call__(self, context: Inputs, candidate: Inputs, count: tf.Tensor) -> tf.Tensor:
        """See `CandidateScorer.__call__`."""
        vectors = [*(tf.repeat(v, count, axis=0) for v in context.one_by_one()), *candidate.one_by_one()]
        dense = self._dense(context.dense, candidate.dense, count)
        lengths = {key: tf.repeat(n, count) for key, n in context.lengths.items()} | dict(candidate.lengths)
        return self._rows(Inputs(dense, [vectors[i] for i in self._positions], lengths))


class SharedScorer(tf.Module):
    """A `CandidateScorer` for models whose layers take `CandidateRows`, and compute what candidates share once.

    Args:
      rows: scores rows, by layers in float32.
      schema: of the model, with the dimensions of the vectors that it reads.
      context: the part of the schema that candidates share; at least one feature.
      candidate: the part of the schema that differs between candidates.
    """

    def __init__(self, rows: RowScorer, schema: Schema, context: Schema, candidate: Schema):
        super().__init__(name="candidates")
        self._rows = rows
        self._positions = _positions(schema, context, candidate)
        self._dense_order = np.array(DenseColumns(schema, context, candidate).order)
        self._kernels = SplitKernels()
        dims = {f.name: schema.table_of(f).dim for f in schema.categorical}
        self(_zeros(context, dims), _zeros(candidate, dims), tf.constant(1))  # makes the kernels
        self.kernels = self._kernels.variables

    def __call__(self, context: Inputs, candidate: Inputs, count: tf.Tensor) -> tf.Tensor:
        """See `CandidateScorer.__call__`."""

        def shared(x: tf.Tensor) -> CandidateRows:
            return CandidateRows(x, None, np.arange(x.shape[1]), count, self._kernels)

        vectors = [*map(shared, context.one_by_one()), *candidate.one_by_one()]
        dense: Any = candidate.dense
        if context.dense is not None and candidate.dense is None:
            dense = shared(context.dense)
        elif context.dense is not None:
            dense = CandidateRows(context.dense, candidate.dense, self._dense_order, count, self._kernels)
        return self._rows(Inputs(dense, [vectors[i] for i in self._positions]))


class Scored:
    """The scorers of a `RankingModel` in serving, which fit every model that has `compute_logits`."""

    reads_histories: ClassVar[bool]
    schema: Schema
    embeddings: Any
    layers: Sequence[Any]
    compute_dtype: str
    _rows_schema: Schema
    _checked_logits: Callable[..., tf.Tensor]
    _logits_of_vectors: Callable[..., tf.Tensor]

    def row_scorer(self) -> RowScorer:
        """Returns the function that computes the logits of rows in a served model.

        It gets one vector for each history, or with `reads_histories` those of its events. Subclasses override it if
        they need fewer operations in serving.
        """
        layers = [x for x in self.layers if x is not self.embeddings and not isinstance(x, tfrs.tasks.Task)]
        return ModelScorer(self._checked_logits if self.reads_histories else self._logits_of_vectors, layers)

    def candidate_scorer(self, context: Schema, candidate: Schema) -> CandidateScorer:
        """Returns the function that computes the logits of many candidates for one context in a served model.

        It gets the vectors of `row_scorer`. Subclasses override it if they can share work between candidates.

        Args:
          context: the part of the schema that the candidates of a request share.
          candidate: the part of the schema that differs between candidates.
        """
        if self._shares(context):
            return SharedScorer(Scored.row_scorer(self), self._rows_schema, context, candidate)
        return BroadcastScorer(self.row_scorer(), self.schema, context, candidate)

    def _shares(self, context: Schema) -> bool:
        """Returns whether the layers of the model can compute once what candidates share."""
        author = next(kind for kind in type(self).__mro__ if "compute_logits" in vars(kind))
        takes = vars(author).get("takes_candidate_rows", False)
        return takes and self.compute_dtype == "float32" and bool(context.categorical or context.dense)


def _positions(schema: Schema, context: Schema, candidate: Schema) -> list[int]:
    """Returns where the categorical features of a schema are among those of its two parts."""
    names = [f.name for part in (context, candidate) for f in part.categorical]
    return [names.index(f.name) for f in schema.categorical]


def _zeros(part: Schema, dims: Mapping[str, int]) -> Inputs:
    """Returns inputs of one row."""
    dense = tf.zeros([1, part.dense_width]) if part.dense else None
    return Inputs(dense, [tf.zeros([1, dims[f.name]]) for f in part.categorical])


class DenseColumns:
    """Joins the dense columns of contexts and candidates, in the order of the schema.

    Args:
      schema: of the model.
      context: the part of the schema that candidates share.
      candidate: the part of the schema that differs between candidates.

    Attributes:
      order: for each column of the schema, its place among those of the context and the candidate.
    """

    def __init__(self, schema: Schema, context: Schema, candidate: Schema):
        columns = [*context.dense_columns, *candidate.dense_columns]
        self.order = [columns.index(name) for name in schema.dense_columns]

    def __call__(self, context: tf.Tensor | None, candidate: tf.Tensor | None, count: tf.Tensor) -> tf.Tensor | None:
        """Returns float32 [C * N, width] from [C, context's width] and [C * N, candidate's width]."""
        if context is None:
            return candidate
        copies = tf.repeat(context, count, axis=0)
        if candidate is None:
            return copies
        return tf.gather(tf.concat([copies, candidate], axis=1), self.order, axis=1)
