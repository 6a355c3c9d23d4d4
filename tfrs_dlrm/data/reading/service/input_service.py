"""Reads training data from input workers: the same rows in the same order as if this process read them."""

from __future__ import annotations

import atexit
import concurrent.futures
import contextlib
import itertools
import math
import threading
import time
import weakref
from collections.abc import Iterator

import tensorflow as tf
from absl import logging

from tfrs_dlrm.data.preparing.manifest import prepared_fingerprint
from tfrs_dlrm.data.reading.columns import Columns
from tfrs_dlrm.data.reading.row_sources import ReadRequest
from tfrs_dlrm.data.reading.service.buffer import CAPACITY, ReorderBuffer
from tfrs_dlrm.data.reading.service.worker_graph import (
    BLOCK_ROWS,
    WindowBlock,
    decode_rows,
    request_name,
    window_blocks,
)
from tfrs_dlrm.data.reading.windows import ShuffleWindow, ShuffleWindows
from tfrs_dlrm.distribute.cluster import unreachable
from tfrs_dlrm.stores import local_copy

# Blocks that are being sent, or in TensorFlow's buffer.
_OUTSTANDING = 16
# tf.data counts the items of a job to its end.
_NO_END = 1 << 62


class InputService:
    """A dispatcher of input workers, as `tfrs-dlrm input-service` starts them.

    If no worker delivers a window of rows, this process reads it, with a warning. So batches stay the same, and each
    row comes once per epoch, even if workers or the dispatcher fail.

    Args:
      url: grpc://HOST:PORT of the dispatcher.
      patience: seconds to wait for a block of a window before this process reads the window.
      retry: seconds between two attempts to return to a service that is gone.
      answer_within: seconds in which the dispatcher must answer the constructor.
      capacity: bytes of rows that wait for their turn; workers wait if it is reached.

    Attributes:
      received: the number of windows that workers delivered.
      read_here: the number of windows that this process read, at least in part.

    Raises:
      ConnectionError: nothing answers, or it is no dispatcher.
    """

    def __init__(
        self,
        url: str,
        patience: float = 15.0,
        retry: float = 30.0,
        answer_within: float = 20.0,
        capacity: int = CAPACITY,
    ):
        self.address = url.removeprefix("grpc://")
        self.patience, self.retry, self.capacity = patience, retry, capacity
        self.received = self.read_here = 0
        _look_for_dispatcher(self.address, answer_within)

    @contextlib.contextmanager
    def open(
        self, job: ReadRequest, windows: ShuffleWindows, first_epoch: int, first_row: int, repeat: bool
    ) -> Iterator[_ServiceRows]:
        """Opens the rows of a request; see `RowService`."""
        first = _item(windows, windows.of(first_epoch, first_row)[0])
        rows = _ServiceRows(self, job, windows, first, _NO_END if repeat else (first_epoch + 1) * windows.most)
        try:
            yield rows
        finally:
            rows.close()


class _ServiceRows:
    """The rows of one iterator over a dataset."""

    def __init__(self, service: InputService, job: ReadRequest, windows: ShuffleWindows, first: int, end: int):
        self._service, self._job, self._windows, self._end = service, job, windows, end
        self._prepared = prepared_fingerprint(local_copy(job.directory))
        self._pool = concurrent.futures.ThreadPoolExecutor(1)
        self._ahead: dict[int, concurrent.futures.Future[Columns]] = {}
        self._gone = False
        self._retry_at = math.inf
        self._buffer = self._begin(first)

    def rows(self, epoch: int, first_row: int) -> Iterator[Columns]:
        """Yields the rows of an epoch; see `RowSource`."""
        todo = self._windows.of(epoch, first_row)
        for window, following in itertools.zip_longest(todo, todo[1:]):
            yield from self._window(window, following)

    def close(self) -> None:
        """Ends the receiving thread at its next block, and cancels reading ahead."""
        self._buffer.close()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _window(self, window: ShuffleWindow, following: ShuffleWindow | None) -> Iterator[Columns]:
        item, done = _item(self._windows, window), window.skip
        count = -(-window.rows // BLOCK_ROWS)
        for number in range(done // BLOCK_ROWS, count):
            data = self._take(item, number)
            if data is None:
                if not self._buffer.closed:  # otherwise the program ends
                    yield self._read_here(window._replace(skip=done), following)
                return
            begin, columns = number * BLOCK_ROWS, decode_rows(data)
            if number == count - 1:
                self._came(item)
            yield columns.slice(done - begin, len(columns)) if done > begin else columns
            done = begin + len(columns)

    def _came(self, item: int) -> None:
        self._ahead.pop(item, None)
        self._service.received += 1
        if self._gone:
            self._gone = False
            logging.warning("the input service at %s is back", self._service.address)

    def _take(self, item: int, number: int) -> bytes | None:
        data = self._buffer.take(item, number)
        if data is not None or not self._buffer.useless:
            self._retry_at = math.inf
        elif self._retry_at == math.inf:
            self._retry_at = time.monotonic() + self._service.retry
        elif time.monotonic() >= self._retry_at:
            self._buffer.close()
            self._retry_at = math.inf
            self._buffer = self._begin(item + 1)  # this process reads the current item
        return data

    def _read_here(self, window: ShuffleWindow, following: ShuffleWindow | None) -> Columns:
        service, buffer = self._service, self._buffer
        self._tell(window)
        service.read_here += 1
        item = _item(self._windows, window)
        ahead = self._ahead.pop(item, None)
        columns = self._windows.load(window) if ahead is None else ahead.result()
        if ahead is not None and window.skip:
            columns = columns.slice(window.skip, len(columns))
        if buffer.away and following is not None:
            self._ahead[item + 1] = self._pool.submit(self._windows.load, following)
        return columns

    def _tell(self, window: ShuffleWindow) -> None:
        service, where = self._service, f"window {window.number} of epoch {window.epoch}"
        if self._gone:
            return
        if not self._buffer.away:
            text = "%s from the input service at %s: %s; this process reads it (%d so far)"
            logging.warning(text, where, service.address, self._buffer.reason, service.read_here + 1)
            return
        self._gone = True
        text = "the input service at %s is gone (%s): this process reads rows from %s on, until it is back"
        logging.warning(text, service.address, self._buffer.reason, where)

    def _begin(self, first: int) -> ReorderBuffer:
        """Asks for the items from `first` on, in a thread, since TensorFlow waits for answers without end."""
        buffer = ReorderBuffer(first, self._service.patience, self._service.capacity)
        _OPEN.add(buffer)
        if first >= self._end:
            buffer.end("the epoch has ended")
            return buffer
        data = window_blocks(self._job, self._prepared, first, self._end)
        arguments = (self._service.address, data, request_name(self._job, self._prepared), buffer)
        threading.Thread(target=_receive, args=arguments, name="input service", daemon=True).start()
        return buffer


def _item(windows: ShuffleWindows, window: ShuffleWindow) -> int:
    return window.epoch * windows.most + window.number


def _receive(address: str, data: tf.data.Dataset, request: str, buffer: ReorderBuffer) -> None:
    """Puts blocks from the service into the buffer until the service ends or the buffer is closed.

    After a restart of the dispatcher, a worker may answer another request. Then the service has to be asked again.
    """
    try:
        reason = unreachable([address]).get(address)
        if reason:
            buffer.end(reason)
            return
        tf_service = tf.data.experimental.service
        distribute = tf_service.distribute(
            processing_mode=tf_service.ShardingPolicy.DYNAMIC,
            service=f"grpc://{address}",
            compression=None,
            max_outstanding_requests=_OUTSTANDING,
        )
        with tf.device("CPU:0"):
            for item, number, worker, content, name in data.apply(distribute).as_numpy_iterator():
                if name.decode() != request:
                    buffer.end(f"input worker {worker.decode()} still answers a request of an earlier dispatcher")
                    return
                if not buffer.put(WindowBlock(int(item), int(number), worker.decode(), content)):
                    return
        buffer.end("it has sent all requested items")
    except Exception as e:
        buffer.end(str(e).split("\n", 1)[0] or type(e).__name__)


_OPEN: weakref.WeakSet[ReorderBuffer] = weakref.WeakSet()


@atexit.register  # runs before that of dataset.py, which waits for threads that wait for a block
def _close_all() -> None:
    for buffer in list(_OPEN):
        buffer.close()


def _look_for_dispatcher(address: str, seconds: float) -> None:
    port = address.rpartition(":")[2]
    advice = f"`tfrs-dlrm input-service --port={port}` starts one on this machine, see docs/guides/input-service.md"
    deadline = time.monotonic() + seconds
    while reason := unreachable([address]).get(address):
        if time.monotonic() > deadline:
            raise ConnectionError(f"no input service at {address} within {seconds:g} seconds ({reason}); {advice}")
        time.sleep(0.2)
    answer = ["no answer"]

    def ask() -> None:
        try:
            with tf.device("CPU:0"):
                tf.data.experimental.service.register_dataset(f"grpc://{address}", tf.data.Dataset.range(1))
            answer[0] = ""
        except Exception as e:
            answer[0] = str(e).split("\n", 1)[0]

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(max(2.0, deadline - time.monotonic()))
    if answer[0]:
        raise ConnectionError(f"what listens at {address} is no dispatcher of input workers ({answer[0]}); {advice}")
