"""Wide & Deep (Cheng et al. 2016, arXiv 1606.07792)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfrs_dlrm.layers.candidate_rows import apply, concatenate, summed
from tfrs_dlrm.layers.serializable import serializable
from tfrs_dlrm.messages.arguments import Count
from tfrs_dlrm.models.model_inputs import check_no_sequences, check_one_label, check_top_mlp, concatenated
from tfrs_dlrm.models.ranking import RankingModel
from tfrs_dlrm.schema import Schema


@serializable
class WideAndDeep(RankingModel):
    """Wide & Deep: a linear model and an MLP, trained together.

        logit = wide + MLP(concat(v_1, ..., v_n, x))
        wide  = sum_i w_i + sum_j w_j x_j

    A row of a table is a vector v_i of `dim` numbers followed by the linear weight w_i of the wide part. x are the
    dense features [B, schema.unprojected_width]. The MLP has the bias. The output of `compute_logits` is [B, 1].

    The paper's wide part also has cross-product transformations. Here they are ordinary categorical features: columns
    of the log that combine two values.

    Args:
      schema: of the features; no sequences, one label.
      top_mlp: outputs of the MLP's layers, with ReLU after each but the last, which must be 1.
      dropout: the share of the MLP's hidden outputs that training drops, from 0 up to 1.
      batch_norm: whether the MLP's hidden layers are batch normalized.
      seed: determines all initial weights.

    Raises:
      ValueError: a feature is a sequence, the schema has several labels, or `top_mlp` does not end in 1.
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
        check_no_sequences("WideAndDeep", schema)
        check_one_label("WideAndDeep", schema)
        check_top_mlp(top_mlp)
        super().__init__(schema, seed, **kwargs)
        self.dense_weights = self.make_dense_vectors(1, "dense_weights")
        self.top_mlp = self.make_top_mlp(top_mlp, dropout, batch_norm)

    def compute_logits(self, dense: tf.Tensor | None, embeddings: list[tf.Tensor], training: bool) -> tf.Tensor:
        """Computes logits [B, 1]; see `RankingModel.compute_logits`."""
        vectors = [v[:, :-1] for v in embeddings]
        wide = [apply(lambda x: tf.cast(x[:, tf.newaxis, -1:], tf.float32), v) for v in embeddings]  # [B, 1, 1]
        if self.dense_weights is not None:
            wide.append(self.dense_weights(dense))
        deep = self.top_mlp(concatenated(dense, vectors), training=training)
        return summed(concatenate(wide)) + tf.cast(deep, tf.float32)

    def get_config(self) -> dict[str, Any]:
        """See `RankingModel.get_config`."""
        return super().get_config() | {
            "top_mlp": list(self.top_mlp.units),
            "dropout": self.top_mlp.dropout,
            "batch_norm": self.top_mlp.batch_norm,
        }
