"""Transfers many files to or from a store, some in parallel, and reports progress."""

from __future__ import annotations

import concurrent.futures
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from absl import logging

from tfrs_dlrm.stores.listing import PublishedFile
from tfrs_dlrm.stores.store import Store

# Called with the name of a stage, how much of it is done, its total, and a count. For transfers these are `upload` or
# `download`, bytes, bytes, and finished files; for `prepare` a pass over raw files, bytes, bytes, and rows.
Progress = Callable[[str, int, int, int], None]
_AT_A_TIME = 4
_SECONDS_BETWEEN_LINES = 10.0


def upload_all(
    store: Store,
    directory: str,
    names: Sequence[str],
    progress: Progress | None,
    objects: Mapping[str, str] | None = None,
) -> dict[str, PublishedFile]:
    """Writes files of a directory as objects of the same names, or of the names in `objects`.

    Raises:
      FileNotFoundError: one of the files is gone.
      StoreError: see `Store`.
    """
    sizes = {name: os.path.getsize(os.path.join(directory, name)) for name in names}

    def one(name: str, advance: Callable[[int], None]) -> PublishedFile:
        other = (objects or {}).get(name, "")
        return PublishedFile(*store.upload(os.path.join(directory, name), other or name, advance), other)

    return _all("upload", store.address, sizes, one, progress)


def download_all(store: Store, directory: str, files: Mapping[str, PublishedFile], progress: Progress | None) -> None:
    """Writes objects as files of a directory, each of which becomes visible when it is complete.

    Raises:
      ValueError: an object differs from the published one.
      StoreError: see `Store`.
    """

    def one(name: str, advance: Callable[[int], None]) -> None:
        path = os.path.join(directory, name)
        wanted = files[name]
        found = store.download(wanted.object or name, path, advance)
        if wanted.crc32c is not None and found != (wanted.bytes, wanted.crc32c):
            os.remove(path)
            raise ValueError(
                f"{store.address}/{name}: damaged or overwritten: {found[0]} bytes with CRC32C {found[1]}; published"
                f" were {wanted.bytes} with {wanted.crc32c}. Publish it again"
            )

    _all("download", store.address, {name: entry.bytes for name, entry in files.items()}, one, progress)


def _all(
    stage: str,
    address: str,
    sizes: Mapping[str, int],
    action: Callable[[str, Callable[[int], None]], Any],
    progress: Progress | None,
) -> dict[str, Any]:
    report = _TransferProgress(stage, address, sum(sizes.values()), progress)
    results: dict[str, Any] = {}
    with concurrent.futures.ThreadPoolExecutor(_AT_A_TIME) as pool:
        futures = {pool.submit(action, name, report.advance): name for name in sizes}
        try:
            for future in concurrent.futures.as_completed(futures):
                results[futures[future]] = future.result()
                report.files += 1
        except BaseException:
            report.cancelled = True
            pool.shutdown(cancel_futures=True)
            raise
    if sizes:
        report.end()
    return results


class _TransferProgress:
    """Reports progress from any thread: to a callback, or to the log if no callback is given."""

    def __init__(self, stage: str, address: str, total: int, progress: Progress | None):
        self._stage, self._address, self._total, self._progress = stage, address, total, progress
        self._done, self.files, self.cancelled, self._lock = 0, 0, False, threading.Lock()
        self._begin = self._last = time.monotonic()

    def advance(self, size: int) -> None:
        if self.cancelled:
            raise InterruptedError(f"{self._address}: {self._stage} was cancelled")
        with self._lock:
            self._done = min(self._total, self._done + size)
            if self._progress:
                self._progress(self._stage, self._done, max(1, self._total), self.files)
                return
            now = time.monotonic()
            if now - self._last >= _SECONDS_BETWEEN_LINES:
                self._last = now
                rate = max(1.0, self._done / (now - self._begin))
                text = "%s: %s of %.0f of %.0f MB, %.0f MB/s, %.0f s left"
                left = (self._total - self._done) / rate
                logging.warning(text, self._address, self._stage, self._done / 1e6, self._total / 1e6, rate / 1e6, left)

    def end(self) -> None:
        with self._lock:
            if self._progress:
                self._progress(self._stage, max(1, self._total), max(1, self._total), self.files)
