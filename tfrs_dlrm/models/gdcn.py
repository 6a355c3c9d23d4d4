"""GDCN (Wang et al. 2023, arXiv 2311.04635)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfrs_dlrm.layers.gated_cross_network import GatedCrossNetwork
from tfrs_dlrm.layers.hashing import derive_seed
from tfrs_dlrm.layers.serializable import serializable
from tfrs_dlrm.messages.arguments import Count
from tfrs_dlrm.models.model_inputs import check_no_sequences, check_top_mlp, concatenated
from tfrs_dlrm.models.towers import TowerModel
from tfrs_dlrm.schema import Schema


@serializable
class GDCN(TowerModel):
    """GDCN: a cross network with gates, next to an MLP or followed by one.

        x_0 = concat(v_1, ..., v_n, x)
        x_{l+1} = x_0 * (W_l x_l + b_l) * sigmoid(G_l x_l) + x_l      for l = 0, ..., cross_layers - 1
        parallel (GDCN-P):  logit = w . x_last + MLP(x_0)
        stacked (GDCN-S):   logit = MLP(x_last)

    v_i is the vector of categorical feature i, and x the dense features [B, schema.unprojected_width]. The output of
    `compute_logits` is [B, L] for L labels. It is DCN-v2 with a gate for each product, so that more layers still help.

    Differences from the paper: dense features are used as numbers, as in the DCN-v2 of this package, and not embedded.
    Dimensions by feature (its FDO) are in the schema: tables may have any, see `Schema.with_mixed_dims`.

    Args:
      schema: of the features; no sequences. Tables may have any dimensions.
      top_mlp: outputs of the MLP's layers, with ReLU after each but the last, which must be 1. With several labels, the
        last layer has an output per label; see also `sharing`.
      cross_layers: the number of cross layers; n layers multiply up to n + 1 inputs.
      cross_structure: `parallel` or `stacked`.
      dropout: the share of the MLP's hidden outputs that training drops, from 0 up to 1.
      batch_norm: whether the MLP's hidden layers are batch normalized.
      seed: determines all initial weights.
      **kwargs: arguments of `TowerModel`, such as `sharing`: what several labels share.

    Raises:
      ValueError: a feature is a sequence, `top_mlp` does not end in 1, or `cross_structure` is unknown.
    """

    # Products of many numbers amplify rounding more than sums do.
    rounding = 1e-5
    takes_candidate_rows = True

    def __init__(
        self,
        schema: Schema,
        top_mlp: Sequence[Count] = (400, 400, 400, 1),
        cross_layers: Count = 3,
        cross_structure: str = "parallel",
        dropout: float = 0.0,
        batch_norm: bool = False,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        check_no_sequences("GDCN", schema)
        check_top_mlp(top_mlp)
        if cross_structure not in ("stacked", "parallel"):
            raise ValueError(f"cross_structure={cross_structure!r}: choose stacked or parallel")
        super().__init__(schema, seed, **kwargs)
        self.cross_network = GatedCrossNetwork(
            cross_layers, derive_seed(seed, "cross"), dtype=self.dtype_policy, name="cross_network"
        )
        self.top_mlp = self.make_top_mlp(top_mlp, dropout, batch_norm)
        self.cross_structure = cross_structure
        if cross_structure == "parallel":
            self.cross_logit = self.make_logit("cross_logit")

    def compute_logits(self, dense: tf.Tensor | None, embeddings: list[tf.Tensor], training: bool) -> tf.Tensor:
        """Computes logits [B, L]; see `RankingModel.compute_logits`."""
        inputs = concatenated(dense, embeddings)
        crossed = self.cross_network(inputs)
        if self.cross_structure == "stacked":
            return self.top_mlp(crossed, training=training)
        return self.cross_logit(crossed) + self.top_mlp(inputs, training=training)

    def get_config(self) -> dict[str, Any]:
        """See `RankingModel.get_config`."""
        return super().get_config() | {
            "top_mlp": [*self.top_mlp.units[:-1], 1],
            "cross_layers": self.cross_network.layers,
            "cross_structure": self.cross_structure,
            "dropout": self.top_mlp.dropout,
            "batch_norm": self.top_mlp.batch_norm,
        }
