"""FinalNet (Zhu et al. 2023, "FINAL: Factorized Interaction Layer for CTR Prediction", SIGIR)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfrs_dlrm.layers.factorized_interaction import FactorizedMLP
from tfrs_dlrm.layers.serializable import serializable
from tfrs_dlrm.messages.arguments import Count
from tfrs_dlrm.models.model_inputs import check_no_sequences, check_top_mlp, concatenated
from tfrs_dlrm.models.ranking import RankingModel
from tfrs_dlrm.schema import Schema


@serializable
class FinalNet(RankingModel):
    """FinalNet: an MLP whose hidden layers multiply as well as add.

        h_0 = concat(v_1, ..., v_n, x)
        h_{l+1} = relu((W_l h_l + b_l) * (1 + U_l h_l + c_l))
        logit = w . h_last + b

    elementwise. v_i is the vector of categorical feature i, and x the dense features [B, schema.unprojected_width]. The
    degree in the inputs doubles with each layer. The output of `compute_logits` is [B, L] for L labels.

    Differences from the paper: this is a model of one block. The form of two blocks, which teach each other by a
    further loss, is left out, and so are its field gates. As in FuxiCTR, the activation follows the sum of the linear
    part and the product; the settings with which FuxiCTR leads on Criteo concatenate the two instead, with batch
    normalization. Dense features are used as numbers and not embedded.

    Args:
      schema: of the features; no sequences. Tables may have any dimensions.
      top_mlp: outputs of the layers, of which the last is linear and must be 1. With several labels, it has an output
        per label.
      dropout: the share of hidden outputs that training drops, from 0 up to 1.
      batch_norm: whether hidden layers are batch normalized before their ReLU.
      seed: determines all initial weights.

    Raises:
      ValueError: a feature is a sequence, or `top_mlp` does not end in 1.
    """

    # Products of many numbers amplify rounding more than sums do.
    rounding = 1e-5
    takes_candidate_rows = True

    def __init__(
        self,
        schema: Schema,
        top_mlp: Sequence[Count] = (400, 400, 400, 1),
        dropout: float = 0.0,
        batch_norm: bool = False,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        check_no_sequences("FinalNet", schema)
        check_top_mlp(top_mlp)
        super().__init__(schema, seed, **kwargs)
        self.top_mlp = self.make_top_mlp(top_mlp, dropout, batch_norm, FactorizedMLP)

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
