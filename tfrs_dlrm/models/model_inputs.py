"""The inputs of models: checks of the schema and the MLPs, dense features, and their concatenation with vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfrs_dlrm.embeddings.ids import Features, with_width
from tfrs_dlrm.layers.candidate_rows import CandidateRows, Rows, apply, concatenate, stack
from tfrs_dlrm.schema import CategoricalFeature, Schema, Table, check_schema


def looked_up(schema: Schema) -> list[Table]:
    """Returns the tables that features look up."""
    names = dict.fromkeys(f.table for f in schema.categorical)
    return [schema.table(name) for name in names]


def check_no_sequences(model: str, schema: Schema) -> None:
    """Checks that each feature has one vector per example; `RankingModel` makes one of a history.

    Raises:
      ValueError: a feature is a sequence, or `schema` is no schema.
    """
    check_schema(model, schema)
    for f in schema.categorical:
        if f.sequence_length is not None and not f.history_of:
            raise ValueError(
                f"feature {f.name!r} is a sequence, which {model} does not support: remove sequence_length, which"
                " pools its values, say the feature whose earlier values they are (history_of), or write a RankingModel"
                " whose compute_logits takes sequences"
            )


def check_one_label(model: str, schema: Schema) -> None:
    """Checks that the schema has one label, for models whose output is one sum.

    Raises:
      ValueError: the schema has more.
    """
    if schema.more_labels:
        raise ValueError(
            f"{model} predicts one label and the schema has {len(schema.labels)}; choose a model that learns several"
            " at once, such as DLRM, DCN or FinalMLP"
        )


def check_batches(given: Any) -> None:
    """Checks that the input of a model is none that a model cannot take: raw values, or a single array or tensor.

    Args:
      given: a mapping of features, or what gives batches of them: a dataset, a generator.

    Raises:
      ValueError: it is a DataFrame or another table in memory, or an array or a tensor.
    """
    if hasattr(given, "__arrow_c_stream__") or hasattr(given, "__dataframe__"):
        raise ValueError(
            f"a model takes encoded batches, and a {type(given).__name__} has raw values: train and evaluate on"
            " td.dataset(frame, 1024, encoder=encoder), and predict with"
            " td.raw_model(model, encoder).predict(encoder.raw_inputs(frame))"
        )
    if isinstance(given, (str, bytes, int, float, list, type)):
        raise ValueError(
            f"a model takes a mapping of features, such as {{'dense': ..., 'ids': ...}}, or batches of them, as"
            f" td.dataset gives; found a {type(given).__name__}"
        )
    if isinstance(given, (np.ndarray, tf.Tensor)):
        raise ValueError(
            f"a model takes a mapping of features, such as {{'dense': ..., 'ids': ...}}, as td.dataset gives; found one"
            f" {'array' if isinstance(given, np.ndarray) else 'tensor'} of shape {given.shape}"
        )


def check_top_mlp(units: Sequence[int]) -> None:
    """Checks that an MLP ends in one output, the logit.

    Raises:
      ValueError: `units` is empty or does not end in 1.
    """
    if not units or units[-1] != 1:
        raise ValueError(f"top_mlp={list(units)} must end in 1, the logit")


def vector_dim(model: str, schema: Schema, features: Sequence[CategoricalFeature]) -> int:
    """Returns the dimension of the vectors of features that need vectors of one dimension.

    Raises:
      ValueError: no features are given, or their tables differ in dimension.
    """
    dims = {schema.table_of(f).name: schema.table_of(f).dim for f in features}
    if not dims:
        raise ValueError(
            f"the schema has no categorical features; {model} multiplies their vectors, so list at least one"
        )
    if len(set(dims.values())) > 1:
        raise ValueError(
            f"tables have dimensions {dims}; {model} needs the same for all; Schema.with_dim makes them equal"
        )
    return next(iter(dims.values()))


def projected_dim(schema: Schema) -> int:
    """Returns the dimension of the vectors of projected features: that of the largest table.

    Raises:
      ValueError: there are no tables.
    """
    dims = [t.dim for t in looked_up(schema)]
    if not dims:
        name = schema.projected[0].name
        raise ValueError(
            f"feature {name!r} is projected to the dimension of the tables, and the schema has none; list a categorical"
            " feature, or drop projected"
        )
    return max(dims)


def concatenated(dense: Rows | None, embeddings: Sequence[Rows]) -> Rows:
    """Returns vectors [B, dim] and numbers [B, W] as [B, sum of dims + W], in the dtype of the vectors."""
    if dense is None or not embeddings:
        return concatenate(embeddings) if dense is None else dense
    return concatenate([*embeddings, apply(lambda x: tf.cast(x, embeddings[0].dtype), dense)])


def stacked(
    embeddings: Sequence[Rows],
    dense: Rows | None,
    dense_vectors: Callable[[Rows], Rows] | None,
    dtype: tf.DType | None = None,
) -> Rows:
    """Returns the vectors of all features [B, n, D]: those of `embeddings` [B, D], then of each number.

    Args:
      embeddings: vectors of one dimension.
      dense: numbers [B, W], or None.
      dense_vectors: maps numbers to [B, W, D]; the result of `RankingModel.make_dense_vectors`.
      dtype: of the result; by default that of the vectors.
    """
    vectors: Rows = stack(embeddings)
    vectors = vectors if dtype is None else apply(lambda x: tf.cast(x, dtype), vectors)
    if dense is None or dense_vectors is None:
        return vectors
    of_numbers = apply(lambda x: tf.cast(x, vectors.dtype), dense_vectors(dense))
    return concatenate([vectors, of_numbers])


def side_by_side(vectors: Rows) -> Rows:
    """Returns vectors [B, n, D] as [B, n D]."""
    if isinstance(vectors, CandidateRows):
        return vectors.flattened()
    return tf.reshape(vectors, [-1, vectors.shape[1] * vectors.shape[2]])


def dense_inputs(schema: Schema, features: Features) -> tf.Tensor | None:
    """Returns the dense features [B, schema.dense_width] of an encoded batch; None if the schema has none.

    Raises:
      ValueError: they are missing or have another width.
    """
    width = schema.dense_width
    if not width:
        return None
    dense = features.get("dense")
    if dense is not None:
        dense = with_width(dense, width)
    if dense is None or dense.shape[-1] != width:
        found = "nothing" if dense is None else f"shape {dense.shape}"
        raise ValueError(f"features['dense'] of shape [B, {width}] is needed for this schema; found {found}")
    return dense


def one_example(schema: Schema) -> dict[str, tf.Tensor | tf.RaggedTensor]:
    """Returns the features of an encoded batch of one example, all zeros."""
    features: dict[str, tf.Tensor | tf.RaggedTensor] = {}
    if schema.dense_width:
        features["dense"] = tf.zeros([1, schema.dense_width])
    if schema.one_hot:
        features["ids"] = tf.zeros([1, len(schema.one_hot)], tf.int32)
    for feature in schema.multi_hot:
        features[feature.name] = tf.ragged.constant([[0]], dtype=tf.int32)
        if feature.weights:
            features[feature.weights_name] = tf.ragged.constant([[1.0]])
    return features
