"""A sample of the rows that a server scored, as tf.Examples in TFRecord files: joined with labels, training data."""

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

from tfrs_dlrm.serving.runtime import protos
from tfrs_dlrm.serving.runtime.tfrecord import record, whole_bytes
from tfrs_dlrm.stores.files import local_path

# What a row holds beside its raw features. A feature of such a name is written as `feature_name` says.
OWN_FIELDS = ("request_id", "row", "timestamp", "model_version", "probability")
UNFINISHED = ".unfinished"


def feature_name(name: str) -> str:
    """What a raw feature is called in the log: by its name, unless that is one of `OWN_FIELDS`."""
    return f"feature/{name}" if name in OWN_FIELDS else name


class RequestLog:
    """Writes rows to `requests-*.tfrecord` in a directory; a file under such a name is whole and does not change.

    Until then its name ends in `.unfinished`; what a killed process left so is finished by the next log of the
    directory. Threads may share a log. What goes wrong, a full disk for one, is counted and never raised by `write`: a
    request that was scored is answered.

    Args:
      directory: made where it does not exist.
      fraction: of the rows that `sample` chooses at random, one by one, in (0, 1].
      seed: of that choice; by default another one each time.
      max_bytes_per_file: a file that has reached it is finished.
      max_seconds_per_file: likewise its age, at the next row or `finish_old`.

    Attributes:
      written: rows.
      failed: rows that could not be written.

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
        self._lock = threading.Lock()
        self._file: BinaryIO | None = None
        self._path, self._size, self._opened = "", 0, 0.0

    def sample(self, rows: int) -> np.ndarray:
        """The numbers, from 0, of those of so many rows that are to be written."""
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
        """Writes rows of one request, all that it is given: those that `sample` chose.

        Args:
          request_id: what the labels will name it by.
          inputs: raw features by name, [R] or [R, L].
          probabilities: float32 [R]; of a regression the predicted numbers, which the log calls the same.
          version: of the model that gave them.
          rows: int64 [R], their numbers in the request; by default from 0.
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
            logging.log_every_n_seconds(logging.ERROR, "Rows are missing from the request log: %s", 60, e)

    def finish_old(self) -> None:
        """Finishes the file if it is old enough; for times in which no row comes."""
        with self._lock:
            if self._is_old():
                self._finish()

    def close(self) -> None:
        """Finishes the file. A later `write` begins another one."""
        with self._lock:
            self._finish()

    def _append(self, data: bytes) -> None:
        if self._is_old():
            self._finish()
        if self._file is None:
            name = f"requests-{time.time_ns()}-{os.getpid()}.tfrecord"
            self._path = os.path.join(self._directory, name)
            self._file = open(self._path + UNFINISHED, "xb", buffering=0)  # noqa: SIM115
            fcntl.flock(self._file, fcntl.LOCK_EX)  # as long as it is written; `salvage` asks
            self._size, self._opened = 0, time.monotonic()
        try:
            left = memoryview(data)
            while left:
                left = left[self._file.write(left) :]
        except OSError:
            self._finish()  # without the half of this request that fitted
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
    """Finishes the files of processes that ended before they could: what is whole of them is kept.

    Files that a process still writes are left alone.

    Returns:
      The paths of the files that are finished now.
    """
    finished = []
    for path in sorted(glob.glob(os.path.join(glob.escape(directory), f"requests-*.tfrecord{UNFINISHED}"))):
        with open(path, "r+b") as f:
            try:
                fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue
            if not os.fstat(f.fileno()).st_size:  # just made, perhaps, and not locked yet
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
