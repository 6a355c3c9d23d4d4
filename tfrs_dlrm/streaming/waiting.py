"""Waiting for the rows of the next window."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from tfrs_dlrm.config import StreamConfig
from tfrs_dlrm.streaming.reader import Range
from tfrs_dlrm.streaming.windows import compose

# In seconds, between two looks for new rows.
_POLL = 0.2


class Waiting:
    """Says which rows the next window has, once they are there, or why there will be none.

    Args:
      config: how many rows a window has, and when to end.
      bounds: see `Reader.bounds`.
      stopping: whether to stop waiting.
      waits: is told how many rows are there while they are too few.
    """

    def __init__(
        self,
        config: StreamConfig,
        bounds: Callable[[], dict[int, Range]],
        stopping: Callable[[], bool],
        waits: Callable[[int], None],
    ):
        self._config, self._bounds, self._stopping, self._waits = config, bounds, stopping, waits
        # With `stop_at_end`, by partition, where that is; later rows are none of this run.
        self._until = {p: end for p, (_, end) in bounds().items()} if config.stop_at_end else None
        self.reason = ""

    def ranges(self, begins: Mapping[int, int]) -> dict[int, Range]:
        """The offsets of a window by partition; none where the run is to end, and `reason` says why.

        Args:
          begins: by partition, the next offset. Others have been made meanwhile, and are read from their begin.
        """
        config, waiting = self._config, time.monotonic()
        idle = waiting
        while not self._stopping():
            ranges = self._there(begins)
            size, now = sum(end - begin for begin, end in ranges.values()), time.monotonic()
            if size == config.window_rows:
                return ranges
            if self._until is not None:
                self.reason = "" if size else "the rows that were there at the start are done"
                return ranges
            if size and now - waiting >= config.window_seconds:
                return ranges
            if size:
                idle = now
            else:
                waiting = now
            if config.idle_seconds and now - idle >= config.idle_seconds:
                self.reason = f"no row came for {config.idle_seconds:g} s"
                return {}
            self._waits(size)
            time.sleep(_POLL)
        return {}

    def _there(self, begins: Mapping[int, int]) -> dict[int, Range]:
        bounds = self._bounds()
        nexts = {p: begins.get(p, begin) for p, (begin, _) in bounds.items()}
        ends = {p: end for p, (_, end) in bounds.items()}
        if self._until is not None:
            ends = {p: min(end, self._until.get(p, nexts[p])) for p, end in ends.items()}
        return compose(nexts, ends, self._config.window_rows)
