"""Tables for the TPUs in scope, and batches in the form that these tables take."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from typing import Any

import pyarrow.compute as pc
import tensorflow as tf

from tfrs_dlrm.data.preparing.manifest import PreparedManifest
from tfrs_dlrm.data.reading.dataset import dataset
from tfrs_dlrm.data.reading.row_groups import open_shard
from tfrs_dlrm.distribute.placement import place
from tfrs_dlrm.distribute.strategies import distribution_of
from tfrs_dlrm.embeddings.tpu import TPUEmbeddingTables
from tfrs_dlrm.embeddings.tpu.host_batches import pad_examples
from tfrs_dlrm.schema import Schema


def tpu_tables(
    directory: str,
    schema: Schema,
    batch_size: int,
    seed: int = 0,
    replicate_below: int | None = None,
    samples: int = 20,
) -> TPUEmbeddingTables:
    """The tables of a model for the TPUs in scope: `DLRM(schema, embeddings=tpu_tables(...))`.

    Args:
      directory: what `prepare` wrote; gives the spread of ids and the largest number of values.
      schema: of the model.
      batch_size: over all replicas together.
      seed: of the initial values.
      replicate_below: see `tfrs_dlrm.distribute.placement.place`.
      samples: in how many batches of a replica ids are counted, for SparseCores.

    Raises:
      ValueError: the batch cannot be shared out among the replicas, or a table cannot be where it is placed.
    """
    distribution, replicas = distribution_of(), tf.distribute.get_strategy().num_replicas_in_sync
    if batch_size % replicas:
        raise ValueError(
            f"batch_size={batch_size} over {replicas} replicas: all need as many examples; take a multiple"
        )
    size = batch_size // replicas
    batches: Any = ()
    if distribution.embedding_hardware == "SparseCore":
        rows = dataset(directory, size, seed=seed, drop_remainder=True, whole_groups=False)
        batches = itertools.islice(rows, samples)
    placement = place(schema, distribution.topology, replicate_below)
    hotness = most_values(directory, [f.name for f in schema.multi_hot if f.sequence_length is None])
    counted = [features for features, *_ in batches]
    return TPUEmbeddingTables(schema, seed, placement, size, hotness, counted, name="embeddings")


def fixed_batches(data: tf.data.Dataset, tables: TPUEmbeddingTables) -> tf.data.Dataset:
    """Turns batches of any size into batches of the size that the tables take, with padding behind the last examples.

    Args:
      data: of `(features, label[, weight])`, as encoded. Labels and weights are not padded.
      tables: of the model, compiled.
    """
    size = tables.batch_size

    def padded(features: Any, *targets: tf.Tensor) -> tuple[Any, ...]:
        return (tables.host_map(pad_examples(features, size)), *targets)

    return data.rebatch(size).map(padded, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)


def most_values(directory: str, features: Sequence[str]) -> dict[str, int]:
    """The most values that an example has, in training and evaluation set, by multi-valued feature; at least 1."""
    most = dict.fromkeys(features, 1)
    manifest = PreparedManifest.load(directory)
    for shard in (*manifest.train, *manifest.eval) if features else ():
        with open_shard(os.path.join(directory, shard.path)) as file:
            for batch in file.iter_batches(columns=list(features)):
                for name in features:
                    longest = pc.max(pc.list_value_length(batch.column(name))).as_py()
                    most[name] = max(most[name], longest or 0)
    return most
