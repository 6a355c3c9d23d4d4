"""Reads the next window on a second thread while the present one is trained on."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import threading
import time
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from tfrs_dlrm.streaming.windows import StreamWindow, offsets_after

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class WindowRows(Generic[T]):
    """A window that was read.

    Attributes:
      window: its offsets.
      rows: what `read` made of them.
      arrived: when the last of its rows had arrived, by `time.monotonic`.
    """

    window: StreamWindow
    rows: T
    arrived: float


class ReadAhead(Generic[T]):
    """Finds and reads windows in their order, one at most before it is asked for, which bounds memory.

    A window that was read ahead leaves no trace: it is written down when the run takes it. An error while it is read
    is raised when the run asks for it. Works inside `with`, at the end of which it reads nothing more.

    Args:
      windows: how many the run has done.
      begins: by partition, the next offset.
      find: gives a window by its number and the next offsets, once its rows have arrived; None if none follows.
      read: reads a window.
      closing: is set at the end, and stops `find` and `read`.
    """

    def __init__(
        self,
        windows: int,
        begins: Mapping[int, int],
        find: Callable[[int, Mapping[int, int]], StreamWindow | None],
        read: Callable[[StreamWindow], T],
        closing: threading.Event,
    ):
        self._windows, self._begins, self._find, self._read, self._closing = windows, begins, find, read, closing
        self._pool = concurrent.futures.ThreadPoolExecutor(1, "read-ahead")
        self._next: concurrent.futures.Future[WindowRows[T] | None]
        self.asked = False  # whether the run waits for the next window

    def __enter__(self) -> ReadAhead[T]:
        self._next = self._pool.submit(self._work)
        return self

    def __exit__(self, *error: object) -> None:
        self._closing.set()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def next(self) -> WindowRows[T] | None:
        """Returns the next window, and begins to read the one behind it; None if none follows.

        Raises:
          Exception: of `find` or `read`.
        """
        self.asked = True
        try:
            found = self._next.result()
        finally:
            self.asked = False
        if found is not None:
            self._windows, self._begins = found.window.number, offsets_after(self._begins, found.window)
            self._next = self._pool.submit(self._work)
        return found

    def _work(self) -> WindowRows[T] | None:
        window = self._find(self._windows + 1, self._begins)
        if window is None:
            return None
        arrived = time.monotonic()
        return WindowRows(window, self._read(window), arrived)
