"""Encoded Parquet as batches for `model.fit`.

The order of the examples is a function of (seed, epoch, step) alone. Row groups are dealt out to the input pipelines;
each epoch puts those of a pipeline in a random order, joins neighbours to windows, and shuffles the rows of a window.
Where a window begins is known from the file footers, so any step can be reached without reading what lies before it.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import os
import threading
import time
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from tfrs_dlrm.data.preparing.manifest import Split
from tfrs_dlrm.data.reading.columns import Columns, IdOrders, assemble, signature
from tfrs_dlrm.data.reading.parts import PipelineShare
from tfrs_dlrm.data.reading.row_groups import RowGroup, share_of_split, shuffle_windows
from tfrs_dlrm.data.reading.row_sources import ReadRequest, RowService, RowSource
from tfrs_dlrm.schema import SCHEMA_FILE, Schema
from tfrs_dlrm.stores import local_copy

# About 80 MB of Criteo rows; two windows are in memory at a time.
SHUFFLE_ROWS = 1 << 19


def dataset(
    directory: str,
    batch_size: int,
    *,
    split: Split = "train",
    shuffle: bool | None = None,
    seed: int = 0,
    start_step: int = 0,
    repeat: bool = False,
    drop_remainder: bool | None = None,
    context: tf.distribute.InputContext | None = None,
    shuffle_rows: int = SHUFFLE_ROWS,
    sort_ids: bool = False,
    service: RowService | None = None,
) -> tf.data.Dataset:
    """Batches of `(features, label)`, or `(features, label, weight)` where the schema has a weight.

    `features` holds `dense`, float32 [B, schema.dense_width]; `ids`, int32 [B, F], the table rows of the one-hot
    features; and for each multi-valued feature its name, a RaggedTensor int32 [B, None], and perhaps `NAME_weights`.
    `label` and `weight` are float32 [B]; with several labels, `label` is [B, len(schema.labels)], NaN where one of
    `schema.more_labels` is missing.

    Args:
      directory: what `prepare` wrote, on a disk or in an object store, of which there is a local copy then.
      batch_size: B, over all replicas together.
      split: `train` or `eval`.
      shuffle: by default for `train` only.
      seed: of the order.
      start_step: the number of batches to leave out, over all epochs; they are not read.
      repeat: goes on for ever, one epoch after another. Otherwise it ends after an epoch, and each new iterator over
        it, such as `model.fit` makes for every epoch, is the next epoch.
      drop_remainder: leaves out the last, smaller batch of an epoch; by default where shuffled, since the rows left
        out differ then from epoch to epoch.
      context: which input pipeline this is. Each gets its own part of the rows and B / number of replicas rows a
        batch. All have equally many batches where the remainder is dropped; otherwise each gives all of its rows.
      shuffle_rows: how many rows are shuffled at a time.
      sort_ids: also sorts the ids of tables that multi-valued features look up, for `model.fit` on one device: NumPy
        does it in a fraction of the time that the train step would need. What sorts them, int32 [n] under
        `Table.order_key`, belongs to the batch as a whole, so a strategy with several replicas cannot split it.
      service: input workers that read and shuffle the same batches, see `tfrs_dlrm.data.reading.service.input_service`.

    Raises:
      FileNotFoundError: no prepared data there.
      ValueError: a damaged shard, one that does not match the schema, an empty split, or too few rows for one batch.
    """
    shuffle = split == "train" if shuffle is None else shuffle
    drop_remainder = shuffle if drop_remainder is None else drop_remainder
    named, directory = directory, local_copy(directory)
    if batch_size < 1 or start_step < 0:
        raise ValueError(f"batch_size={batch_size} and start_step={start_step}: at least 1 and 0 are needed")
    part = share_of_split(directory, split, context, batch_size, drop_remainder)
    per_epoch = part.batches
    if per_epoch == 0:
        raise ValueError(f"{directory}: {part.rows} {split} rows are too few for a batch of {part.batch_size}")
    schema = Schema.load(os.path.join(directory, SCHEMA_FILE))
    windows = shuffle_windows(schema, part, seed if shuffle else None, shuffle_rows)
    job = ReadRequest.of(named, split, seed if shuffle else None, shuffle_rows, context)
    first_epoch, first_batch = divmod(start_step, per_epoch)
    epochs = itertools.count(first_epoch)  # each new iterator takes the next one

    def generate() -> Iterator[tuple]:
        first = next(epochs)
        skip = first_batch if first == first_epoch else 0
        later = itertools.count(first + 1) if repeat else ()
        with contextlib.ExitStack() as stack:
            rows: RowSource = windows
            if service is not None:
                rows = stack.enter_context(service.open(job, windows, first, skip * part.batch_size, repeat))
            reader = _BatchReader(schema, part, rows, sort_ids)
            yield from _until_exit(reader.batches(e, 0 if e > first else skip) for e in itertools.chain([first], later))

    size = part.batch_size if drop_remainder else None
    data = tf.data.Dataset.from_generator(generate, output_signature=signature(schema, size, sort_ids))
    data = data.map(lambda *columns: assemble(schema, columns, sort_ids), num_parallel_calls=1, deterministic=True)
    cardinality = tf.data.INFINITE_CARDINALITY if repeat else per_epoch
    if repeat or first_batch == 0:
        data = data.apply(tf.data.experimental.assert_cardinality(cardinality))
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return data.prefetch(4).with_options(options)


def steps_per_epoch(
    directory: str, batch_size: int, split: Split = "train", pipelines: int = 1, replicas: int | None = None
) -> int:
    """Batches in an epoch of `dataset` with the defaults for its split.

    Args:
      directory: what `prepare` wrote.
      batch_size: over all replicas together.
      split: `train` (the last smaller batch is left out) or `eval`.
      pipelines: the number of input pipelines.
      replicas: of all pipelines together; by default one of each.
    """
    context = tf.distribute.InputContext(
        num_input_pipelines=pipelines, num_replicas_in_sync=pipelines if replicas is None else replicas
    )
    return share_of_split(local_copy(directory), split, context, batch_size, split == "train").batches


def row_blocks(
    directory: str, split: Split, rows: int, seed: int | None, shuffle_rows: int = SHUFFLE_ROWS
) -> Iterator[tuple[np.ndarray, ...]]:
    """All rows of a split once, as arrays in the order of `signature`.

    Args:
      directory: what `prepare` wrote.
      split: `train` or `eval`.
      rows: of one block; the last may have fewer.
      seed: the order is that of the first epoch of `dataset`; None is the order of the log.
      shuffle_rows: as there.
    """
    directory = local_copy(directory)
    part = share_of_split(directory, split, None, rows, drop_remainder=False)
    schema = Schema.load(os.path.join(directory, SCHEMA_FILE))
    return _BatchReader(schema, part, shuffle_windows(schema, part, seed, shuffle_rows), sort_ids=False).batches(0, 0)


class _Exit:
    """Keeps TensorFlow's threads out of Python while the interpreter ends; one caught inside would never return."""

    begun = threading.Event()
    inside = 0
    lock = threading.Lock()

    @classmethod
    def wait(cls) -> None:
        cls.begun.set()
        deadline = time.monotonic() + 10
        while cls.inside and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05)  # for the way from here back into TensorFlow


atexit.register(_Exit.wait)


def _until_exit(epochs: Iterator[Iterator[tuple]]) -> Iterator[tuple]:
    """All batches of all epochs, until the interpreter begins to end."""
    batches = itertools.chain.from_iterable(epochs)
    while True:
        with _Exit.lock:
            _Exit.inside += 1
        try:
            batch = None if _Exit.begun.is_set() else next(batches, None)
        finally:
            with _Exit.lock:
                _Exit.inside -= 1
        if batch is None:
            return
        yield batch


class _BatchReader:
    """The batches of one input pipeline, as tuples of NumPy arrays in the order of `signature`."""

    def __init__(self, schema: Schema, part: PipelineShare[RowGroup], rows: RowSource, sort_ids: bool):
        self._part, self._rows = part, rows
        self._orders = IdOrders(schema) if sort_ids else None

    def batches(self, epoch: int, skip: int) -> Iterator[tuple[np.ndarray, ...]]:
        """The batches of an epoch from batch `skip` on."""
        size, left = self._part.batch_size, self._part.batches - skip
        rest: Columns | None = None
        for columns in self._rows.rows(epoch, skip * size):
            columns = columns if rest is None else Columns.join([rest, columns])
            full = len(columns) // size
            for i in range(min(full, left)):
                yield self._arrays(columns.slice(i * size, (i + 1) * size))
            left -= min(full, left)
            if left == 0:
                return
            rest = columns.slice(full * size, len(columns))
        if rest is not None and len(rest):
            yield self._arrays(rest)

    def _arrays(self, batch: Columns) -> tuple[np.ndarray, ...]:
        arrays = batch.arrays()
        return arrays if self._orders is None else (*arrays, *self._orders(arrays))
