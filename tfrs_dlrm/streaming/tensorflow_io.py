"""Reads a topic by the Kafka datasets of tensorflow-io, whose native ops load on TensorFlow <= 2.17."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Iterator, Mapping

import numpy as np
import tensorflow as tf
import tensorflow_io as tfio
from tensorflow_io.python.ops import core_ops

from tfrs_dlrm.streaming.address import StreamAddress
from tfrs_dlrm.streaming.client import Client, settings
from tfrs_dlrm.streaming.reader import Message, Range, StreamError, Unavailable

_AT_A_TIME = 1024

try:
    core_ops.io_kafka_readable_init  # noqa: B018 (loads the native ops)
except (NotImplementedError, AttributeError) as e:
    raise ImportError("the native ops of tensorflow-io do not load here") from e


class TensorFlowIOReader:
    """See `Reader`. Messages behind the asked ones are kept for the next call.

    tensorflow-io gives messages without their offsets, which are counted here. So it is for topics whose offsets have no
    gaps: neither compacted ones, nor those that are written in transactions. What a topic holds is asked by
    confluent-kafka, which the extra `io` brings along.

    Args:
      address: of the topic.

    Raises:
      ImportError, StreamError: as `Client`.
    """

    def __init__(self, address: StreamAddress):
        self._client, self._address = Client(address), address
        own = {"enable.auto.commit": "false", "group.id": "tfrs-dlrm", "conf.topic.auto.offset.reset": "error"}
        self._settings = [f"{name}={value}" for name, value in (settings(address) | own).items()]
        self._parts: dict[int, _Partition] = {}

    def bounds(self) -> dict[int, Range]:
        """See `Reader.bounds`."""
        return self._client.bounds()

    def read(self, ranges: Mapping[int, Range]) -> list[Message]:
        """See `Reader.read`."""
        found = []
        for partition, (begin, end) in sorted(ranges.items()):
            part = self._parts.get(partition)
            if part is None or part.offset != begin:
                part = self._parts[partition] = _Partition(partition, begin, self._values)
            try:
                found += part.take(end)
            except tf.errors.OpError as e:
                del self._parts[partition]
                raise Unavailable(f"{self._address}: partition {partition}: {e.message}") from e
            except BaseException:
                del self._parts[partition]
                raise
        return found

    def close(self) -> None:
        """See `Reader.close`."""
        self._parts = {}
        self._client.close()

    def _values(self, partition: int, offset: int) -> Iterator[np.ndarray]:
        """The messages from an offset to the present end, some at a time."""
        # It takes the brokers with the other settings.
        data = tfio.experimental.IODataset.stream().from_kafka(
            self._address.topic, partition, offset, servers=None, configuration=self._settings
        )
        return data.map(lambda v: v.message).batch(_AT_A_TIME).as_numpy_iterator()


class _Partition:
    """A partition that is read from its beginning on.

    Attributes:
      offset: of the message that comes next.
    """

    def __init__(self, number: int, offset: int, values: collections.abc.Callable[[int, int], Iterator[np.ndarray]]):
        self._number, self.offset, self._values = number, offset, values
        self._here: collections.deque[bytes] = collections.deque()
        self._coming = values(number, offset)

    def take(self, end: int) -> list[Message]:
        """The messages up to, but not including, that offset."""
        anew = False
        while self.offset + len(self._here) < end:
            some = next(self._coming, None)
            if some is not None:
                self._here.extend(some)
                anew = False
            elif anew:  # it said that this is the end although there are offsets behind it
                raise StreamError(
                    f"partition {self._number}: fewer messages than offsets before {end}; the topic is compacted or written"
                    " in transactions, which takes reader=confluent in the address"
                )
            else:  # the end as it was when the reading began
                self._coming, anew = self._values(self._number, self.offset + len(self._here)), True
        values = itertools.islice(self._here, end - self.offset)
        found = [Message.of(self._number, o, v) for o, v in enumerate(values, self.offset)]
        for _ in found:
            self._here.popleft()
        self.offset = end
        return found
