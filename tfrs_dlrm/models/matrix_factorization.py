"""Matrix factorization with biases (Koren et al. 2009, "Matrix Factorization Techniques for Recommender Systems")."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfrs_dlrm.layers.factorization import Bias
from tfrs_dlrm.models.model_inputs import check_no_sequences, check_one_label, vector_dim
from tfrs_dlrm.models.ranking import RankingModel
from tfrs_dlrm.schema import Schema


@keras.utils.register_keras_serializable(package="tfrs_dlrm")
class MatrixFactorization(RankingModel):
    """The dot product of two features' vectors, and a bias of each value.

        logit = b + b_user + b_item + p_user . q_item

    A row of a table is a vector [D] and, as its last number, the bias: tables of dimension D + 1. All other features
    are left out. Their tables are there, since a schema says what a batch looks up, but they do not learn and no result
    depends on them; dimension 1 is enough, and is what `ModelConfig.schema` gives them.

    Args:
      schema: of the features; no sequences.
      user: the name of one categorical feature.
      item: the name of the other.
      seed: makes all initial weights a function of it.

    Raises:
      ValueError: there are no two such features, or their tables have different dimensions.
    """

    linear_weights = True

    def __init__(self, schema: Schema, user: str = "user", item: str = "item", seed: int = 0, **kwargs: Any) -> None:
        check_no_sequences("MatrixFactorization", schema)
        check_one_label("MatrixFactorization", schema)
        names = [f.name for f in schema.categorical]
        if user not in names or item not in names or user == item:
            raise ValueError(
                f"user={user!r}, item={item!r}: the names of two categorical features are needed; there are"
                f" {', '.join(names)}"
            )
        self._positions = names.index(user), names.index(item)
        vector_dim("MatrixFactorization", schema, [schema.categorical[i] for i in self._positions])
        super().__init__(schema, seed, **kwargs)
        self.user, self.item = user, item
        self.bias = Bias(dtype="float32", name="bias")

    def compute_logits(self, dense: tf.Tensor | None, embeddings: list[tf.Tensor], training: bool) -> tf.Tensor:
        """Logits [B]; see the class."""
        user, item = (tf.cast(embeddings[i], tf.float32) for i in self._positions)
        product = tf.reduce_sum(user[:, :-1] * item[:, :-1], axis=1)
        return self.bias(user[:, -1] + item[:, -1] + product)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor, the schema as JSON."""
        return super().get_config() | {"user": self.user, "item": self.item}
