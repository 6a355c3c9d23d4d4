"""BST (Chen et al. 2019, arXiv 1905.06874)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import tensorflow as tf

from tfrs_dlrm.layers.behavior_transformer import BehaviorTransformer
from tfrs_dlrm.layers.hashing import derive_seed
from tfrs_dlrm.layers.serializable import serializable
from tfrs_dlrm.messages.arguments import Count
from tfrs_dlrm.models.histories import History, whole_events, whole_target
from tfrs_dlrm.models.model_inputs import check_no_sequences, check_top_mlp, concatenated
from tfrs_dlrm.models.towers import TowerModel
from tfrs_dlrm.schema import Schema
from tfrs_dlrm.schema.histories import check_targets, parts_of_events


@serializable
class BST(TowerModel):
    """The Behavior Sequence Transformer: an MLP over the vectors of features, and of events that attend to each other.

        y_h = Transformer(t_h, e_hn, ..., e_h1)             for each history h, latest event first
        logit = MLP(concat(v_1, ..., v_n, y_1, ..., y_m, x))

    v_j is the vector of categorical feature j and x the dense features [B, schema.unprojected_width]. e_hi is the
    vector of an event, joined with those of lists that are parallel to its history, and t_h that of the features whose
    values they list. y_h are the 1 + sequence_length vectors of the target and of all places, one after the other, with
    zeros where there is no event; see `BehaviorTransformer`. The `pooling` of histories has no effect. Without
    histories, this is an embedding MLP. The output of `compute_logits` is [B, L] for L labels.

    Differences from the paper: those of `BehaviorTransformer`; and the MLP has ReLU and not leaky ReLU.

    Args:
      schema: of the features; with the features whose values its histories list. Tables may have any dimensions.
      top_mlp: outputs of the MLP's layers, with ReLU after each but the last, which must be 1. With several labels, the
        last layer has an output per label; see also `sharing`.
      heads: the number of attention heads.
      blocks: the number of blocks of the transformer.
      feed_forward: the width of the hidden layer of a block's MLP.
      dropout: the share that training drops, from 0 up to 1: of the top MLP's hidden outputs, and of what attention and
        MLP of a block add.
      batch_norm: whether the top MLP's hidden layers are batch normalized.
      seed: determines all initial weights.
      **kwargs: arguments of `TowerModel`, such as `sharing`: what several labels share.

    Raises:
      ValueError: a feature is a sequence and no history, the schema lacks a feature whose values a history lists, an
        argument of the transformer is below 1, or `top_mlp` does not end in 1.
    """

    reads_histories: ClassVar[bool] = True
    # Weights that depend on the inputs amplify rounding more than sums do.
    rounding = 1e-5

    def __init__(
        self,
        schema: Schema,
        top_mlp: Sequence[Count] = (1024, 512, 256, 1),
        heads: Count = 8,
        blocks: Count = 1,
        feed_forward: Count = 64,
        dropout: float = 0.0,
        batch_norm: bool = False,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        check_no_sequences("BST", schema)
        check_top_mlp(top_mlp)
        histories = list(parts_of_events(schema.categorical))
        check_targets("BST", schema.categorical, histories)
        super().__init__(schema, seed, **kwargs)
        self.heads, self.blocks, self.feed_forward = heads, blocks, feed_forward
        # By history.
        self.transformers = {
            name: BehaviorTransformer(
                heads,
                blocks,
                feed_forward,
                dropout,
                derive_seed(seed, f"transformer/{name}"),
                dtype=self.dtype_policy,
                name=f"transformer_{name}",
            )
            for name in histories
        }
        self.top_mlp = self.make_top_mlp(top_mlp, dropout, batch_norm)

    def compute_logits(
        self, dense: tf.Tensor | None, embeddings: list[tf.Tensor | History], training: bool
    ) -> tf.Tensor:
        """Computes logits [B, L]; see `RankingModel.compute_logits`."""
        by_name = dict(zip((f.name for f in self.schema.categorical), embeddings, strict=False))
        vectors = [v for v in embeddings if not isinstance(v, History)]
        for name, parts in parts_of_events(self.schema.categorical).items():
            events, target = whole_events(self.schema, parts, by_name), whole_target(self.schema, parts, by_name)
            attended = self.transformers[name]([events.vectors, target, events.present], training=training)
            vectors.append(tf.reshape(attended, [-1, attended.shape[1] * attended.shape[2]]))
        return self.top_mlp(concatenated(dense, vectors), training=training)

    def get_config(self) -> dict[str, Any]:
        """See `RankingModel.get_config`."""
        return super().get_config() | {
            "top_mlp": [*self.top_mlp.units[:-1], 1],
            "heads": self.heads,
            "blocks": self.blocks,
            "feed_forward": self.feed_forward,
            "dropout": self.top_mlp.dropout,
            "batch_norm": self.top_mlp.batch_norm,
        }
