"""A plain MLP over all features, as in Covington et al. 2016, "Deep Neural Networks for YouTube Recommendations"."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfrs_dlrm.layers.hashing import derive_seed
from tfrs_dlrm.layers.mlp import MLP
from tfrs_dlrm.models.model_inputs import check_no_sequences, check_top_mlp, concatenated
from tfrs_dlrm.models.ranking import RankingModel
from tfrs_dlrm.schema import Schema


@keras.utils.register_keras_serializable(package="tfrs_dlrm")
class EmbeddingMLP(RankingModel):
    """An MLP over embeddings and numbers side by side.

        logit = MLP(concat(v_1, ..., v_n, x))

    Args:
      schema: of the features; none is a sequence. Tables may have any dimensions.
      top_mlp: outputs of the MLP's layers, ReLU after each but the last, which is the logit: 1. Several labels
        have one each.
      dropout: the share of the MLP's hidden outputs that training drops.
      batch_norm: whether the MLP's hidden layers are normalized.
      seed: makes all initial weights a function of it.

    Raises:
      ValueError: a feature is a sequence, or the MLP does not end in 1.
    """

    def __init__(
        self,
        schema: Schema,
        top_mlp: Sequence[int] = (512, 256, 1),
        dropout: float = 0.0,
        batch_norm: bool = False,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        check_no_sequences("EmbeddingMLP", schema)
        check_top_mlp(top_mlp)
        super().__init__(schema, seed, **kwargs)
        units = (*top_mlp[:-1], len(schema.labels))
        self.top_mlp = MLP(
            units, seed=derive_seed(seed, "top_mlp"), dropout=dropout, batch_norm=batch_norm, name="top_mlp"
        )

    def compute_logits(self, dense: tf.Tensor | None, embeddings: list[tf.Tensor], training: bool) -> tf.Tensor:
        """Logits [B, labels]; see the class."""
        return self.top_mlp(concatenated(dense, embeddings), training=training)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor, the schema as JSON."""
        return super().get_config() | {
            "top_mlp": [*self.top_mlp.units[:-1], 1],
            "dropout": self.top_mlp.dropout,
            "batch_norm": self.top_mlp.batch_norm,
        }
