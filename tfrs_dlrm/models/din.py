"""DIN (Zhou et al. 2018, arXiv 1706.06978)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfrs_dlrm.layers.serializable import serializable
from tfrs_dlrm.layers.target_attention import TargetAttention
from tfrs_dlrm.messages.arguments import Count
from tfrs_dlrm.models.histories import attention_layers
from tfrs_dlrm.models.model_inputs import check_no_sequences, check_top_mlp, concatenated
from tfrs_dlrm.models.towers import TowerModel
from tfrs_dlrm.schema import Schema
from tfrs_dlrm.schema.histories import parts_of_events


@serializable
class DIN(TowerModel):
    """The Deep Interest Network: an MLP over the vectors of features, and of histories weighed by the target.

        u_h = sum_i a(e_hi, t_h) e_hi                                for each history h
        logit = MLP(concat(v_1, ..., v_n, u_1, ..., u_m, x))

    v_j is the vector of categorical feature j and x the dense features [B, schema.unprojected_width]. e_hi is the
    vector of an event, t_h that of the feature whose values the history lists, and a an MLP; see `TargetAttention`. All
    histories are weighed so, whatever their `pooling`. Parallel lists are weighed by the attention of their history,
    which reads all parts of an event. Without histories, this is an embedding MLP. The output of `compute_logits` is
    [B, L] for L labels.

    Differences from the paper: the MLPs have ReLU and neither PReLU nor Dice, and tables have the L2 of the row
    optimizer in place of the paper's mini-batch aware regularization.

    Args:
      schema: of the features; with the features whose values its histories list. Tables may have any dimensions.
      top_mlp: outputs of the MLP's layers, with ReLU after each but the last, which must be 1. With several labels, the
        last layer has an output per label; see also `sharing`.
      attention_mlp: outputs of the hidden layers that weigh an event.
      attention_softmax: whether the weights of a history are normalized. The paper's are not.
      dropout: the share of the top MLP's hidden outputs that training drops, from 0 up to 1.
      batch_norm: whether the top MLP's hidden layers are batch normalized.
      seed: determines all initial weights.
      **kwargs: arguments of `TowerModel`, such as `sharing`: what several labels share.

    Raises:
      ValueError: a feature is a sequence and no history, the schema lacks a feature whose values a history lists, an
        MLP has no layer, or `top_mlp` does not end in 1.
    """

    # Weights that depend on the inputs amplify rounding more than sums do.
    rounding = 1e-5
    takes_candidate_rows = True

    def __init__(
        self,
        schema: Schema,
        top_mlp: Sequence[Count] = (200, 80, 1),
        attention_mlp: Sequence[Count] = (36,),
        attention_softmax: bool = False,
        dropout: float = 0.0,
        batch_norm: bool = False,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        check_no_sequences("DIN", schema)
        check_top_mlp(top_mlp)
        if not attention_mlp:  # before Keras' attributes, which take no empty tuple yet
            raise ValueError("attention_mlp=[]; at least one layer is needed")
        # `RankingModel` makes the attention.
        self.attention_mlp, self.attention_softmax = tuple(attention_mlp), attention_softmax
        super().__init__(schema, seed, **kwargs)
        self.top_mlp = self.make_top_mlp(top_mlp, dropout, batch_norm)

    def _attention(self) -> dict[str, TargetAttention]:
        return attention_layers(
            "DIN",
            self.schema,
            list(parts_of_events(self.schema.categorical)),
            self.seed,
            self.dtype_policy,
            units=self.attention_mlp,
            softmax=self.attention_softmax,
        )

    def compute_logits(self, dense: tf.Tensor | None, embeddings: list[tf.Tensor], training: bool) -> tf.Tensor:
        """Computes logits [B, L]; see `RankingModel.compute_logits`."""
        return self.top_mlp(concatenated(dense, embeddings), training=training)

    def get_config(self) -> dict[str, Any]:
        """See `RankingModel.get_config`."""
        return super().get_config() | {
            "top_mlp": [*self.top_mlp.units[:-1], 1],
            "attention_mlp": list(self.attention_mlp),
            "attention_softmax": self.attention_softmax,
            "dropout": self.top_mlp.dropout,
            "batch_norm": self.top_mlp.batch_norm,
        }
