"""Reads records as batches for `model.fit`, with TensorFlow ops only, which run in any process."""

from __future__ import annotations

import os
from collections.abc import Sequence

import tensorflow as tf

from tfrs_dlrm.data.preparing.manifest import PreparedManifest, Split
from tfrs_dlrm.data.reading.columns import assemble, list_columns, matrix_names, signature
from tfrs_dlrm.data.reading.dataset import SHUFFLE_ROWS
from tfrs_dlrm.data.reading.parts import PipelineShare, pipeline_share, prefetched
from tfrs_dlrm.data.reading.records import BLOCK_ROWS, RecordFile, RecordIndex
from tfrs_dlrm.schema import SCHEMA_FILE, Schema

_FILES_AT_A_TIME = 16


def record_dataset(
    directory: str,
    batch_size: int,
    *,
    split: Split = "train",
    shuffle: bool | None = None,
    seed: int | None = None,
    start_step: int = 0,
    repeat: bool = False,
    drop_remainder: bool | None = None,
    context: tf.distribute.InputContext | None = None,
    shuffle_rows: int = SHUFFLE_ROWS,
) -> tf.data.Dataset:
    """Makes a dataset of the batches of `dataset` from records, as a graph that runs in any process.

    It is for `ClusterCoordinator.create_per_worker_dataset` and `Strategy.distribute_datasets_from_function`. The
    workers must find the files under the same path as this process.

    Args:
      directory: a prepared directory with records.
      batch_size: B, summed over all replicas.
      split: `train` or `eval`.
      shuffle: shuffles files, and blocks of 256 rows; by default for `train` only.
      seed: of that order, with `tf.random.set_seed`. A number gives each epoch another order, the same in every
        process. None gives each iterator another order, as the workers of an asynchronous cluster need.
      start_step: the number of batches to skip, over all epochs. Needs `repeat`, and a seed if shuffled.
      repeat: repeats epochs without end. Otherwise an iterator ends after an epoch, and each new one has another order.
      drop_remainder: drops the last, smaller batch of an epoch; by default if shuffled.
      context: the input pipeline. Each pipeline gets some files, and B / number of replicas rows per batch. If the
        remainder is dropped, all have the same number of batches; otherwise each gives all of its rows.
      shuffle_rows: how many rows are in memory to draw blocks from.

    Raises:
      FileNotFoundError: the directory holds no prepared data, or no records.
      ValueError: the records are of other prepared data, or a file is missing or cut off. The split is empty, or has
        too few rows for one batch or too few files for the pipelines. Other damage is an error of the iterator.
    """
    shuffle = split == "train" if shuffle is None else shuffle
    drop_remainder = shuffle if drop_remainder is None else drop_remainder
    if batch_size < 1 or start_step < 0:
        raise ValueError(f"batch_size={batch_size} and start_step={start_step}: give at least 1 and 0")
    if start_step and (not repeat or (shuffle and seed is None)):
        raise ValueError(f"start_step={start_step} needs repeat=True, and a seed where the rows are shuffled")
    PreparedManifest.load(directory).shards(split)  # raises if the split is empty
    files: tuple[RecordFile, ...] = getattr(RecordIndex.load(directory), split)
    part = pipeline_share(files, context, batch_size, drop_remainder, f"{directory}: {len(files)} files of records")
    if part.batches == 0:
        raise ValueError(
            f"{directory}: {part.rows} {split} rows are too few for a batch of {part.batch_size}; lower the batch size"
        )
    schema = Schema.load(os.path.join(directory, SCHEMA_FILE))
    first_epoch, skip = divmod(start_step, part.batches)

    def epoch(number: tf.Tensor, epoch_seed: tf.Tensor) -> tf.data.Dataset:
        records = _records(directory, part, epoch_seed if shuffle else None, shuffle_rows)
        rows = records.map(lambda record: _parse(record, schema), num_parallel_calls=tf.data.AUTOTUNE)
        batches = rows.rebatch(part.batch_size, drop_remainder=drop_remainder).take(part.batches)
        return batches.skip(tf.where(number == 0, tf.constant(skip, tf.int64), 0)) if skip else batches

    seeds = _epoch_seeds(seed).skip(first_epoch) if repeat else _epoch_seeds(seed).take(1)
    data = seeds.enumerate().flat_map(epoch)
    data = data.map(lambda *columns: _assemble(columns, schema), num_parallel_calls=tf.data.AUTOTUNE)
    data = data.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY if repeat else part.batches))
    return prefetched(data)


def _epoch_seeds(seed: int | None) -> tf.data.Dataset:
    """Yields a random number per epoch, without end."""
    if seed is not None:
        return tf.data.Dataset.random(seed, rerandomize_each_iteration=True)

    def draw(_: tf.Tensor) -> tf.Tensor:
        # With two seeds of 0 the op ignores `tf.random.set_seed`, under which all workers would read in one order.
        low, high = tf.constant(0, tf.int64), tf.constant(2**62, tf.int64)
        return tf.raw_ops.RandomUniformInt(shape=tf.zeros([0], tf.int32), minval=low, maxval=high, seed=0, seed2=0)

    return tf.data.Dataset.counter().map(draw)


def _records(
    directory: str, part: PipelineShare[RecordFile], seed: tf.Tensor | None, shuffle_rows: int
) -> tf.data.Dataset:
    """The serialized blocks of an epoch; without a seed, in the order of the files."""
    # Another process may have another working directory.
    paths = [os.path.abspath(os.path.join(directory, file.path)) for file in part.chunks]
    sizes = tf.constant([[file.bytes, file.blocks] for file in part.chunks], tf.int64)
    files = tf.data.Dataset.from_tensor_slices((paths, sizes[:, 0], sizes[:, 1]))
    if seed is None:
        return files.flat_map(_blocks)
    files = files.shuffle(len(paths), seed)
    records = files.interleave(_blocks, cycle_length=_FILES_AT_A_TIME, num_parallel_calls=tf.data.AUTOTUNE)
    return records.shuffle(max(1, shuffle_rows // BLOCK_ROWS), seed)


def _blocks(path: tf.Tensor, size: tf.Tensor, count: tf.Tensor) -> tf.data.Dataset:
    """The serialized blocks of a file of `size` bytes; errors name the file, unlike TensorFlow's."""

    def damaged(path: tf.Tensor) -> tf.Tensor:
        advice = "remove its directory and let tfrs_dlrm.data.reading.records.write_records make it again"
        message = tf.strings.join([path, ": damaged; ", advice])
        with tf.control_dependencies([tf.debugging.Assert(False, [message])]):
            return tf.identity(path)

    # An error in a record ends the file, and `error` is the next element. After an error in opening the file,
    # `ignore_errors` would try again for ever; so the first 8 bytes are read without it, and that error names the file.
    first = tf.data.FixedLengthRecordDataset(path, record_bytes=8, footer_bytes=size - 8).take(1)
    blocks = first.flat_map(lambda _: tf.data.TFRecordDataset(path).ignore_errors(log_warning=True))
    error = tf.data.Dataset.from_tensors(path).map(damaged)
    return blocks.concatenate(error).take(count)


def _parse(record: tf.Tensor, schema: Schema) -> tuple[tf.Tensor, ...]:
    """Parses the rows of a block: matrices, then for each list column a string [rows]."""
    names, specs = matrix_names(schema), signature(schema, None, sort_ids=False)
    wanted = {name: tf.io.FixedLenFeature([], tf.string) for name in names}
    lists = {n: tf.io.FixedLenSequenceFeature([], tf.string, allow_missing=True) for n in list_columns(schema)}
    parsed = tf.io.parse_single_example(record, wanted | lists)
    matrices = [
        tf.reshape(tf.io.decode_raw(parsed[name], spec.dtype), [-1, *spec.shape[1:]])
        for name, spec in zip(names, specs, strict=False)
    ]
    return (*matrices, *(parsed[name] for name in lists))


def _assemble(columns: Sequence[tf.Tensor], schema: Schema) -> tuple:
    """Makes a batch in the form of `dataset`."""
    matrices = len(matrix_names(schema))
    flat, specs = list(columns[:matrices]), signature(schema, None, sort_ids=False)
    for strings, spec in zip(columns[matrices:], specs[matrices::2], strict=True):
        values = tf.io.decode_raw(tf.strings.reduce_join(strings), spec.dtype)
        lengths = tf.cast(tf.strings.length(strings) // spec.dtype.size, tf.int64)
        flat += [values, tf.concat([tf.zeros([1], tf.int64), tf.cumsum(lengths)], axis=0)]
    return assemble(schema, flat, sort_ids=False)
