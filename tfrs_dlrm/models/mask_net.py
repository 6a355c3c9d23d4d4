"""MaskNet (Wang et al. 2021, arXiv 2102.07619)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfrs_dlrm.layers.hashing import derive_seed
from tfrs_dlrm.layers.layer_norm import LayerNorm
from tfrs_dlrm.layers.mask_block import MaskBlock
from tfrs_dlrm.layers.serializable import serializable
from tfrs_dlrm.messages.arguments import Count
from tfrs_dlrm.models.model_inputs import check_no_sequences, check_top_mlp, side_by_side, stacked, vector_dim
from tfrs_dlrm.models.towers import TowerModel
from tfrs_dlrm.schema import Schema


@serializable
class MaskNet(TowerModel):
    """MaskNet: layers whose inputs are multiplied by masks, which MLPs compute from the embeddings.

        v = concat(v_1 x_1, ..., v_n x_n),  e = concat(layer_norm(v_1 x_1), ..., layer_norm(v_n x_n))
        block_i(h) = relu(layer_norm(W_i (mask_i(v) * h)))
        parallel:  logit = MLP(concat(block_1(e), ..., block_k(e)))
        serial:    logit = MLP(block_k(... block_1(e)))

    A categorical feature has x_i = 1, and a dense feature is a number x_i that multiplies a trained v_i, as in the
    paper. Each v_i has D numbers, `dim` of all tables. The output of `compute_logits` is [B, L] for L labels.

    Differences from the paper: a serial model may have an MLP after the last block; a `top_mlp` of (1,) has none.

    Args:
      schema: of the features; at least one categorical feature, no sequences.
      top_mlp: outputs of the MLP's layers, with ReLU after each but the last, which must be 1. With several labels, the
        last layer has an output per label; see also `sharing`.
      mask_blocks: the number k of blocks.
      mask_units: the number of outputs of each block.
      mask_reduction: how many times wider than its mask the hidden layer is that computes the mask.
      mask_structure: `parallel` or `serial`.
      dropout: the share of the outputs of blocks and of the MLP's hidden layers that training drops, from 0 up to 1.
      batch_norm: whether the MLP's hidden layers are batch normalized.
      seed: determines all initial weights.
      **kwargs: arguments of `TowerModel`, such as `sharing`: what several labels share.

    Raises:
      ValueError: a feature is a sequence, the schema has no categorical feature, the tables differ in dimension,
        `top_mlp` does not end in 1, or `mask_structure` or `mask_blocks` is wrong.
    """

    # Products of many numbers amplify rounding more than sums do.
    rounding = 1e-5
    takes_candidate_rows = True

    def __init__(
        self,
        schema: Schema,
        top_mlp: Sequence[Count] = (400, 400, 1),
        mask_blocks: Count = 3,
        mask_units: Count = 400,
        mask_reduction: float = 2.0,
        mask_structure: str = "parallel",
        dropout: float = 0.0,
        batch_norm: bool = False,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        check_no_sequences("MaskNet", schema)
        check_top_mlp(top_mlp)
        if mask_structure not in ("parallel", "serial"):
            raise ValueError(f"mask_structure={mask_structure!r}: choose parallel or serial")
        dim = vector_dim("MaskNet", schema, schema.categorical)
        super().__init__(schema, seed, **kwargs)
        self.dense_vectors = self.make_dense_vectors(dim)
        self.vector_norm = LayerNorm(dtype=self.dtype_policy, name="vector_norm")
        self.blocks = [
            MaskBlock(
                mask_units,
                mask_reduction,
                derive_seed(seed, f"block/{i}"),
                dropout,
                dtype=self.dtype_policy,
                name=f"block_{i}",
            )
            for i in range(mask_blocks)
        ]
        self.top_mlp = self.make_top_mlp(top_mlp, dropout, batch_norm)
        self.mask_structure = mask_structure

    def compute_logits(self, dense: tf.Tensor | None, embeddings: list[tf.Tensor], training: bool) -> tf.Tensor:
        """Computes logits [B, L]; see `RankingModel.compute_logits`."""
        vectors = stacked(embeddings, dense, self.dense_vectors)
        instance, hidden = side_by_side(vectors), side_by_side(self.vector_norm(vectors))
        if self.mask_structure == "serial":
            for block in self.blocks:
                hidden = block([instance, hidden], training=training)
        else:
            hidden = tf.concat([block([instance, hidden], training=training) for block in self.blocks], axis=1)
        return self.top_mlp(hidden, training=training)

    def get_config(self) -> dict[str, Any]:
        """See `RankingModel.get_config`."""
        return super().get_config() | {
            "top_mlp": [*self.top_mlp.units[:-1], 1],
            "mask_blocks": len(self.blocks),
            "mask_units": self.blocks[0].outputs,
            "mask_reduction": self.blocks[0].reduction,
            "mask_structure": self.mask_structure,
            "dropout": self.top_mlp.dropout,
            "batch_norm": self.top_mlp.batch_norm,
        }
