"""Trying again, with growing pauses, while a broker is away."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from tfrs_dlrm.streaming.reader import StreamError, Unavailable

T = TypeVar("T")
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0


class Stopped(Exception):
    """The run is to end, and does not wait for the broker any more."""


class Retries:
    """Calls what may raise `Unavailable` until it does not.

    Args:
      seconds: gives up after so long.
      say: is told of every retry.
      stopping: whether to stop waiting.

    Attributes:
      count: the retries so far.
    """

    def __init__(self, seconds: float, say: Callable[[str], None], stopping: Callable[[], bool] = lambda: False):
        self._seconds, self._say, self._stopping = seconds, say, stopping
        self.count = 0

    def __call__(self, work: Callable[[], T], seconds: float | None = None) -> T:
        """What `work` returns.

        Args:
          work: is called again after each `Unavailable`.
          seconds: other ones than usual.

        Raises:
          StreamError: it was not there for so long.
          Stopped: the run is to end.
        """
        limit = self._seconds if seconds is None else seconds
        begun, tries, pause = time.monotonic(), 0, _FIRST_PAUSE
        while True:
            try:
                return work()
            except Unavailable as e:
                waited = time.monotonic() - begun
                if waited >= limit:
                    raise StreamError(f"{e}; gave up after {waited:.0f} s and {tries} retries") from e
                tries, self.count = tries + 1, self.count + 1
                self._say(f"{e}; retry {tries} in {pause:g} s")
            self._sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _sleep(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if self._stopping():
                raise Stopped
            time.sleep(min(left, 0.2))
