"""Writes prepared data as TFRecord files, for processes that have TensorFlow but not this package.

Parameter server workers and the hosts of a TPU pod run the graph of a dataset, not the Python that `dataset` needs.
For them, PREPARED/records/ holds the rows again. A record is a block of rows, a tf.train.Example with

- for each of `label`, `weight`, `group`, `dense` and `ids` that the schema has, one string of little-endian float32,
  int64 or int32, row by row, and
- for each list column its name and one such string per row, so that TensorFlow's `rebatch` can cut rows out.

The training rows were shuffled before they were written; readers then need to shuffle blocks only.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import shutil
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import tensorflow as tf

from tfrs_dlrm.data.preparing.manifest import PreparedManifest, Split, prepared_fingerprint
from tfrs_dlrm.data.reading.columns import list_columns, matrix_names
from tfrs_dlrm.data.reading.dataset import SHUFFLE_ROWS, row_blocks
from tfrs_dlrm.schema import SCHEMA_FILE, Schema
from tfrs_dlrm.schema.plain import build
from tfrs_dlrm.stores import Progress
from tfrs_dlrm.stores.files import disk_full, put, read_json, well_formed, write_json
from tfrs_dlrm.stores.lock import directory_lock

RECORDS_DIR, RECORDS_FILE = "records", "records.json"
BLOCK_ROWS = 256
_VERSION = 2
_FILES = 64  # or as many as blocks, if those are fewer; each host of a pod reads whole files
_MAX_FILE_BYTES = 256 << 20


@dataclasses.dataclass(frozen=True)
class RecordFile:
    """One TFRecord file: its path below the prepared directory, its rows, its blocks (records), its size in bytes."""

    path: str
    rows: int
    blocks: int
    bytes: int


@dataclasses.dataclass(frozen=True)
class RecordIndex:
    """The content of PREPARED/records/, in its records.json.

    Attributes:
      version: of the format.
      prepared: a hash of the schema and the manifest of the prepared directory.
      train: the files of the training set.
      eval: the files of the evaluation set, in the order of the log.
    """

    version: int
    prepared: str
    train: tuple[RecordFile, ...]
    eval: tuple[RecordFile, ...]

    @classmethod
    def load(cls, directory: str) -> RecordIndex:
        """Reads DIRECTORY/records/records.json, and checks the sizes of the files.

        Raises:
          FileNotFoundError: the directory holds no prepared data, or no records.
          ValueError: the records are of other prepared data, or a file is missing or has another size.
        """
        prepared, path = prepared_fingerprint(directory), os.path.join(directory, RECORDS_DIR, RECORDS_FILE)
        if not os.path.isfile(path):
            raise FileNotFoundError(
                f"{directory}: the data have no records (no {RECORDS_DIR}/{RECORDS_FILE});"
                " tfrs_dlrm.data.reading.records.write_records makes them"
            )
        again = "tfrs_dlrm.data.reading.records.write_records makes them again"
        data = read_json(path, again)
        if not isinstance(data, dict) or data.get("version") != _VERSION or data.get("prepared") != prepared:
            raise ValueError(
                f"{path}: made from other prepared data or by another version of tfrs_dlrm;"
                " tfrs_dlrm.data.reading.records.write_records makes them again"
            )
        with well_formed(path, again):
            index = build(cls, data, "records")
        for file in index.train + index.eval:
            path = os.path.join(directory, file.path)
            has = f"{os.path.getsize(path)} bytes" if os.path.exists(path) else "no such file"
            if has != f"{file.bytes} bytes":
                raise ValueError(
                    f"{path}: {has}, {file.bytes} bytes are expected;"
                    " tfrs_dlrm.data.reading.records.write_records makes the records again"
                )
        return index


def write_records(
    directory: str, *, seed: int = 0, shuffle_rows: int = SHUFFLE_ROWS, progress: Progress | None = None
) -> str:
    """Writes both splits of a prepared directory to DIRECTORY/records/; see `record_dataset` for reading.

    They take 4 bytes per number and id, as the rows in memory. A second process that writes them waits for the first.

    Args:
      directory: a prepared directory.
      seed: of the order of the training rows, which are shuffled once. Readers have another seed.
      shuffle_rows: how many rows are shuffled at a time.
      progress: called with the number of written rows; the stage is `records`.

    Returns:
      The path of the records, which exists once they are complete. Existing records stay, with any seed, since another
      cluster may be reading them. Records of other prepared data, or with a missing or cut off file, are replaced.

    Raises:
      FileNotFoundError: the directory holds no prepared data.
      ValueError: a shard is damaged; see `dataset`.
      OSError: the disk is full.
    """
    home, prepared = os.path.join(directory, RECORDS_DIR), prepared_fingerprint(directory)
    try:
        RecordIndex.load(directory)
        return home
    except (FileNotFoundError, ValueError):
        pass
    with directory_lock(directory, "writes records in it") as lock:
        lock.acquire(wait=lambda owner: True)
        with contextlib.suppress(FileNotFoundError, ValueError):  # another process may have written them meanwhile
            RecordIndex.load(directory)
            return home
        return _write_records(directory, home, prepared, seed, shuffle_rows, progress)


def _write_records(
    directory: str, home: str, prepared: str, seed: int, shuffle_rows: int, progress: Progress | None
) -> str:
    unfinished = f"{home}.unfinished"
    for path in (home, unfinished):
        shutil.rmtree(path, ignore_errors=True)
    os.makedirs(unfinished)
    try:
        with disk_full(directory):
            writer = _RecordWriter(directory, unfinished, progress or (lambda *_: None))
            train, evaluation = writer.write("train", seed, shuffle_rows), writer.write("eval", None, shuffle_rows)
            records = RecordIndex(_VERSION, prepared, train, evaluation)
            write_json(os.path.join(unfinished, RECORDS_FILE), dataclasses.asdict(records))
            put(unfinished, home)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return home


class _RecordWriter:
    """Writes the splits of a prepared directory to `output`."""

    def __init__(self, directory: str, output: str, progress: Progress):
        self._directory, self._output, self._progress = directory, output, progress
        self._schema = Schema.load(os.path.join(directory, SCHEMA_FILE))
        self._manifest = PreparedManifest.load(directory)
        self._total = self._manifest.rows("train") + self._manifest.rows("eval")
        self._rows = 0

    def write(self, split: Split, seed: int | None, shuffle_rows: int) -> tuple[RecordFile, ...]:
        """Writes one split to several files of neighbouring blocks."""
        rows, files = self._manifest.rows(split), list[RecordFile]()
        if rows == 0:
            return ()
        blocks = row_blocks(self._directory, split, BLOCK_ROWS, seed, shuffle_rows)
        blocks_per_file = -(-rows // (BLOCK_ROWS * _FILES))
        while sum(f.rows for f in files) < rows:
            self._progress("records", self._rows, self._total, self._rows)
            files.append(self._write_file(f"{split}-{len(files):05d}.tfrecord", blocks, blocks_per_file))
            self._rows += files[-1].rows
        self._progress("records", self._rows, self._total, self._rows)
        return tuple(files)

    def _write_file(self, name: str, blocks: Iterator[Sequence[np.ndarray]], most: int) -> RecordFile:
        path, rows, count, size = os.path.join(self._output, name), 0, 0, 0
        with tf.io.TFRecordWriter(path) as writer:
            for block in itertools.islice(blocks, most):
                record = _serialized(block, self._schema)
                writer.write(record)
                rows, count, size = rows + len(block[0]), count + 1, size + len(record)
                if size >= _MAX_FILE_BYTES:
                    break
        return RecordFile(f"{RECORDS_DIR}/{name}", rows, count, os.path.getsize(path))


def _serialized(block: Sequence[np.ndarray], schema: Schema) -> bytes:
    """Serializes the arrays of a block, in the order of `signature`, as a tf.train.Example."""
    rest = iter(block)
    columns = {name: [_little_endian(next(rest)).tobytes()] for name in matrix_names(schema)}
    columns |= {name: _row_strings(_little_endian(next(rest)), next(rest)) for name in list_columns(schema)}
    features = {k: tf.train.Feature(bytes_list=tf.train.BytesList(value=v)) for k, v in columns.items()}
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def _little_endian(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<"))


def _row_strings(values: np.ndarray, splits: np.ndarray) -> list[bytes]:
    """Returns the bytes of the values of each row."""
    offsets = (splits * values.itemsize).astype(np.int32)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(values)]
    return pa.Array.from_buffers(pa.binary(), len(splits) - 1, buffers).to_pylist()
