"""A sample of scored rows, as tf.Examples in TFRecord files. Joined with labels, they are training data."""

from __future__ import annotations

import fcntl
import glob
import os
import threading
import time
from collections.abc import Mapping
from typing import BinaryIO

import numpy as np
from absl import logging

from tfrs_dlrm.messages.log_rate import LogRate
from tfrs_dlrm.serving.runtime import protos
from tfrs_dlrm.serving.runtime.tfrecord import record, whole_bytes
from tfrs_dlrm.stores.files import local_path

# The fields of a row that are no raw features. A feature of such a name is renamed by `feature_name`.
LOG_FIELDS = ("request_id", "row", "timestamp", "model_version", "probability")
UNFINISHED = ".unfinished"


def feature_name(name: str) -> str:
    """Returns the name of a raw feature in the log: unchanged, unless it is one of `LOG_FIELDS`."""
    return f"feature/{name}" if name in LOG_FIELDS else name


class RequestLog:
    """Writes rows to `requests-*.tfrecord` in a directory; a file of such a name is whole and does not change.

    The name of an unfinished file ends in `.unfinished`. The next log of the directory finishes the files of killed
    processes. Threads may share a log. Errors of `write`, such as a full disk, are counted and not raised: a request
    that was scored is answered.

    Args:
      directory: made if it does not exist.
      fraction: of the rows, in (0, 1]; `sample` chooses each row at random.
      seed: of the sample; by default random.
      max_bytes_per_file: the size at which a file is finished.
      max_seconds_per_file: the age at which the next row or `finish_old` finishes a file.

    Attributes:
      written: the number of rows that were written.
      failed: the number of rows that could not be written.

    Raises:
      ValueError: the fraction or a limit is out of range.
      OSError: the directory cannot be made.
    """

    def __init__(
        self,
        directory: str,
        fraction: float,
        seed: int | None = None,
        max_bytes_per_file: int = 64 << 20,
        max_seconds_per_file: float = 600.0,
    ):
        if not 0 < fraction <= 1:
            raise ValueError(f"fraction={fraction} of the rows is not in (0, 1]")
        if max_bytes_per_file < 1 or max_seconds_per_file <= 0:
            raise ValueError(f"{max_bytes_per_file=} and {max_seconds_per_file=} must be positive")
        os.makedirs(local_path(directory), exist_ok=True)
        salvage(directory)
        self.written = self.failed = 0
        self._directory, self._fraction = directory, fraction
        self._max_bytes, self._max_seconds = max_bytes_per_file, max_seconds_per_file
        self._rng = np.random.default_rng(seed)
        self._lock, self._failures = threading.Lock(), LogRate(60)
        self._file: BinaryIO | None = None
        self._path, self._size, self._opened = "", 0, 0.0

    def sample(self, rows: int) -> np.ndarray:
        """Returns which of `rows` rows to write, by number from 0."""
        with self._lock:
            return np.flatnonzero(self._rng.random(rows) < self._fraction)

    def write(
        self,
        request_id: str | bytes,
        inputs: Mapping[str, np.ndarray],
        probabilities: np.ndarray,
        version: int,
        rows: np.ndarray | None = None,
    ) -> None:
        """Writes the rows of one request that `sample` chose.

        Args:
          request_id: by which labels are joined.
          inputs: raw features by name, [R] or [R, L].
          probabilities: float32 [R]; for a regression, the predicted numbers.
          version: of the model.
          rows: int64 [R], the numbers of the rows in the request; by default from 0.
        """
        rows = np.arange(len(probabilities)) if rows is None else rows
        try:
            data = _records(request_id, inputs, probabilities, version, rows)
            with self._lock:
                self._append(data)
                self.written += len(rows)
        except Exception as e:
            with self._lock:
                self.failed += len(rows)
            if self._failures.due():
                logging.error("%s: rows are missing from the request log: %s", self._directory, e)

    def finish_old(self) -> None:
        """Finishes the file if it is old enough; for times without requests."""
        with self._lock:
            if self._is_old():
                self._finish()

    def close(self) -> None:
        """Finishes the file. A later `write` begins a new one."""
        with self._lock:
            self._finish()

    def _append(self, data: bytes) -> None:
        if self._is_old():
            self._finish()
        if self._file is None:
            name = f"requests-{time.time_ns()}-{os.getpid()}.tfrecord"
            self._path = os.path.join(self._directory, name)
            self._file = open(self._path + UNFINISHED, "xb", buffering=0)  # noqa: SIM115
            fcntl.flock(self._file, fcntl.LOCK_EX)  # while it is written; `salvage` tries to lock
            self._size, self._opened = 0, time.monotonic()
        try:
            left = memoryview(data)
            while left:
                left = left[self._file.write(left) :]
        except OSError:
            self._finish()  # without the half of this request that was written
            raise
        self._size += len(data)
        if self._size >= self._max_bytes:
            self._finish()

    def _is_old(self) -> bool:
        return self._file is not None and time.monotonic() - self._opened > self._max_seconds

    def _finish(self) -> None:
        if self._file is None:
            return
        file, self._file = self._file, None
        with file:
            file.truncate(self._size)
            os.fsync(file.fileno())
        if self._size:
            os.rename(self._path + UNFINISHED, self._path)
        else:
            os.remove(self._path + UNFINISHED)


def salvage(directory: str) -> list[str]:
    """Finishes the files of killed processes: whole records are kept.

    Files that a process still writes are skipped.

    Returns:
      The paths of the files that were finished.
    """
    finished = []
    for path in sorted(glob.glob(os.path.join(glob.escape(directory), f"requests-*.tfrecord{UNFINISHED}"))):
        with open(path, "r+b") as f:
            try:
                fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue
            if not os.fstat(f.fileno()).st_size:  # may be new, and not locked yet
                continue
            size = whole_bytes(path)
            f.truncate(size)
            if size:
                finished.append(path.removesuffix(UNFINISHED))
                os.rename(path, finished[-1])
            else:
                os.remove(path)
    if finished:
        logging.warning("%s: finished %d files of requests that were cut off", directory, len(finished))
    return finished


def _records(
    request_id: str | bytes,
    inputs: Mapping[str, np.ndarray],
    probabilities: np.ndarray,
    version: int,
    rows: np.ndarray,
) -> bytes:
    name = request_id.encode() if isinstance(request_id, str) else request_id
    now = time.time_ns() // 1_000_000
    columns = [(feature_name(n), array.tolist(), array.dtype.kind) for n, array in inputs.items()]
    out = []
    for i, row in enumerate(rows.tolist()):
        example = protos.example.Example()
        feature = example.features.feature
        for column, values, kind in columns:
            lists = feature[column]
            target = {"O": lists.bytes_list, "f": lists.float_list}.get(kind, lists.int64_list).value
            value = values[i]
            target.extend(value if isinstance(value, list) else [value])
        feature["request_id"].bytes_list.value.append(name)
        feature["row"].int64_list.value.append(row)
        feature["timestamp"].int64_list.value.append(now)
        feature["model_version"].int64_list.value.append(version)
        feature["probability"].float_list.value.append(probabilities[i])
        out.append(record(example.SerializeToString()))
    return b"".join(out)
