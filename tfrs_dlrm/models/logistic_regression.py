"""Logistic regression over categorical values and dense features."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfrs_dlrm.layers.serializable import serializable
from tfrs_dlrm.models.model_inputs import check_no_sequences, check_one_label, looked_up
from tfrs_dlrm.models.ranking import RankingModel
from tfrs_dlrm.schema import Schema


@serializable
class LogisticRegression(RankingModel):
    """Logistic regression: the sum of a weight per categorical value and a weight per dense feature.

        logit = b + sum_i w_i(value of feature i) + sum_j w_j x_j

    The table of a categorical feature holds the weights of its values, so it has dimension 1. Multiple values are
    pooled with the table's `combiner`. The output of `compute_logits` is [B, 1].

    Args:
      schema: of the features; all tables have dimension 1, no sequences, one label.
      seed: determines all initial weights.

    Raises:
      ValueError: a feature is a sequence, the schema has several labels, or a table has another dimension.
    """

    def __init__(self, schema: Schema, seed: int = 0, **kwargs: Any) -> None:
        check_no_sequences("LogisticRegression", schema)
        check_one_label("LogisticRegression", schema)
        dims = {t.name: t.dim for t in looked_up(schema)}
        if set(dims.values()) - {1}:
            raise ValueError(
                f"tables have dimensions {dims}; LogisticRegression needs 1 for all; Schema.with_dim(1) sets it"
            )
        super().__init__(schema, seed, **kwargs)
        self.dense_weights = self.make_dense_vectors(1, "dense_weights")
        self.bias = self.make_bias()

    def compute_logits(self, dense: tf.Tensor | None, embeddings: list[tf.Tensor], training: bool) -> tf.Tensor:
        """Computes logits [B, 1]; see `RankingModel.compute_logits`."""
        terms = [tf.cast(w, tf.float32) for w in embeddings]
        if self.dense_weights is not None:
            terms.append(tf.reduce_sum(self.dense_weights(dense), axis=1))
        return self.bias(tf.add_n(terms))
