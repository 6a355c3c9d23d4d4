"""The inputs of models: checks of schema and MLPs, and the concatenation of all features."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from tfrs_dlrm.schema import CategoricalFeature, Schema, Table


def looked_up(schema: Schema) -> list[Table]:
    """Returns the tables that features look up."""
    names = dict.fromkeys(f.table for f in schema.categorical)
    return [schema.table(name) for name in names]


def check_no_sequences(model: str, schema: Schema) -> None:
    """Checks that each feature has one vector per example.

    Raises:
      ValueError: one has a sequence of them.
    """
    for f in schema.categorical:
        if f.sequence_length is not None:
            raise ValueError(
                f"feature {f.name!r} is a sequence, which {model} does not support: remove sequence_length, which"
                " pools its values, or write a RankingModel whose compute_logits takes sequences"
            )


def check_one_label(model: str, schema: Schema) -> None:
    """Checks that there is one label, for models whose output is one sum.

    Raises:
      ValueError: there are more.
    """
    if schema.more_labels:
        raise ValueError(
            f"{model} predicts one label and the schema has {len(schema.labels)}; DLRM, DCN and EmbeddingMLP learn"
            " several at once"
        )


def check_top_mlp(units: Sequence[int]) -> None:
    """Checks that an MLP ends in a logit.

    Raises:
      ValueError: it does not.
    """
    if not units or units[-1] != 1:
        raise ValueError(f"top_mlp={list(units)} must end in 1, the logit")


def vector_dim(model: str, schema: Schema, features: Sequence[CategoricalFeature]) -> int:
    """Returns D, if each row of the features' tables is a vector of D numbers followed by a linear weight.

    Raises:
      ValueError: there are no features, their tables have different dimensions, or no room for vector and weight.
    """
    dims = {schema.table_of(f).name: schema.table_of(f).dim for f in features}
    if not dims:
        raise ValueError(f"the schema has no categorical features, whose vectors {model} multiplies")
    if len(set(dims.values())) > 1 or min(dims.values()) < 2:
        raise ValueError(
            f"tables of dimensions {dims}: {model} needs D + 1 for all, vectors of one dimension D and a linear weight;"
            " Schema.with_dim makes them equal"
        )
    return next(iter(dims.values())) - 1


def concatenated(dense: tf.Tensor | None, embeddings: Sequence[tf.Tensor]) -> tf.Tensor:
    """Returns vectors [B, dim] and dense features [B, W] as [B, sum of dims + W], in the dtype of the vectors."""
    if dense is None:
        return tf.concat(embeddings, axis=1)
    return tf.concat([*embeddings, tf.cast(dense, embeddings[0].dtype)], axis=1) if embeddings else dense
