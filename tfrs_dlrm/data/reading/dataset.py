"""Encoded Parquet as batches for `model.fit`.

The order of the examples is a function of (seed, epoch, step) alone. Row groups are dealt out to the input pipelines;
each epoch puts those of a pipeline in a random order, joins neighbours to windows, and shuffles the rows of a window.
Where a window begins is known from the file footers, so any step can be reached without reading what lies before it.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import itertools
import os
import threading
import time
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf

from tfrs_dlrm.data.encoding.encoder import SCHEMA_FILE
from tfrs_dlrm.data.preparing.blocks import encoded_schema
from tfrs_dlrm.data.preparing.manifest import Manifest, Shard, Split
from tfrs_dlrm.data.reading.columns import Columns, IdOrders, assemble, signature
from tfrs_dlrm.data.reading.parts import Part, part_of
from tfrs_dlrm.data.reading.service.job import Job, RowSource, Service
from tfrs_dlrm.data.reading.shards import open_shard
from tfrs_dlrm.data.reading.windows import Windows
from tfrs_dlrm.schema import Schema
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
    service: Service | None = None,
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
      service: input workers that read and shuffle the same batches, see `tfrs_dlrm.data.reading.service.client`.

    Raises:
      FileNotFoundError: no prepared data there.
      ValueError: a damaged shard, one that does not match the schema, an empty split, or too few rows for one batch.
    """
    shuffle = split == "train" if shuffle is None else shuffle
    drop_remainder = shuffle if drop_remainder is None else drop_remainder
    named, directory = directory, local_copy(directory)
    if batch_size < 1 or start_step < 0:
        raise ValueError(f"batch_size={batch_size} and start_step={start_step}: at least 1 and 0 are needed")
    part = _part(directory, split, context, batch_size, drop_remainder)
    per_epoch = part.batches
    if per_epoch == 0:
        raise ValueError(f"{directory}: {part.rows} {split} rows are too few for a batch of {part.batch_size}")
    schema = Schema.load(os.path.join(directory, SCHEMA_FILE))
    windows = _windows(schema, part, seed if shuffle else None, shuffle_rows)
    job = Job.of(named, split, seed if shuffle else None, shuffle_rows, context)
    epoch = [start_step // per_epoch - 1]

    def generate() -> Iterator[tuple]:
        epoch[0] += 1
        first, skip = epoch[0], start_step % per_epoch if epoch[0] == start_step // per_epoch else 0
        last = itertools.count(first + 1) if repeat else ()
        with contextlib.ExitStack() as stack:
            rows: RowSource = windows
            if service is not None:
                rows = stack.enter_context(service.open(job, windows, first, skip * part.batch_size, repeat))
            reader = _Reader(schema, part, rows, sort_ids)
            yield from _until_exit(reader.batches(e, 0 if e > first else skip) for e in itertools.chain([first], last))

    size = part.batch_size if drop_remainder else None
    data = tf.data.Dataset.from_generator(generate, output_signature=signature(schema, size, sort_ids))
    data = data.map(lambda *columns: assemble(schema, columns, sort_ids), num_parallel_calls=1, deterministic=True)
    cardinality = tf.data.INFINITE_CARDINALITY if repeat else per_epoch
    if repeat or start_step % per_epoch == 0:
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
    return _part(local_copy(directory), split, context, batch_size, split == "train").batches


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
    part = _part(directory, split, None, rows, drop_remainder=False)
    schema = Schema.load(os.path.join(directory, SCHEMA_FILE))
    return _Reader(schema, part, _windows(schema, part, seed, shuffle_rows), sort_ids=False).batches(0, 0)


def windows_of(
    directory: str, split: Split, seed: int | None, shuffle_rows: int, pipelines: int = 1, pipeline: int = 0
) -> Windows:
    """What `dataset` reads, window by window, for whoever reads it in another process.

    Args:
      directory: what `prepare` wrote.
      split: `train` or `eval`.
      seed: of the order; None is the order of the log.
      shuffle_rows: how many rows are shuffled at a time.
      pipelines: how many input pipelines there are.
      pipeline: which of them it is.

    Raises:
      FileNotFoundError, ValueError: as `dataset`.
    """
    context = tf.distribute.InputContext(pipelines, pipeline, pipelines)
    directory = local_copy(directory)
    part = _part(directory, split, context, pipelines, drop_remainder=False)
    return _windows(Schema.load(os.path.join(directory, SCHEMA_FILE)), part, seed, shuffle_rows)


def _windows(schema: Schema, part: Part[_RowGroup], seed: int | None, shuffle_rows: int) -> Windows:
    return Windows(part.pieces, lambda group: _read(group, schema), seed, shuffle_rows)


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


@dataclasses.dataclass(frozen=True)
class _RowGroup:
    path: str
    metadata: pq.FileMetaData
    index: int
    begin: int
    end: int

    @property
    def rows(self) -> int:
        return self.end - self.begin

    def cut(self, parts: int) -> list[_RowGroup]:
        """The group as several of about equally many rows."""
        ends = [self.begin + self.rows * i // parts for i in range(parts + 1)]
        pairs = itertools.pairwise(ends)
        return [dataclasses.replace(self, begin=begin, end=end) for begin, end in pairs if end > begin]


def _part(
    directory: str, split: Split, context: tf.distribute.InputContext | None, batch_size: int, drop_remainder: bool
) -> Part[_RowGroup]:
    shards = Manifest.load(directory).shards(split)
    groups = _row_groups(directory, shards, encoded_schema(Schema.load(os.path.join(directory, SCHEMA_FILE))))
    if context is not None and len(groups) < context.num_input_pipelines:
        groups = [part for g in groups for part in g.cut(context.num_input_pipelines)]
    rows = sum(g.rows for g in groups)
    return part_of(groups, context, batch_size, drop_remainder, f"{directory}: {rows} {split} rows")


def _row_groups(directory: str, shards: Sequence[Shard], expected: pa.Schema) -> list[_RowGroup]:
    groups = []
    for shard in shards:
        path = os.path.join(directory, shard.path)
        try:
            with pq.ParquetFile(path) as file:
                metadata, found = file.metadata, file.schema_arrow
        except FileNotFoundError as e:
            raise ValueError(f"{path}: the shard is listed in the manifest but missing; prepare the data again") from e
        except (pa.ArrowException, OSError) as e:
            raise ValueError(f"{path}: not a readable Parquet file; prepare the data again: {e}") from e
        if metadata.num_rows != shard.rows:
            raise ValueError(f"{path}: {metadata.num_rows} rows, {shard.rows} are expected; prepare the data again")
        for field in expected:
            if field.name not in found.names or found.field(field.name).type != field.type:
                has = found.field(field.name).type if field.name in found.names else "no such column"
                raise ValueError(f"{path}: column {field.name!r} should be {field.type} for this schema, it has: {has}")
        rows = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        groups += [_RowGroup(path, metadata, i, 0, n) for i, n in enumerate(rows)]
    return groups


class _Reader:
    """The batches of one input pipeline, as tuples of NumPy arrays in the order of `signature`."""

    def __init__(self, schema: Schema, part: Part[_RowGroup], rows: RowSource, sort_ids: bool):
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


def _read(group: _RowGroup, schema: Schema) -> Columns:
    with open_shard(group.path, group.metadata) as file:
        table = file.read_row_group(group.index, columns=encoded_schema(schema).names)
        return Columns.of(table.slice(group.begin, group.rows), schema)
