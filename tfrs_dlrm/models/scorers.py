"""How served models score: rows, or many candidates for one context, whose shared work is done once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import tensorflow as tf
import tf_keras as keras

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


class RowScorer(Protocol):
    """What `RankingModel.compute_logits` says of rows."""

    def __call__(self, inputs: Inputs) -> tf.Tensor:
        """Float32 [R], or [R, labels] where there are several."""


class CandidateScorer(Protocol):
    """What `RankingModel.compute_logits` says of the candidates of each of some contexts."""

    def __call__(self, context: Inputs, own: Inputs, candidates: tf.Tensor) -> tf.Tensor:
        """Float32 [C * N], or [C * N, labels] where there are several.

        Args:
          context: C rows.
          own: C * N rows.
          candidates: N, of each context.
        """


class Rows(tf.Module):
    """For any model.

    Args:
      call: of the model: `(features, activations=vectors, training=False)` to logits.
      layers: that `call` uses, to be saved with what is served.
    """

    def __init__(self, call: Callable[..., tf.Tensor], layers: Sequence[keras.layers.Layer]):
        super().__init__(name="rows")
        self._call = call
        self.layers = list(layers)

    def __call__(self, inputs: Inputs) -> tf.Tensor:
        """See `RowScorer`."""
        features = {} if inputs.dense is None else {"dense": inputs.dense}
        return self._call(features, activations=inputs.one_by_one(), training=False)


class Broadcast(tf.Module):
    """For any model: the inputs of a context are copied for each of its candidates.

    Args:
      rows: of the model.
      schema: of the model.
      context: the part of the schema that candidates share.
      own: the rest.
    """

    def __init__(self, rows: RowScorer, schema: Schema, context: Schema, own: Schema):
        super().__init__(name="candidates")
        self._rows = rows
        self._dense = DenseColumns(schema, context, own)
        names = [f.name for part in (context, own) for f in part.categorical]
        self._positions = [names.index(f.name) for f in schema.categorical]

    def __call__(self, context: Inputs, own: Inputs, candidates: tf.Tensor) -> tf.Tensor:
        """See `CandidateScorer`."""
        vectors = [*(tf.repeat(v, candidates, axis=0) for v in context.one_by_one()), *own.one_by_one()]
        dense = self._dense(context.dense, own.dense, candidates)
        return self._rows(Inputs(dense, [vectors[i] for i in self._positions]))


class DenseColumns:
    """The dense columns of candidates, of which some are of their context; in the order of the schema.

    Args:
      schema: of the model.
      context: the part of the schema that candidates share.
      own: the rest.
    """

    def __init__(self, schema: Schema, context: Schema, own: Schema):
        columns = [*context.dense_columns, *own.dense_columns]
        self._order = [columns.index(name) for name in schema.dense_columns]

    def __call__(self, shared: tf.Tensor | None, own: tf.Tensor | None, candidates: tf.Tensor) -> tf.Tensor | None:
        """Float32 [C * N, width] of [C, width of the context] and [C * N, width of the candidates]."""
        if shared is None:
            return own
        copies = tf.repeat(shared, candidates, axis=0)
        return copies if own is None else tf.gather(tf.concat([copies, own], axis=1), self._order, axis=1)
