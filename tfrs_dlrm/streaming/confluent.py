"""Reads a topic by confluent-kafka."""

from __future__ import annotations

import collections
import time
from collections.abc import Mapping
from typing import Any

from tfrs_dlrm.streaming.address import StreamAddress
from tfrs_dlrm.streaming.client import TopicClient
from tfrs_dlrm.streaming.reader import BrokerUnavailable, Message, OffsetRange

# Messages to ask for at a time, and how many to keep of a partition that is ahead of the others.
_AT_A_TIME = 1000
_AHEAD = 20_000
# In seconds, without any message.
_STALL = 15.0


class ConfluentReader:
    """Reads with confluent-kafka; see `StreamReader`. Later messages are kept for the next call.

    Args:
      address: of the topic.

    Raises:
      StreamError: as `TopicClient`.
    """

    def __init__(self, address: StreamAddress):
        self._client = TopicClient(address)
        self._consumer = self._client.consumer()
        self._topic = address.topic
        # By partition, the offset behind the last call's, and the messages that have already arrived.
        self._next: dict[int, int] = {}
        self._here: dict[int, collections.deque[Message]] = {}
        self._paused: set[int] = set()
        # By partition, an offset before which all messages have come.
        self._ended: dict[int, int] = {}

    def bounds(self) -> dict[int, OffsetRange]:
        """See `StreamReader.bounds`."""
        return self._client.bounds()

    def read(self, ranges: Mapping[int, OffsetRange]) -> list[Message]:
        """See `StreamReader.read`."""
        try:
            return self._read({p: r for p, r in ranges.items() if r[0] < r[1]})
        except BaseException:
            self._next = {}  # start again at the requested offsets
            raise

    def close(self) -> None:
        """See `StreamReader.close`."""
        self._consumer.close()
        self._client.close()

    def _read(self, ranges: dict[int, OffsetRange]) -> list[Message]:
        self._place(ranges)
        found: dict[int, list[Message]] = {p: [] for p in sorted(ranges)}
        todo = set(ranges)
        for partition, (_, end) in ranges.items():
            here = self._here[partition]
            while here and here[0].offset < end:
                found[partition].append(here.popleft())
            whole = bool(here) or (bool(found[partition]) and found[partition][-1].offset == end - 1)
            if whole or self._ended.get(partition, 0) >= end:
                todo.discard(partition)
        self._resume(todo)
        last = time.monotonic()
        while todo:
            left = sum(ranges[p][1] - ranges[p][0] - len(found[p]) for p in todo)
            batch = self._consumer.consume(max(1, min(_AT_A_TIME, left)), timeout=0.1)
            for message in batch:
                self._sort(message, ranges, found, todo)
            if any(m.error() is None for m in batch):
                last = time.monotonic()
            elif todo and time.monotonic() - last > _STALL:
                which = ", ".join(map(str, sorted(todo)))
                raise BrokerUnavailable(
                    f"{self._client.address}: no message of partition {which} came in {_STALL:.0f} s"
                )
        self._next |= {p: end for p, (_, end) in ranges.items()}
        return [message for messages in found.values() for message in messages]

    def _sort(self, raw: Any, ranges: dict[int, OffsetRange], found: dict[int, list[Message]], todo: set[int]) -> None:
        """Files a message, and removes its partition from `todo` once that is complete."""
        partition, error = raw.partition(), raw.error()
        if error is not None:
            if error.code() != error._PARTITION_EOF:
                raise self._client.error(error)
            self._ended[partition] = raw.offset()
            if partition in todo and raw.offset() >= ranges[partition][1]:
                todo.discard(partition)  # its last offsets hold no messages, as in transactions
            return
        message = Message.of(partition, raw.offset(), raw.value())
        if partition in todo and message.offset < ranges[partition][1]:
            found[partition].append(message)
        else:
            self._here[partition].append(message)
            self._pause(partition)
        if partition in todo and message.offset >= ranges[partition][1] - 1:
            todo.discard(partition)

    def _place(self, ranges: dict[int, OffsetRange]) -> None:
        """Makes sure that the next messages are the first of `ranges`."""
        if all(self._next.get(p) == begin for p, (begin, _) in ranges.items()):
            return
        from confluent_kafka import KafkaException, TopicPartition

        begins = self._next | {p: begin for p, (begin, _) in ranges.items()}
        try:
            self._consumer.assign([TopicPartition(self._topic, p, o) for p, o in sorted(begins.items())])
        except KafkaException as e:
            raise self._client.error(e.args[0]) from e
        self._next, self._paused, self._ended = dict(begins), set(), {}
        self._here = {p: collections.deque() for p in begins}

    def _pause(self, partition: int) -> None:
        if len(self._here[partition]) >= _AHEAD and partition not in self._paused:
            from confluent_kafka import TopicPartition

            # What it has fetched and not given out it fetches again later.
            self._consumer.pause([TopicPartition(self._topic, partition)])
            self._paused.add(partition)

    def _resume(self, partitions: set[int]) -> None:
        wanted = self._paused & partitions
        if wanted:
            from confluent_kafka import TopicPartition

            self._consumer.resume([TopicPartition(self._topic, p) for p in wanted])
            self._paused -= wanted
