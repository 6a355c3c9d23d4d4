"""Rows of a stream by partition and offset, and how to wait for a broker that went away."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar

T = TypeVar("T")
# The pause between two tries, in seconds.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
# No row of a log is longer. Of longer messages only the first bytes are kept, for the quarantine file.
MAX_BYTES = 1 << 20
_KEPT = 1 << 10

# From the first offset up to, but not including, the second.
OffsetRange = tuple[int, int]


class StreamError(ValueError):
    """A stream cannot be read, and trying again will not help."""


class BrokerUnavailable(Exception):
    """A broker does not answer; it may come back."""


@dataclasses.dataclass(frozen=True)
class Message:
    """The message at one offset of a partition.

    Attributes:
      partition: its number.
      offset: in the partition.
      value: its bytes, or the first of them if it is longer than `MAX_BYTES`.
      size: its length in bytes.
    """

    partition: int
    offset: int
    value: bytes
    size: int

    @classmethod
    def of(cls, partition: int, offset: int, value: bytes | None) -> Message:
        """A message as a broker gave it."""
        value = value or b""
        return cls(partition, offset, value if len(value) <= MAX_BYTES else value[:_KEPT], len(value))


class StreamReader(Protocol):
    """Reads a topic. It does not store which rows were read: the offsets are in the checkpoint, not in the broker."""

    def bounds(self) -> dict[int, OffsetRange]:
        """Returns, by partition, its oldest offset, and the offset of the next message.

        Raises:
          StreamError: the topic does not exist, or may not be read.
          BrokerUnavailable: no broker answers.
        """
        ...

    def read(self, ranges: Mapping[int, OffsetRange]) -> list[Message]:
        """The messages of these offsets, by partition, then by offset; offsets without a message are left out.

        Raises:
          StreamError: they are gone, or may not be read.
          BrokerUnavailable: no broker answers. Called again it begins at the same offsets.
        """
        ...

    def close(self) -> None:
        """Leaves the broker."""
        ...


class Stopped(Exception):
    """The run stops waiting for the broker, since it is to end."""


class Retries:
    """Repeats a call as long as it raises `BrokerUnavailable`.

    Args:
      seconds: the longest wait.
      say: is told of every retry.
      stopping: whether to stop waiting.

    Attributes:
      count: the retries so far.
    """

    def __init__(self, seconds: float, say: Callable[[str], None], stopping: Callable[[], bool] = lambda: False):
        self._seconds, self._say, self._stopping = seconds, say, stopping
        self.count = 0

    def __call__(self, work: Callable[[], T], seconds: float | None = None) -> T:
        """Returns the result of `work`.

        Args:
          work: is called again after each `BrokerUnavailable`.
          seconds: another limit than usual.

        Raises:
          StreamError: the broker was away for longer.
          Stopped: the run is to end.
        """
        limit = self._seconds if seconds is None else seconds
        begun, tries, pause = time.monotonic(), 0, _FIRST_PAUSE
        while True:
            try:
                return work()
            except BrokerUnavailable as e:
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
