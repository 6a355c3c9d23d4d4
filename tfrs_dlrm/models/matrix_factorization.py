"""Matrix factorization with biases (Koren et al. 2009, "Matrix Factorization Techniques for Recommender Systems")."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfrs_dlrm.layers.serializable import serializable
from tfrs_dlrm.models.model_inputs import check_no_sequences, check_one_label, vector_dim
from tfrs_dlrm.models.ranking import RankingModel
from tfrs_dlrm.schema import Schema


@serializable
class MatrixFactorization(RankingModel):
    """Matrix factorization with biases: the dot product of a user's and an item's vector.

        logit = b + b_user + b_item + p_user . q_item

    D is `dim` of the two tables. Their rows are a vector [D] followed by the bias, D + 1 numbers. The output of
    `compute_logits` is [B].

    All other features are ignored. Their tables exist, since the schema decides what a batch looks up, but have rows of
    one number and never change.

    Args:
      schema: of the features; at least two categorical features, no sequences, one label.
      user: the name of the categorical feature with vector p and bias b_user.
      item: the name of the categorical feature with vector q and bias b_item.
      seed: determines all initial weights.

    Raises:
      ValueError: a feature is a sequence, the schema has several labels, `user` and `item` do not name two categorical
        features, or their tables differ in dimension.
    """

    linear_weights = True
    reads_dense = False

    def __init__(self, schema: Schema, user: str = "user", item: str = "item", seed: int = 0, **kwargs: Any) -> None:
        check_no_sequences("MatrixFactorization", schema)
        check_one_label("MatrixFactorization", schema)
        names = [f.name for f in schema.categorical]
        if user not in names or item not in names or user == item:
            raise ValueError(
                f"user={user!r}, item={item!r}: the names of two categorical features are needed; the schema has"
                f" {', '.join(names)}"
            )
        self._positions = names.index(user), names.index(item)
        self.user, self.item = user, item
        vector_dim("MatrixFactorization", schema, [schema.categorical[i] for i in self._positions])
        super().__init__(schema, seed, **kwargs)
        self.bias = self.make_bias()

    @property
    def linear_features(self) -> tuple[str, str]:
        """See `RankingModel.linear_features`."""
        return self.user, self.item

    def compute_logits(self, dense: tf.Tensor | None, embeddings: list[tf.Tensor], training: bool) -> tf.Tensor:
        """Computes logits [B]; see `RankingModel.compute_logits`."""
        user, item = (tf.cast(embeddings[i], tf.float32) for i in self._positions)
        product = tf.reduce_sum(user[:, :-1] * item[:, :-1], axis=1)
        return self.bias(user[:, -1] + item[:, -1] + product)

    def get_config(self) -> dict[str, Any]:
        """See `RankingModel.get_config`."""
        return super().get_config() | {"user": self.user, "item": self.item}
