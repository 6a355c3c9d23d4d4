"""The part of a request that runs in input workers: a tf.data graph around a Python function.

tf.data's service sends a graph to its workers, but no Python functions: the graph only holds the name of the function
in the process that runs it. TensorFlow numbers these names, so the first function of each process has the same name.
A worker makes sure that its first function is `load`.

An item is a window of an epoch, numbered `epoch * ShuffleWindows.most + window`. The dispatcher hands each item out
once, to one worker. The trainer knows which items it needs, and reads lost ones itself.

A restarted dispatcher numbers its tasks from the beginning. A worker that has a task of that number from the earlier
dispatcher keeps the old task, and a trainer would get rows of another request. So each block names its request.
"""

from __future__ import annotations

import functools
import hashlib
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import tensorflow as tf
from absl import logging

from tfrs_dlrm.data.preparing.manifest import prepared_fingerprint
from tfrs_dlrm.data.reading.columns import Columns
from tfrs_dlrm.data.reading.row_groups import windows_of
from tfrs_dlrm.data.reading.row_sources import ReadRequest
from tfrs_dlrm.data.reading.windows import ShuffleWindows
from tfrs_dlrm.stores import local_copy

# Rows per message: 2.6 MB of Criteo rows.
BLOCK_ROWS = 1 << 14
_TOKEN = "pyfunc_0"
# Numbers of blocks that hold an error message: for one window, or for the whole request.
LOST, REFUSED = -1, -2
_WORKER = ["?"]


class WindowBlock(NamedTuple):
    """A message of a worker: the rows of an item from `BLOCK_ROWS * number` on, or an error."""

    item: int
    number: int
    worker: str
    data: bytes


def request_name(job: ReadRequest, prepared: str) -> str:
    """Returns a digest of a request and of the prepared data that it reads: items and blocks depend on nothing else."""
    return _digest(job.to_json(), prepared)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def window_blocks(job: ReadRequest, prepared: str, first: int, end: int) -> tf.data.Dataset:
    """Makes the dataset of the blocks of items `first` to before `end`.

    Its elements are the fields of `WindowBlock`, and the `request_name` of the request that the worker answers.

    Args:
      job: the request.
      prepared: the `prepared_fingerprint` of the prepared directory; a worker refuses another one.
      first: the first item.
      end: the item behind the last.
    """
    request = tf.constant([job.to_json(), prepared])

    def read(item: tf.Tensor) -> tuple[tf.Tensor, ...]:
        numbers, worker, data, name = tf.raw_ops.PyFuncStateless(
            input=[request, item], token=_TOKEN, Tout=[tf.int64, tf.string, tf.string, tf.string]
        )
        numbers, data = tf.ensure_shape(numbers, [None]), tf.ensure_shape(data, [None])
        count = tf.shape(numbers)
        worker, name = (tf.fill(count, tf.ensure_shape(text, [])) for text in (worker, name))
        return tf.fill(count, item), numbers, worker, data, name

    windows = tf.data.Dataset.range(first, end).map(read).prefetch(1)
    return windows.flat_map(lambda *columns: tf.data.Dataset.from_tensor_slices(columns))


def load(request: np.ndarray, item: np.int64) -> tuple[np.ndarray, np.bytes_, np.ndarray, np.bytes_]:
    """Reads, shuffles and encodes a window.

    If the epoch has no window of that number, the result has no blocks. Errors are sent as blocks: if they were raised,
    the trainer would not get the name of the worker.

    Returns:
      The numbers of its blocks, the name of this worker, the bytes of the blocks, and the name of the request.
    """
    number, data = np.zeros([0], np.int64), list[bytes]()
    job, prepared = (bytes(part).decode() for part in request)
    try:
        windows = _windows(job, prepared)
        try:
            data = _window(windows, int(item))
            number = np.arange(len(data), dtype=np.int64)
        except Exception as e:
            logging.warning("item %d cannot be read", item, exc_info=True)
            number, data = np.array([LOST], np.int64), [_message(e)]
    except Exception as e:
        number, data = np.array([REFUSED], np.int64), [_message(e)]
    out = np.empty([len(data)], object)
    out[:] = data
    return number, np.bytes_(_WORKER[0].encode()), out, np.bytes_(_digest(job, prepared).encode())


def register(worker: str) -> object:
    """Makes the graphs of `window_blocks` call `load` in this process, for as long as the result is kept.

    Args:
      worker: the name of this worker.

    Raises:
      RuntimeError: this process has registered other functions.
    """
    _WORKER[0] = worker
    with tf.Graph().as_default() as graph:
        outputs = [tf.int64, tf.string, tf.string, tf.string]
        tf.numpy_function(load, [tf.constant(["", ""]), tf.constant(0, tf.int64)], outputs)
    names = [op.get_attr("token").decode() for op in graph.get_operations() if op.type.startswith("PyFunc")]
    if names != [_TOKEN]:
        raise RuntimeError(f"TensorFlow calls the function {names}; run the input worker in a new process")
    return graph


def _message(error: Exception) -> bytes:
    return f"{type(error).__name__}: {error}".encode()


@functools.lru_cache(maxsize=4)
def _windows(request: str, prepared: str) -> ShuffleWindows:
    job = ReadRequest.from_json(request)
    found = prepared_fingerprint(local_copy(job.directory))
    if found != prepared:
        raise ValueError(f"{job.directory}: not the prepared data that the trainer sees under this name")
    part = job.pipelines, job.pipeline
    return windows_of(job.directory, job.split, job.seed, job.shuffle_rows, *part, job.whole_groups)


def _window(windows: ShuffleWindows, item: int) -> list[bytes]:
    epoch, number = divmod(item, windows.most)
    all_of_them = windows.of(epoch)
    if number >= len(all_of_them):
        return []
    rows = windows.load(all_of_them[number])
    return [encode_rows(rows.slice(i, min(i + BLOCK_ROWS, len(rows)))) for i in range(0, len(rows), BLOCK_ROWS)]


def encode_rows(columns: Columns) -> bytes:
    """Encodes rows in Arrow's stream format, which holds no code."""
    arrays = [_column(m) for m in columns.matrices] + columns.lists
    batch = pa.record_batch(arrays, names=[str(i) for i in range(len(arrays))])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    return sink.getvalue().to_pybytes()


def decode_rows(data: bytes) -> Columns:
    """Decodes rows of `encode_rows`; they share the memory of `data` and are read-only.

    Raises:
      ValueError: the data are no such encoding.
    """
    try:
        with pa.ipc.open_stream(pa.py_buffer(data)) as stream:
            batch = stream.read_next_batch()
    except (pa.ArrowException, OSError, StopIteration) as e:
        raise ValueError(f"a block of {len(data)} bytes from an input worker cannot be read: {e}") from e
    lists = [c for c in batch.columns if pa.types.is_list(c.type)]
    return Columns([_matrix(c) for c in batch.columns if not pa.types.is_list(c.type)], lists)


def _column(matrix: np.ndarray) -> pa.Array:
    values = pa.array(np.ascontiguousarray(matrix).reshape(-1))
    return values if matrix.ndim == 1 else pa.FixedSizeListArray.from_arrays(values, matrix.shape[1])


def _matrix(column: pa.Array) -> np.ndarray:
    if not pa.types.is_fixed_size_list(column.type):
        return column.to_numpy()
    return column.flatten().to_numpy().reshape(len(column), column.type.list_size)
