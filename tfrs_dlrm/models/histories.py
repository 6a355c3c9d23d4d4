"""Histories in models: the vectors of their events, which of them count, and one vector of all."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from tfrs_dlrm.layers.hashing import derive_seed
from tfrs_dlrm.layers.target_attention import TargetAttention
from tfrs_dlrm.schema import CategoricalFeature, Schema
from tfrs_dlrm.schema.histories import check_targets, parts_of_events


class History(NamedTuple):
    """The events of a history, the latest of each example in its last place that counts.

    Attributes:
      vectors: [B, L, dim], zeros after the last event.
      present: bool [B, L], which places have an event.
    """

    vectors: tf.Tensor
    present: tf.Tensor


def with_events(
    schema: Schema, embeddings: Sequence[tf.Tensor], lengths: Mapping[str, tf.Tensor]
) -> list[tf.Tensor | History]:
    """Returns the vectors of categorical features, those of histories as `History`.

    Args:
      schema: the schema of the model.
      embeddings: as `EmbeddingTables.lookup` returns them.
      lengths: how many events of each history count; see `history_lengths`.
    """
    found: list[tf.Tensor | History] = []
    for f, vectors in zip(schema.categorical, embeddings, strict=True):
        if f.history_of:
            found.append(History(vectors, tf.sequence_mask(lengths[f.name], f.sequence_length)))
        else:
            found.append(vectors)
    return found


def pooled(history: History, pooling: str) -> tf.Tensor:
    """Returns the `mean` or `sum` [B, dim] of the events of each example, in the dtype of their vectors."""
    present = tf.cast(history.present, tf.float32)
    total = tf.reduce_sum(tf.cast(history.vectors, tf.float32) * tf.expand_dims(present, 2), axis=1)
    if pooling == "mean":
        total = tf.math.divide_no_nan(total, tf.reduce_sum(present, axis=1, keepdims=True))
    return tf.cast(total, history.vectors.dtype)


def attention_layers(
    model: str, schema: Schema, histories: Collection[str], seed: int, dtype: Any, **arguments: Any
) -> dict[str, TargetAttention]:
    """Makes the target attention of histories, by their names.

    Args:
      model: its name, for errors.
      schema: the schema of the model.
      histories: the names of histories that are parallel to no other.
      seed: determines the initial weights.
      dtype: the dtype policy of the layers.
      **arguments: of `TargetAttention`.

    Raises:
      ValueError: the schema lacks a feature whose values a history lists.
    """
    check_targets(model, schema.categorical, histories)
    return {
        name: TargetAttention(
            seed=derive_seed(seed, f"attention/{name}"), dtype=dtype, name=f"attention_{name}", **arguments
        )
        for name in histories
    }


def with_pooled(
    schema: Schema, vectors: Sequence[tf.Tensor | History], attention: Mapping[str, TargetAttention]
) -> list[tf.Tensor]:
    """Returns the vectors of categorical features, [B, dim] each: of histories, the pooled ones.

    Args:
      schema: the schema of the model.
      vectors: as `with_events` returns them.
      attention: by history, the layers that weigh its events. Other histories are pooled by mean or sum.
    """
    parts = parts_of_events(schema.categorical)
    by_name = {f.name: v for f, v in zip(schema.categorical, vectors, strict=True)}
    found: dict[str, tf.Tensor] = {}
    for name, layer in attention.items():
        events, target = whole_events(schema, parts[name], by_name), whole_target(schema, parts[name], by_name)
        weights = layer([events.vectors, target, events.present])
        found |= {f.name: weighted(weights, by_name[f.name].vectors) for f in parts[name]}
    for f in schema.categorical:
        vector = by_name[f.name]
        if f.name not in found:
            found[f.name] = pooled(vector, f.pooling) if isinstance(vector, History) else vector
    return [found[f.name] for f in schema.categorical]


def whole_events(schema: Schema, parts: Sequence[CategoricalFeature], vectors: Mapping[str, Any]) -> History:
    """Returns a history whose events are joined with those of its parallel lists, [B, L, D], without linear weights.

    Args:
      schema: the schema of the model.
      parts: the history, and the lists that are parallel to it.
      vectors: by feature, as `with_events` returns them.
    """
    events = [vectors[f.name].vectors[..., : schema.table_of(f).dim] for f in parts]
    return History(tf.concat(events, axis=-1), vectors[parts[0].name].present)


def whole_target(schema: Schema, parts: Sequence[CategoricalFeature], vectors: Mapping[str, Any]) -> tf.Tensor:
    """Returns the vectors with which `whole_events` are compared, [B, D]: of the features whose values they are."""
    return tf.concat([vectors[f.history_of][..., : schema.table_of(f).dim] for f in parts], axis=-1)


def weighted(weights: tf.Tensor, vectors: tf.Tensor) -> tf.Tensor:
    """Returns the sum [B, dim] of vectors [B, L, dim] by weights [B, L]."""
    return tf.matmul(tf.cast(weights, vectors.dtype)[:, tf.newaxis], vectors)[:, 0]
