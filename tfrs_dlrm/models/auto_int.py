"""AutoInt (Song et al. 2019, arXiv 1810.11921)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfrs_dlrm.layers.field_attention import FieldAttention
from tfrs_dlrm.layers.hashing import derive_seed
from tfrs_dlrm.layers.serializable import serializable
from tfrs_dlrm.messages.arguments import Count
from tfrs_dlrm.models.model_inputs import check_no_sequences, check_top_mlp, side_by_side, stacked, vector_dim
from tfrs_dlrm.models.towers import TowerModel
from tfrs_dlrm.schema import Schema


@serializable
class AutoInt(TowerModel):
    """AutoInt: self-attention between the vectors of features, next to an MLP.

        e_i = v_i x_i
        (e'_1, ..., e'_n) = attention layers (e_1, ..., e_n)
        logit = w . concat(e'_1, ..., e'_n) + MLP(concat(e_1, ..., e_n))

    A categorical feature has x_i = 1, and a dense feature is a number x_i that multiplies a trained v_i. Each v_i has D
    numbers, `dim` of all tables. With the MLP it is the paper's AutoInt+; a `top_mlp` of (1,) leaves a linear term of
    the vectors. The output of `compute_logits` is [B, L] for L labels.

    Args:
      schema: of the features; at least one categorical feature, no sequences.
      top_mlp: outputs of the MLP's layers, with ReLU after each but the last, which must be 1. With several labels, the
        last layer has an output per label; see also `sharing`.
      attention_layers: the number of attention layers.
      attention_heads: the number of heads of each layer.
      attention_dim: the dimension of each head's vectors.
      dropout: the share of the MLP's hidden outputs that training drops, from 0 up to 1.
      batch_norm: whether the MLP's hidden layers are batch normalized.
      seed: determines all initial weights.
      **kwargs: arguments of `TowerModel`, such as `sharing`: what several labels share.

    Raises:
      ValueError: a feature is a sequence, the schema has no categorical feature, the tables differ in dimension,
        `top_mlp` does not end in 1, or there is no attention layer.
    """

    # Softmax amplifies rounding more than sums do.
    rounding = 1e-5

    def __init__(
        self,
        schema: Schema,
        top_mlp: Sequence[Count] = (400, 400, 1),
        attention_layers: Count = 3,
        attention_heads: Count = 2,
        attention_dim: Count = 32,
        dropout: float = 0.0,
        batch_norm: bool = False,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        check_no_sequences("AutoInt", schema)
        check_top_mlp(top_mlp)
        dim = vector_dim("AutoInt", schema, schema.categorical)
        super().__init__(schema, seed, **kwargs)
        self.dense_vectors = self.make_dense_vectors(dim)
        self.attention = [
            FieldAttention(
                attention_heads,
                attention_dim,
                derive_seed(seed, f"attention/{i}"),
                dtype=self.dtype_policy,
                name=f"attention_{i}",
            )
            for i in range(attention_layers)
        ]
        self.attention_logit = self.make_logit("attention_logit")
        self.top_mlp = self.make_top_mlp(top_mlp, dropout, batch_norm)

    def compute_logits(self, dense: tf.Tensor | None, embeddings: list[tf.Tensor], training: bool) -> tf.Tensor:
        """Computes logits [B, L]; see `RankingModel.compute_logits`."""
        vectors = attended = stacked(embeddings, dense, self.dense_vectors)
        for layer in self.attention:
            attended = layer(attended)
        deep = self.top_mlp(side_by_side(vectors), training=training)
        return self.attention_logit(side_by_side(attended)) + deep

    def get_config(self) -> dict[str, Any]:
        """See `RankingModel.get_config`."""
        return super().get_config() | {
            "top_mlp": [*self.top_mlp.units[:-1], 1],
            "attention_layers": len(self.attention),
            "attention_heads": self.attention[0].heads,
            "attention_dim": self.attention[0].dim,
            "dropout": self.top_mlp.dropout,
            "batch_norm": self.top_mlp.batch_norm,
        }
