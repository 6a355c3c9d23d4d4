"""Many candidates for one context: what their scores share is computed once."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import tensorflow as tf

from tfrs_dlrm.schema import Schema


class Inputs(NamedTuple):
    """What a model takes, of some of its features, R rows.

    Attributes:
      dense: float32 [R, width], or None.
      vectors: [R, dim], or [R, sequence_length, dim], of each categorical feature, or all in one tensor [R, n, dim].
    """

    dense: tf.Tensor | None
    vectors: list[tf.Tensor] | tf.Tensor

    def one_by_one(self) -> list[tf.Tensor]:
        """The vectors of each feature."""
        return tf.unstack(self.vectors, axis=1) if isinstance(self.vectors, tf.Tensor) else self.vectors


class CandidateScorer(Protocol):
    """Logits of the candidates of each of some contexts."""

    def __call__(self, context: Inputs, own: Inputs, candidates: tf.Tensor) -> tf.Tensor:
        """Float32 [C * N], of C contexts (rows of `context`) with N = `candidates` each (C * N rows of `own`)."""


class Broadcast:
    """For any model: the inputs of a context are copied for each of its candidates.

    Args:
      call: of the model: `(features, activations=vectors, training=False)` to logits.
      schema: of the model.
      context: the part of the schema that candidates share.
      own: the rest.
    """

    def __init__(self, call: Callable[..., tf.Tensor], schema: Schema, context: Schema, own: Schema):
        self._call = call
        names = [f.name for part in (context, own) for f in part.categorical]
        self._positions = [names.index(f.name) for f in schema.categorical]
        columns = [*context.dense_columns, *own.dense_columns]
        self._order = [columns.index(name) for name in schema.dense_columns]

    def __call__(self, context: Inputs, own: Inputs, candidates: tf.Tensor) -> tf.Tensor:
        """See `CandidateScorer`."""
        vectors = [*(tf.repeat(v, candidates, axis=0) for v in context.one_by_one()), *own.one_by_one()]
        dense = self.dense(context, own, candidates)
        features = {} if dense is None else {"dense": dense}
        return self._call(features, activations=[vectors[i] for i in self._positions], training=False)

    def dense(self, context: Inputs, own: Inputs, candidates: tf.Tensor) -> tf.Tensor | None:
        """The dense columns of each candidate, in the order of the schema."""
        if context.dense is None:
            return own.dense
        shared = tf.repeat(context.dense, candidates, axis=0)
        return shared if own.dense is None else tf.gather(tf.concat([shared, own.dense], axis=1), self._order, axis=1)
