"""Logistic regression."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfrs_dlrm.layers.factorization import Bias, DenseVectors
from tfrs_dlrm.layers.hashing import derive_seed
from tfrs_dlrm.models.model_inputs import check_no_sequences, check_one_label, looked_up
from tfrs_dlrm.models.ranking import RankingModel
from tfrs_dlrm.schema import Schema


@keras.utils.register_keras_serializable(package="tfrs_dlrm")
class LogisticRegression(RankingModel):
    """A weight for each value and each number, added up.

        logit = b + sum_i w_i(value of feature i) + sum_j w_j x_j

    The weights of a feature's values are its table, of dimension 1: [B, 1] each. Several values of one feature are
    combined as its table says.

    Args:
      schema: of the features; tables of dimension 1, no sequences.
      seed: makes all initial weights a function of it.

    Raises:
      ValueError: a feature is a sequence or a table has another dimension.
    """

    def __init__(self, schema: Schema, seed: int = 0, **kwargs: Any) -> None:
        check_no_sequences("LogisticRegression", schema)
        check_one_label("LogisticRegression", schema)
        dims = {t.name: t.dim for t in looked_up(schema)}
        if set(dims.values()) - {1}:
            raise ValueError(f"tables of dimensions {dims}: LogisticRegression needs 1 for all; see Schema.with_dim")
        super().__init__(schema, seed, **kwargs)
        if schema.dense:
            self.dense_weights = DenseVectors(1, derive_seed(seed, "dense"), dtype="float32", name="dense_weights")
        self.bias = Bias(dtype="float32", name="bias")

    def compute_logits(self, dense: tf.Tensor | None, embeddings: list[tf.Tensor], training: bool) -> tf.Tensor:
        """Logits [B, 1]; see the class."""
        terms = [tf.cast(w, tf.float32) for w in embeddings]
        if dense is not None:
            terms.append(tf.reduce_sum(self.dense_weights(dense), axis=1))
        return self.bias(tf.add_n(terms))
