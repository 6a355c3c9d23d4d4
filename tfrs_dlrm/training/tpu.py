"""What runs on TPUs need beside the model: tables for the chips in scope, and data in the form that these take."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import tensorflow as tf

from tfrs_dlrm.data.preparing.manifest import PreparedManifest
from tfrs_dlrm.data.reading.dataset import SHUFFLE_ROWS, dataset
from tfrs_dlrm.data.reading.record_dataset import record_dataset
from tfrs_dlrm.data.reading.records import write_records
from tfrs_dlrm.distribute.placement import place
from tfrs_dlrm.distribute.strategy import topology_of
from tfrs_dlrm.embeddings.tpu import TPUEmbeddingTables
from tfrs_dlrm.embeddings.tpu.hardware import kind
from tfrs_dlrm.embeddings.tpu.host_batches import pad_examples
from tfrs_dlrm.models.ranking import RankingModel
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
      directory: what `prepare` wrote: how ids spread, and how many values there are at most, is taken from there.
      schema: of the model.
      batch_size: over all replicas together.
      seed: of the initial values.
      replicate_below: see `tfrs_dlrm.distribute.placement.place`.
      samples: in how many batches of a replica ids are counted, for SparseCores.

    Raises:
      ValueError: the batch cannot be shared out among the replicas, or a table cannot be where it is placed.
    """
    strategy = tf.distribute.get_strategy()
    replicas = strategy.num_replicas_in_sync
    if batch_size % replicas:
        raise ValueError(
            f"batch_size={batch_size} over {replicas} replicas: all need as many examples; take a multiple"
        )
    size = batch_size // replicas
    batches: Any = ()
    if kind(strategy) == "SparseCore":
        batches = itertools.islice(dataset(directory, size, seed=seed, drop_remainder=True), samples)
    placement = place(schema, topology_of(strategy), replicate_below)
    hotness = most_values(directory, [f.name for f in schema.multi_hot if f.sequence_length is None])
    counted = [features for features, *_ in batches]
    return TPUEmbeddingTables(schema, seed, placement, size, hotness, counted, name="embeddings")


def tpu_dataset(
    directory: str,
    batch_size: int,
    tables: TPUEmbeddingTables,
    *,
    seed: int = 0,
    start_step: int = 0,
    shuffle_rows: int = SHUFFLE_ROWS,
) -> Any:
    """Training batches for ever, for `model.fit` with `steps_per_epoch`, on the hosts of the TPUs in scope.

    A single host reads Parquet. Several each read a part of a copy of the data that needs no Python to be read and is
    made where it is missing; all of them see the directory under this name.

    Args:
      directory: what `prepare` wrote.
      batch_size: over all replicas together.
      tables: of the model.
      seed: of the order.
      start_step: the number of steps to leave out.
      shuffle_rows: how many rows are shuffled at a time.
    """
    strategy = tf.distribute.get_strategy()
    hosts, replicas = strategy.extended.num_hosts, strategy.num_replicas_in_sync
    # Each replica takes a batch of its own from the pipeline of its host.
    arguments: dict[str, Any] = {"seed": seed, "start_step": start_step * (replicas // hosts), "repeat": True}
    if hosts > 1:
        write_records(directory, shuffle_rows=shuffle_rows)

    def read(context: tf.distribute.InputContext) -> tf.data.Dataset:
        source = record_dataset if hosts > 1 else dataset
        data = source(directory, batch_size, context=context, shuffle_rows=shuffle_rows, **arguments)
        return data.map(tables.map_batch, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(2)

    # Embedding hardware takes ids from the hosts.
    options = tf.distribute.InputOptions(experimental_fetch_to_device=False)
    return strategy.distribute_datasets_from_function(read, options)


def scored_on_tpu(model: RankingModel, data: tf.data.Dataset) -> Iterator[tuple[np.ndarray, ...]]:
    """The logits of every example of a finite dataset, in its order, with its label and perhaps its weight.

    Every batch of a TPU has the same size, so the last ones are filled up with examples whose logits are left out.

    Args:
      model: compiled.
      data: batches of any size of `(features, label[, weight])`, as encoded.
    """
    strategy, tables = model.distribute_strategy, model.embeddings
    replicas, size = strategy.num_replicas_in_sync, tables.batch_size

    def prepared(features: Any, *targets: tf.Tensor) -> tuple[Any, ...]:
        return (tables.host_map(pad_examples(features, size)), *targets)

    batches = iter(data.rebatch(size).map(prepared, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True))
    while group := list(itertools.islice(batches, replicas)):
        filled = group + [group[-1]] * (replicas - len(group))
        features = strategy.experimental_distribute_values_from_function(
            lambda context, filled=filled: filled[context.replica_id_in_sync_group][0]
        )
        logits = strategy.experimental_local_results(model.scores(features))
        columns = [[x.numpy() for x in column] for column in zip(*(targets for _, *targets in group), strict=True)]
        counts = [len(label) for label in columns[0]]
        own = [scores.numpy()[:n] for scores, n in zip(logits, counts, strict=False)]
        yield tuple(np.concatenate(parts) for parts in (own, *columns))


def most_values(directory: str, features: Sequence[str]) -> dict[str, int]:
    """The most values that an example has, in training and evaluation set, by multi-valued feature; at least 1."""
    most = dict.fromkeys(features, 1)
    manifest = PreparedManifest.load(directory)
    for shard in (*manifest.train, *manifest.eval) if features else ():
        with pq.ParquetFile(os.path.join(directory, shard.path)) as file:
            for batch in file.iter_batches(columns=list(features)):
                for name in features:
                    longest = pc.max(pc.list_value_length(batch.column(name))).as_py()
                    most[name] = max(most[name], longest or 0)
    return most
