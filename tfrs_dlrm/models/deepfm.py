"""DeepFM (Guo et al. 2017, arXiv 1703.04247)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfrs_dlrm.layers.candidate_rows import apply
from tfrs_dlrm.layers.serializable import serializable
from tfrs_dlrm.messages.arguments import Count
from tfrs_dlrm.models.factorization_machine import linear_and_pairs
from tfrs_dlrm.models.model_inputs import (
    check_no_sequences,
    check_one_label,
    check_top_mlp,
    side_by_side,
    stacked,
    vector_dim,
)
from tfrs_dlrm.models.ranking import RankingModel
from tfrs_dlrm.schema import Schema


@serializable
class DeepFM(RankingModel):
    """DeepFM: a factorization machine and an MLP over the same vectors.

        logit = FM(x) + MLP(concat(x_1 v_1, ..., x_n v_n))
        FM(x) = sum_i w_i x_i + sum_{i<j} (v_i . v_j) x_i x_j

    As in `FactorizationMachine`, each of the n features has a vector v_i [D], where D is `dim` of all tables, and a
    weight w_i, the last of the D + 1 numbers of a row. The vectors of dense features are included in the MLP's input
    [B, n D]. The MLP has the bias. The output of `compute_logits` is [B].

    Args:
      schema: of the features; at least one categorical feature, no sequences, one label.
      top_mlp: outputs of the MLP's layers, with ReLU after each but the last, which must be 1.
      dropout: the share of the MLP's hidden outputs that training drops, from 0 up to 1.
      batch_norm: whether the MLP's hidden layers are batch normalized.
      seed: determines all initial weights.

    Raises:
      ValueError: a feature is a sequence, the schema has several labels or no categorical feature, the tables differ
        in dimension, or `top_mlp` does not end in 1.
    """

    linear_weights = True
    takes_candidate_rows = True

    def __init__(
        self,
        schema: Schema,
        top_mlp: Sequence[Count] = (512, 256, 1),
        dropout: float = 0.0,
        batch_norm: bool = False,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        check_no_sequences("DeepFM", schema)
        check_one_label("DeepFM", schema)
        check_top_mlp(top_mlp)
        dim = vector_dim("DeepFM", schema, schema.categorical)
        super().__init__(schema, seed, **kwargs)
        self.dense_vectors = self.make_dense_vectors(dim + 1)
        self.top_mlp = self.make_top_mlp(top_mlp, dropout, batch_norm)

    def compute_logits(self, dense: tf.Tensor | None, embeddings: list[tf.Tensor], training: bool) -> tf.Tensor:
        """Computes logits [B]; see `RankingModel.compute_logits`."""
        rows = stacked(embeddings, dense, self.dense_vectors, tf.float32)  # [B, n, D + 1]
        vectors = apply(lambda x: tf.cast(x, self.compute_dtype), rows[:, :, :-1])
        deep = self.top_mlp(side_by_side(vectors), training=training)
        return linear_and_pairs(rows) + tf.cast(deep[:, 0], tf.float32)

    def get_config(self) -> dict[str, Any]:
        """See `RankingModel.get_config`."""
        return super().get_config() | {
            "top_mlp": list(self.top_mlp.units),
            "dropout": self.top_mlp.dropout,
            "batch_norm": self.top_mlp.batch_norm,
        }
