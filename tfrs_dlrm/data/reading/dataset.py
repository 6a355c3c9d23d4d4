"""Reads encoded Parquet, or a frame in memory, as batches for `model.fit`.

The order of the examples is a function of (seed, epoch, step). Each input pipeline gets some row groups. In each epoch
it shuffles them, joins neighbours to windows, and shuffles the rows of each window. The file footers tell where windows
begin, so a dataset can start at any step without reading earlier rows.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from tfrs_dlrm.data.encoding.encoder import Encoder
from tfrs_dlrm.data.preparing.manifest import Split, check_split
from tfrs_dlrm.data.raw.frames import ArrowStream, is_frame
from tfrs_dlrm.data.reading.columns import Columns, IdOrders, assemble, group_column, signature
from tfrs_dlrm.data.reading.frame_rows import share_of_frame
from tfrs_dlrm.data.reading.parts import PipelineShare, prefetched
from tfrs_dlrm.data.reading.row_groups import share_of_split, shuffle_windows
from tfrs_dlrm.data.reading.row_sources import ReadRequest, RowService, RowSource
from tfrs_dlrm.data.reading.whole_groups import batches_of_groups
from tfrs_dlrm.data.reading.windows import ShuffleWindows
from tfrs_dlrm.messages.arguments import checked
from tfrs_dlrm.schema import SCHEMA_FILE, Schema
from tfrs_dlrm.stores import local_copy

# About 80 MB of Criteo rows; two windows are in memory at a time.
SHUFFLE_ROWS = 1 << 19


@checked
def dataset(
    data: str | ArrowStream,
    batch_size: int,
    *,
    encoder: Encoder | str | None = None,
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
    whole_groups: bool | None = None,
) -> tf.data.Dataset:
    """Makes a dataset of batches `(features, label)`, or `(features, label, weight)`.

    There are weights if the schema has a weight or a group.

    `features` holds `dense`, float32 [B, schema.dense_width]; `ids`, int32 [B, F], the table rows of the one-hot
    features; for each multi-valued feature its name, a RaggedTensor int32 [B, None]; and `NAME_weights` if it has
    weights. If the schema has a group, `group`, int64 [B], is a hash of its value. `label` and `weight` are float32
    [B]; with several labels, `label` is [B, len(schema.labels)], NaN where one of `schema.more_labels` is missing.

    Args:
      data: a prepared directory, on a disk or in an object store, which is copied to the local cache. Or a pandas or
        polars DataFrame, a pyarrow Table or a DuckDB relation of raw values, which is encoded here and kept in memory:
        for the batches that `prepare` and this function would make of it together.
      batch_size: B, summed over all replicas.
      encoder: for data in memory: of `fit_encoder`, `Encoder.load`, or the prepared directory that has it.
      split: `train` or `eval`; of data in memory it says how they are used.
      shuffle: whether to shuffle; by default for `train` only.
      seed: of the order.
      start_step: the number of batches to skip, over all epochs; they are not read.
      repeat: repeats epochs without end. Otherwise an iterator ends after an epoch, and each new iterator, such as
        `model.fit` makes per epoch, is over the next epoch.
      drop_remainder: drops the last, smaller batch of an epoch. By default if shuffled, since other rows are dropped
        in each epoch then.
      context: the input pipeline. Each pipeline gets a part of the rows, and B / number of replicas rows per batch.
        If the remainder is dropped, all have the same number of batches; otherwise each gives all of its rows.
      shuffle_rows: how many rows are shuffled at a time.
      sort_ids: also sorts the ids of tables that multi-valued features look up, for `model.fit` on one device, since
        NumPy sorts much faster than the train step. The permutation, int32 [n] under `Table.order_key`, is of the
        whole batch, so a strategy with several replicas cannot split it.
      service: input workers that read and shuffle the same batches; see `InputService`.
      whole_groups: shuffles the groups of the schema, and not single rows, and cuts none by a batch or, where Keras
        splits batches over the replicas of the strategy in scope, by a replica. Batches are filled up by rows of weight
        0. By default if the rows are shuffled and the schema has a group. Of a group whose rows are in several windows
        of `shuffle_rows` rows, each window has a group of its own. `start_step` reads the batches that it skips.

    Raises:
      FileNotFoundError: the directory holds no prepared data.
      BadRowError: a row in memory cannot be used.
      ValueError: a shard is damaged or does not match the schema, a column is missing, the split is unknown or empty,
        or has too few rows for one batch.
    """
    shuffle = split == "train" if shuffle is None else shuffle
    drop_remainder = shuffle if drop_remainder is None else drop_remainder
    if batch_size < 1 or start_step < 0:
        raise ValueError(f"batch_size={batch_size} and start_step={start_step}: give at least 1 and 0")
    check_split(split)
    if whole_groups and not (shuffle and drop_remainder):
        raise ValueError(
            f"whole_groups=True, shuffle={shuffle}, drop_remainder={drop_remainder}: batches of whole groups are"
            " shuffled, and of a fixed number; leave shuffle and drop_remainder out, or whole_groups"
        )
    order = seed if shuffle else None
    share: PipelineShare[Any]
    if isinstance(data, (str, os.PathLike)):
        if encoder is not None:
            raise ValueError(f"encoder=...: {data} is prepared, and so encoded already; leave it out")
        directory = local_copy(data)
        share = share_of_split(directory, split, context, batch_size, drop_remainder)
        schema = Schema.load(os.path.join(directory, SCHEMA_FILE))
        whole_groups = _of_groups(schema, whole_groups, shuffle and drop_remainder)
        windows = shuffle_windows(schema, share, order, shuffle_rows, whole_groups)
    else:
        encoder, directory = _encoder_of(data, encoder, service), f"the {type(data).__name__}"
        schema = encoder.schema
        share = share_of_frame(data, encoder, context, batch_size, drop_remainder)
        whole_groups = _of_groups(schema, whole_groups, shuffle and drop_remainder)
        groups = group_column(schema) if whole_groups else None
        windows = ShuffleWindows(share.chunks, lambda chunk: chunk.columns, order, shuffle_rows, groups)
    per_epoch = share.batches
    if per_epoch == 0:
        raise ValueError(
            f"{directory}: {share.rows} {split} rows are too few for a batch of {share.batch_size}; lower it"
        )

    def open_rows(epoch: int, first_row: int) -> contextlib.AbstractContextManager[RowSource]:
        if service is None:
            return contextlib.nullcontext(windows)
        request = ReadRequest.of(str(data), split, order, shuffle_rows, context, whole_groups)
        return service.open(request, windows, epoch, first_row, repeat)

    parts = _parts(share.batch_size, context) if whole_groups else 0
    epochs = _Epochs(_BatchReader(schema, share, sort_ids, parts), open_rows, start_step, repeat)
    size = share.batch_size if drop_remainder else None
    batches = tf.data.Dataset.from_generator(epochs, output_signature=signature(schema, size, sort_ids))
    # Without AutoGraph, which takes longer to rewrite these plain operations than to trace them.
    assembled = tf.autograph.experimental.do_not_convert(lambda *columns: assemble(schema, columns, sort_ids))
    batches = batches.map(assembled, num_parallel_calls=1, deterministic=True)
    cardinality = tf.data.INFINITE_CARDINALITY if repeat else per_epoch
    if repeat or start_step % per_epoch == 0:
        batches = batches.apply(tf.data.experimental.assert_cardinality(cardinality))
    return prefetched(batches, tuned=False)


def _of_groups(schema: Schema, given: bool | None, by_default: bool) -> bool:
    """Returns whether batches have whole groups."""
    return by_default and bool(schema.group) if given is None else given


def _parts(size: int, context: tf.distribute.InputContext | None) -> int:
    """Returns into how many parts Keras splits a batch.

    Raises:
      ValueError: they are of different sizes.
    """
    replicas = tf.distribute.get_strategy().num_replicas_in_sync if context is None else 1
    if size % replicas:
        raise ValueError(
            f"batch_size={size}: batches of whole groups need a multiple of the {replicas} replicas of the strategy"
        )
    return replicas


def _encoder_of(data: object, encoder: Encoder | str | None, service: RowService | None) -> Encoder:
    """Returns the encoder of data in memory."""
    kind = type(data).__name__
    if not is_frame(data):
        raise ValueError(f"a {kind} is neither a prepared directory nor a table; give a DataFrame or a pyarrow Table")
    if service is not None:
        raise ValueError(f"service=...: input workers do not see the {kind}; prepare it, and give the directory")
    if encoder is None:
        raise ValueError(
            f"the {kind} has raw values, which need an encoder: give encoder=tfrs_dlrm.fit_encoder(schema, frame), of"
            " the training rows, or the directory that prepare wrote"
        )
    return encoder if isinstance(encoder, Encoder) else Encoder.load(encoder)


@checked
def steps_per_epoch(
    directory: str, batch_size: int, split: Split = "train", pipelines: int = 1, replicas: int | None = None
) -> int:
    """Counts the batches in an epoch of `dataset`, with the defaults for its split.

    Args:
      directory: a prepared directory.
      batch_size: summed over all replicas.
      split: `train` (the last, smaller batch is dropped) or `eval`.
      pipelines: the number of input pipelines.
      replicas: the number of replicas of all pipelines; by default one each.
    """
    context = tf.distribute.InputContext(
        num_input_pipelines=pipelines, num_replicas_in_sync=pipelines if replicas is None else replicas
    )
    return share_of_split(local_copy(directory), split, context, batch_size, split == "train").batches


def row_blocks(
    directory: str, split: Split, rows: int, seed: int | None, shuffle_rows: int = SHUFFLE_ROWS
) -> Iterator[tuple[np.ndarray, ...]]:
    """Yields all rows of a split once, as arrays in the order of `signature`.

    Args:
      directory: a prepared directory.
      split: `train` or `eval`.
      rows: the rows of one block; the last may have fewer.
      seed: of the order, as in the first epoch of `dataset`; None means the order of the log.
      shuffle_rows: see `dataset`.
    """
    directory = local_copy(directory)
    share = share_of_split(directory, split, None, rows, drop_remainder=False)
    schema = Schema.load(os.path.join(directory, SCHEMA_FILE))
    source = shuffle_windows(schema, share, seed, shuffle_rows)
    return _BatchReader(schema, share, sort_ids=False).batches(source, 0, 0)


class _Exit:
    """Keeps TensorFlow's threads out of Python while the interpreter ends; a thread inside would never return."""

    begun = threading.Event()
    inside = 0
    lock = threading.Lock()

    @classmethod
    def wait(cls) -> None:
        cls.begun.set()
        deadline = time.monotonic() + 10
        while cls.inside and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05)  # for threads to return to TensorFlow


atexit.register(_Exit.wait)


def _until_exit(epochs: Iterator[Iterator[tuple]]) -> Iterator[tuple]:
    """Yields all batches of all epochs, until the interpreter begins to end."""
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
    """The batches of one input pipeline, as tuples of NumPy arrays in the order of `signature`.

    Args:
      schema: of the rows.
      share: of the pipeline.
      sort_ids: see `dataset`.
      parts: the number of parts of a batch with whole groups each; 0 cuts groups.
    """

    def __init__(self, schema: Schema, share: PipelineShare[Any], sort_ids: bool, parts: int = 0):
        self.share, self._parts = share, parts
        self._groups = group_column(schema) if parts else 0
        self._orders = IdOrders(schema) if sort_ids else None

    def first_row(self, skip: int) -> int:
        """Returns the first row to read of an epoch whose first `skip` batches are skipped."""
        return 0 if self._parts else skip * self.share.batch_size

    def batches(self, source: RowSource, epoch: int, skip: int) -> Iterator[tuple[np.ndarray, ...]]:
        """Yields the batches of an epoch from batch `skip` on."""
        size, left = self.share.batch_size, self.share.batches - skip
        if self._parts:  # only rows tell which groups are in a batch
            found = batches_of_groups(source.rows(epoch, 0), self._groups, size, self._parts)
            yield from map(self._arrays, itertools.islice(found, skip, self.share.batches))
            return
        rest: Columns | None = None
        for columns in source.rows(epoch, skip * size):
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


class _Epochs:
    """Makes the iterators over a dataset: each is over the next epoch, or with `repeat` over it and all that follow.

    Args:
      reader: makes batches of rows.
      open_rows: opens the source of the rows, for an epoch and the first row of it.
      start_step: how many batches of the first epochs to skip.
      repeat: whether an iterator never ends.
    """

    def __init__(
        self,
        reader: _BatchReader,
        open_rows: Callable[[int, int], contextlib.AbstractContextManager[RowSource]],
        start_step: int,
        repeat: bool,
    ):
        self._reader, self._open_rows, self._repeat = reader, open_rows, repeat
        self._first, self._skip = divmod(start_step, reader.share.batches)
        self._next = itertools.count(self._first)

    def __call__(self) -> Iterator[tuple]:
        begin = next(self._next)
        skip = self._skip if begin == self._first else 0
        epochs = itertools.count(begin) if self._repeat else [begin]
        with self._open_rows(begin, self._reader.first_row(skip)) as source:
            read = self._reader.batches
            yield from _until_exit(read(source, epoch, 0 if epoch > begin else skip) for epoch in epochs)
