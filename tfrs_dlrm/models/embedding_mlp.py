"""A plain MLP over all features, as in Covington et al. 2016, "Deep Neural Networks for YouTube Recommendations"."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfrs_dlrm.layers.serializable import serializable
from tfrs_dlrm.messages.arguments import Count
from tfrs_dlrm.models.model_inputs import check_no_sequences, check_top_mlp, concatenated
from tfrs_dlrm.models.towers import TowerModel
from tfrs_dlrm.schema import Schema


@serializable
class EmbeddingMLP(TowerModel):
    """An MLP over the concatenation of all features.

        logit = MLP(concat(v_1, ..., v_n, x))

    v_i is the vector of categorical feature i, and x the dense features [B, schema.unprojected_width]. The output of
    `compute_logits` is [B, L] for L labels.

    Args:
      schema: of the features; no sequences. Tables may have any dimensions.
      top_mlp: outputs of the MLP's layers, with ReLU after each but the last, which must be 1. With several labels, the
        last layer has an output per label; see also `sharing`.
      dropout: the share of the MLP's hidden outputs that training drops, from 0 up to 1.
      batch_norm: whether the MLP's hidden layers are batch normalized.
      seed: determines all initial weights.
      **kwargs: arguments of `TowerModel`, such as `sharing`: what several labels share.

    Raises:
      ValueError: a feature is a sequence, or `top_mlp` does not end in 1.
    """

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
        check_no_sequences("EmbeddingMLP", schema)
        check_top_mlp(top_mlp)
        super().__init__(schema, seed, **kwargs)
        self.top_mlp = self.make_top_mlp(top_mlp, dropout, batch_norm)

    def compute_logits(self, dense: tf.Tensor | None, embeddings: list[tf.Tensor], training: bool) -> tf.Tensor:
        """Computes logits [B, L]; see `RankingModel.compute_logits`."""
        return self.top_mlp(concatenated(dense, embeddings), training=training)

    def get_config(self) -> dict[str, Any]:
        """See `RankingModel.get_config`."""
        return super().get_config() | {
            "top_mlp": [*self.top_mlp.units[:-1], 1],
            "dropout": self.top_mlp.dropout,
            "batch_norm": self.top_mlp.batch_norm,
        }
