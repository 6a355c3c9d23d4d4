"""xDeepFM (Lian et al. 2018, arXiv 1803.05170)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfrs_dlrm.layers.candidate_rows import apply, summed
from tfrs_dlrm.layers.compressed_interaction import CompressedInteraction
from tfrs_dlrm.layers.hashing import derive_seed
from tfrs_dlrm.layers.serializable import serializable
from tfrs_dlrm.messages.arguments import Count
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
class XDeepFM(RankingModel):
    """xDeepFM: a linear model, a compressed interaction network (CIN) and an MLP over the same vectors.

        logit = sum_i w_i x_i + w . CIN(x_1 v_1, ..., x_n v_n) + MLP(concat(x_1 v_1, ..., x_n v_n))

    As in `DeepFM`, each of the n features has a vector v_i [D], where D is `dim` of all tables, and a weight w_i, the
    last of the D + 1 numbers of a row. A categorical feature has x_i = 1. Where DeepFM multiplies all pairs of vectors,
    the CIN learns which products of two and more matter; see `tfrs_dlrm.layers.CompressedInteraction`. The MLP has the
    bias. The output of `compute_logits` is [B, 1].

    Args:
      schema: of the features; at least one categorical feature, no sequences, one label.
      top_mlp: outputs of the MLP's layers, with ReLU after each but the last, which must be 1.
      interaction_maps: the number of feature maps of each layer of the CIN.
      dropout: the share of the MLP's hidden outputs that training drops, from 0 up to 1.
      batch_norm: whether the MLP's hidden layers are batch normalized.
      seed: determines all initial weights.

    Raises:
      ValueError: a feature is a sequence, the schema has several labels or no categorical feature, the tables differ
        in dimension, or `top_mlp` does not end in 1.
    """

    linear_weights = True
    # Products of many numbers amplify rounding more than sums do.
    rounding = 1e-5
    takes_candidate_rows = True

    def __init__(
        self,
        schema: Schema,
        top_mlp: Sequence[Count] = (400, 400, 1),
        interaction_maps: Sequence[Count] = (200, 200, 200),
        dropout: float = 0.0,
        batch_norm: bool = False,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        check_no_sequences("XDeepFM", schema)
        check_one_label("XDeepFM", schema)
        check_top_mlp(top_mlp)
        dim = vector_dim("XDeepFM", schema, schema.categorical)
        super().__init__(schema, seed, **kwargs)
        self.dense_vectors = self.make_dense_vectors(dim + 1)
        self.interaction = CompressedInteraction(
            interaction_maps, derive_seed(seed, "interaction"), dtype=self.dtype_policy, name="interaction"
        )
        self.interaction_logit = self.make_logit("interaction_logit")
        self.top_mlp = self.make_top_mlp(top_mlp, dropout, batch_norm)

    def compute_logits(self, dense: tf.Tensor | None, embeddings: list[tf.Tensor], training: bool) -> tf.Tensor:
        """Computes logits [B, 1]; see `RankingModel.compute_logits`."""
        rows = stacked(embeddings, dense, self.dense_vectors, tf.float32)  # [B, n, D + 1]
        vectors = apply(lambda x: tf.cast(x, self.compute_dtype), rows[:, :, :-1])
        interactions = self.interaction_logit(self.interaction(vectors))
        deep = self.top_mlp(side_by_side(vectors), training=training)
        return summed(rows[:, :, -1:]) + tf.cast(interactions + deep, tf.float32)

    def get_config(self) -> dict[str, Any]:
        """See `RankingModel.get_config`."""
        return super().get_config() | {
            "top_mlp": list(self.top_mlp.units),
            "interaction_maps": list(self.interaction.maps),
            "dropout": self.top_mlp.dropout,
            "batch_norm": self.top_mlp.batch_norm,
        }
