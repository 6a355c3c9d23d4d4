"""Factorization machines (Rendle 2010, "Factorization Machines", ICDM)."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfrs_dlrm.layers.candidate_rows import Rows, apply, summed
from tfrs_dlrm.layers.serializable import serializable
from tfrs_dlrm.models.model_inputs import check_no_sequences, check_one_label, stacked, vector_dim
from tfrs_dlrm.models.ranking import RankingModel
from tfrs_dlrm.schema import Schema


@serializable
class FactorizationMachine(RankingModel):
    """A factorization machine: a linear weight per feature, and a dot product per pair of features.

        logit = b + sum_i w_i x_i + sum_{i<j} (v_i . v_j) x_i x_j

    A categorical feature has x_i = 1, and its value selects w_i and v_i: a row of its table is v_i [D] followed by w_i,
    D + 1 numbers, where D is `dim` of all tables. A dense feature has one w_i and one v_i. Multiple values of a feature
    are pooled with the table's `combiner` into one v_i, and are not multiplied with each other. The output of
    `compute_logits` is [B].

    Args:
      schema: of the features; at least one categorical feature, no sequences, one label.
      seed: determines all initial weights.

    Raises:
      ValueError: a feature is a sequence, the schema has several labels or no categorical feature, or the tables differ
        in dimension.
    """

    linear_weights = True

    def __init__(self, schema: Schema, seed: int = 0, **kwargs: Any) -> None:
        check_no_sequences("FactorizationMachine", schema)
        check_one_label("FactorizationMachine", schema)
        dim = vector_dim("FactorizationMachine", schema, schema.categorical)
        super().__init__(schema, seed, **kwargs)
        self.dense_vectors = self.make_dense_vectors(dim + 1)
        self.bias = self.make_bias()

    def compute_logits(self, dense: tf.Tensor | None, embeddings: list[tf.Tensor], training: bool) -> tf.Tensor:
        """Computes logits [B]; see `RankingModel.compute_logits`."""
        return self.bias(linear_and_pairs(stacked(embeddings, dense, self.dense_vectors, tf.float32)))


def linear_and_pairs(rows: Rows) -> tf.Tensor:
    """Returns sum_i w_i + sum_{i<j} v_i . v_j, [B], in time linear in F (Rendle 2010, lemma 3.1).

    Args:
      rows: [B, F, D + 1]: v_i [D] and w_i, multiplied by x_i. The difference of squares needs float32.
    """
    v = rows[:, :, :-1]
    pairs = tf.square(summed(v)) - summed(apply(tf.square, v))
    return summed(rows[:, :, -1:])[:, 0] + 0.5 * tf.reduce_sum(pairs, axis=1)
