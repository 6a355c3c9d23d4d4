"""Rows of a stream by partition and offset."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Protocol

# Of a larger message only the first bytes are kept, for the quarantine file: no row of a log is that long.
MAX_BYTES = 1 << 20
_KEPT = 1 << 10

# From the first offset up to, but not including, the second.
Range = tuple[int, int]


class StreamError(ValueError):
    """A stream cannot be read, and trying again will not help."""


class Unavailable(Exception):
    """A broker does not answer; it may come back."""


@dataclasses.dataclass(frozen=True)
class Message:
    """What one offset of a partition holds.

    Attributes:
      partition: its number.
      offset: in the partition.
      value: the first bytes of it where it is longer than `MAX_BYTES`; empty where it has none.
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


class Reader(Protocol):
    """Reads a topic. Which rows were read is not its business: offsets belong to the checkpoint, not to the broker."""

    def bounds(self) -> dict[int, Range]:
        """By partition, its oldest offset that is left, and the one that the next message will have.

        Raises:
          StreamError: the topic is not there, or may not be read.
          Unavailable: no broker answers.
        """
        ...

    def read(self, ranges: Mapping[int, Range]) -> list[Message]:
        """The messages of these offsets, by partition, then by offset; offsets without a message are left out.

        Raises:
          StreamError: they are not there any more, or may not be read.
          Unavailable: no broker answers. Called again it begins at the same offsets.
        """
        ...

    def close(self) -> None:
        """Leaves the broker."""
        ...
