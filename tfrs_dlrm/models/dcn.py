"""DCN-v2 (Wang et al. 2021, arXiv 2008.13535)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfrs_dlrm.layers.cross_network import CrossNetwork
from tfrs_dlrm.layers.hashing import derive_seed
from tfrs_dlrm.layers.serializable import serializable
from tfrs_dlrm.messages.arguments import Count, Size
from tfrs_dlrm.models.model_inputs import check_no_sequences, check_top_mlp, concatenated
from tfrs_dlrm.models.towers import TowerModel
from tfrs_dlrm.schema import Schema


@serializable
class DCN(TowerModel):
    """DCN-v2: a cross network, which multiplies features explicitly, followed by an MLP or next to one.

        x_0 = concat(v_1, ..., v_n, x)
        x_{l+1} = x_0 * (W_l x_l + b_l) + x_l                 for l = 0, ..., cross_layers - 1
        stacked:   logit = MLP(x_last)
        parallel:  logit = w . x_last + MLP(x_0)

    v_i is the vector of categorical feature i, and x the dense features [B, schema.unprojected_width]. The output of
    `compute_logits` is [B, L] for L labels.

    The paper's parallel form concatenates x_last with the last hidden layer, which gives the same sum. With `top_mlp`
    (1,) there is no hidden layer, and the stacked form is the cross network alone.

    With a `dense_mlp`, its output replaces x in x_0. The stacked form is then MLPerf's DLRM-DCNv2: a DLRM with a cross
    network in place of dot products (mlcommons/training, `recommendation_v2`).

    Args:
      schema: of the features; no sequences. Tables may have any dimensions.
      top_mlp: outputs of the MLP's layers, with ReLU after each but the last, which must be 1. With several labels, the
        last layer has an output per label; see also `sharing`.
      cross_layers: the number of cross layers; n layers multiply up to n + 1 inputs.
      cross_rank: the rank of the matrices W_l; 0 for full matrices.
      cross_structure: `stacked` or `parallel`.
      dropout: the share of the MLPs' hidden outputs that training drops, from 0 up to 1.
      batch_norm: whether the MLPs' hidden layers are batch normalized.
      seed: determines all initial weights.
      dense_mlp: outputs of the layers of an MLP over the dense features, with ReLU after each; empty uses the dense
        features unchanged. Without dense features it has no effect.
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
        top_mlp: Sequence[Count] = (512, 256, 1),
        cross_layers: Count = 3,
        cross_rank: Size = 0,
        cross_structure: str = "stacked",
        dropout: float = 0.0,
        batch_norm: bool = False,
        seed: int = 0,
        dense_mlp: Sequence[Count] = (),
        **kwargs: Any,
    ) -> None:
        check_no_sequences("DCN", schema)
        check_top_mlp(top_mlp)
        if cross_structure not in ("stacked", "parallel"):
            raise ValueError(f"cross_structure={cross_structure!r}: choose stacked or parallel")
        super().__init__(schema, seed, **kwargs)
        self.dense_mlp = None
        if schema.unprojected_width and dense_mlp:
            self.dense_mlp = self.make_mlp("dense_mlp", dense_mlp, dropout, batch_norm, final_activation="relu")
        self.cross_network = CrossNetwork(
            cross_layers, cross_rank, derive_seed(seed, "cross"), dtype=self.dtype_policy, name="cross_network"
        )
        self.top_mlp = self.make_top_mlp(top_mlp, dropout, batch_norm)
        self.cross_structure = cross_structure
        if cross_structure == "parallel":
            self.cross_logit = self.make_logit("cross_logit")

    def compute_logits(self, dense: tf.Tensor | None, embeddings: list[tf.Tensor], training: bool) -> tf.Tensor:
        """Computes logits [B, L]; see `RankingModel.compute_logits`."""
        if self.dense_mlp is not None:
            dense = self.dense_mlp(dense, training=training)
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
            "cross_rank": self.cross_network.rank,
            "cross_structure": self.cross_structure,
            "dropout": self.top_mlp.dropout,
            "batch_norm": self.top_mlp.batch_norm,
            "dense_mlp": [] if self.dense_mlp is None else list(self.dense_mlp.units),
        }
