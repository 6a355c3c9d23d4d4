"""Waits for the rows of the next window, and makes sure that none is gone."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping

from tfrs_dlrm.config import StreamConfig
from tfrs_dlrm.streaming.address import StreamAddress
from tfrs_dlrm.streaming.reader import BrokerUnavailable, Message, OffsetRange, Retries, StreamError, StreamReader
from tfrs_dlrm.streaming.windows import StreamWindow, compose

# In seconds, between two looks for new rows.
_POLL = 0.2
_ANEW = "start a new run: another --workdir, and config.train.warm_start to take over the weights"


class Waiting:
    """Says which rows the next window has, once they have arrived, or why no window follows.

    Args:
      config: how many rows a window has, and when to end.
      bounds: see `StreamReader.bounds`.
      stopping: whether to stop waiting.
      waits: is told how many rows wait while they are too few.
    """

    def __init__(
        self,
        config: StreamConfig,
        bounds: Callable[[], dict[int, OffsetRange]],
        stopping: Callable[[], bool],
        waits: Callable[[int], None],
    ):
        self._config, self._bounds, self._stopping, self._waits = config, bounds, stopping, waits
        # With `stop_at_end`: the end of each partition at the start. Later rows are not part of this run.
        self._until = {p: end for p, (_, end) in bounds().items()} if config.stop_at_end else None
        self.reason = ""

    def ranges(self, begins: Mapping[int, int]) -> dict[int, OffsetRange]:
        """Returns the offsets of a window by partition; empty if the run is to end, and `reason` says why.

        Args:
          begins: by partition, the next offset. Later partitions are read from their begin.
        """
        config, waiting = self._config, time.monotonic()
        idle = waiting
        while not self._stopping():
            ranges = self._available(begins)
            size, now = sum(end - begin for begin, end in ranges.values()), time.monotonic()
            if size == config.window_rows:
                return ranges
            if self._until is not None:
                self.reason = "" if size else "the rows that the topic held at the start are done"
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

    def _available(self, begins: Mapping[int, int]) -> dict[int, OffsetRange]:
        bounds = self._bounds()
        nexts = {p: begins.get(p, begin) for p, (begin, _) in bounds.items()}
        ends = {p: end for p, (_, end) in bounds.items()}
        if self._until is not None:
            ends = {p: min(end, self._until.get(p, nexts[p])) for p, end in ends.items()}
        return compose(nexts, ends, self._config.window_rows)


class RetainedTopic:
    """Reads a topic for a run, and fails once rows are gone that the run has not trained on.

    Args:
      address: of the topic.
      reader: reads it.
      retries: waits for a broker that does not answer.
      begins: by partition, the next offset to read.

    Attributes:
      begins: to be set for each window.
    """

    def __init__(
        self,
        address: StreamAddress,
        reader: StreamReader,
        retries: Retries,
        begins: Mapping[int, int],
    ):
        self._address, self._reader, self._retries, self.begins = address, reader, retries, begins
        self._bounds: dict[int, OffsetRange] = {}  # as last seen

    def bounds(self) -> dict[int, OffsetRange]:
        """See `StreamReader.bounds`."""
        self._bounds = self._retries(self._reader.bounds)
        check_retained(self._address, self.begins, self._bounds)
        return self._bounds

    def read(self, window: StreamWindow) -> list[Message]:
        """Returns the messages of a window; see `StreamReader.read`."""
        begins = {p: begin for p, (begin, _) in window.ranges.items()}

        def read() -> list[Message]:
            check_retained(self._address, begins, self._reader.bounds())
            return self._reader.read(window.ranges)

        return self._retries(read)

    def lag(self, offsets: Mapping[int, int]) -> int:
        """Returns how many offsets a run is behind the end of the topic, as last seen if no broker answers.

        Args:
          offsets: by partition, the next offset to train on.
        """
        with contextlib.suppress(BrokerUnavailable):
            self._bounds = self._reader.bounds()
        return sum(end - offsets.get(p, begin) for p, (begin, end) in self._bounds.items())


def check_retained(address: StreamAddress, begins: Mapping[int, int], bounds: Mapping[int, OffsetRange]) -> None:
    """Makes sure that the topic still holds the next rows.

    Args:
      address: of the topic.
      begins: by partition, the next offset.
      bounds: see `StreamReader.bounds`.

    Raises:
      StreamError: some rows are gone, or the topic is another one.
    """
    for partition, offset in begins.items():
        if partition not in bounds:
            raise StreamError(
                f"{address}: partition {partition} does not exist any more; was the topic recreated? Then {_ANEW}"
            )
        first, end = bounds[partition]
        where = f"{address}: partition {partition}"
        if offset < first:
            raise StreamError(
                f"{where}: {first - offset:,} rows that were not trained on are gone: the checkpoint resumes at offset"
                f" {offset}, and the oldest that is left is {first}. Let the topic keep its messages for longer than a"
                f" trainer may be away. To continue without these rows, {_ANEW}"
            )
        if offset > end:
            raise StreamError(
                f"{where}: the checkpoint resumes at offset {offset}, and the topic ends at {end}; was it recreated?"
                f" Then {_ANEW}"
            )
