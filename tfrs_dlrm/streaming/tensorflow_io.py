"""Reads a topic by the Kafka datasets of tensorflow-io, whose native ops load on TensorFlow <= 2.17."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Mapping

import tensorflow as tf
import tensorflow_io as tfio
from tensorflow_io.python.ops import core_ops

from tfrs_dlrm.streaming.address import StreamAddress
from tfrs_dlrm.streaming.client import settings
from tfrs_dlrm.streaming.confluent import ConfluentReader
from tfrs_dlrm.streaming.reader import BrokerUnavailable, Message, OffsetRange, StreamError

_AT_A_TIME = 1024
# In seconds, without any message.
_STALL = 15.0

try:
    core_ops.io_kafka_readable_init  # noqa: B018 (loads the native ops)
except (NotImplementedError, AttributeError) as e:
    raise ImportError("the native ops of tensorflow-io do not load here") from e


class TensorFlowIOReader:
    """A `StreamReader` that uses tensorflow-io.

    tensorflow-io gives messages without their offsets, which are counted here. So it is for topics whose offsets have
    no gaps, unlike those of compacted topics and of transactions. confluent-kafka, which the extra `io` brings
    along, asks for the bounds of a topic, and checks the last message that was counted.

    Args:
      address: of the topic.

    Raises:
      StreamError: as `ConfluentReader`.
    """

    def __init__(self, address: StreamAddress):
        self._address, self._confluent = address, ConfluentReader(address)
        fixed = {"enable.auto.commit": "false", "group.id": "tfrs-dlrm", "conf.topic.auto.offset.reset": "error"}
        # Each dataset makes a consumer, and waits for its first metadata.
        fixed["topic.metadata.refresh.fast.interval.ms"] = "10"
        for name, value in settings(address).items():
            if "=" in str(value):  # which is not repeated here, since it may be a password
                raise StreamError(f"{address}: tensorflow-io takes no = in the value of {name}; give reader=confluent")
        self._reading: _Reading | None = None
        self._settings = [f"{name}={value}" for name, value in (settings(address) | fixed).items()]

    def bounds(self) -> dict[int, OffsetRange]:
        """See `StreamReader.bounds`."""
        return self._confluent.bounds()

    def read(self, ranges: Mapping[int, OffsetRange]) -> list[Message]:
        """See `StreamReader.read`.

        Raises:
          StreamError: also if the topic has fewer messages than offsets.
        """
        ranges = {p: r for p, r in sorted(ranges.items()) if r[0] < r[1]}
        found = {p: self._messages(p, *r) for p, r in ranges.items()}
        last = {m.partition: m for m in self._confluent.read({p: (end - 1, end) for p, (_, end) in ranges.items()})}
        for partition, (begin, end) in ranges.items():
            messages = found[partition]
            if len(messages) < end - begin or messages[-1] != last.get(partition):
                raise StreamError(
                    f"{self._address}: partition {partition} has fewer messages than offsets from {begin} to {end - 1}:"
                    " the topic is compacted, or written in transactions; give reader=confluent in the address"
                )
        return [message for messages in found.values() for message in messages]

    def close(self) -> None:
        """See `StreamReader.close`."""
        self._confluent.close()

    def _messages(self, partition: int, begin: int, end: int) -> list[Message]:
        """The messages from an offset on, of one partition; of the first of them, fewer where they end before."""
        if self._reading is None or self._reading.what != (partition, begin, end):
            self._reading = _Reading(self._address.topic, self._settings, partition, begin, end)
            self._reading.start()
        if not self._reading.wait():
            # It resumes once the broker is back, and cannot be ended: the next call waits for it again.
            raise BrokerUnavailable(f"{self._address}: no message of partition {partition} came in {_STALL:.0f} s")
        reading, self._reading = self._reading, None
        if reading.error:
            raise BrokerUnavailable(f"{self._address}: partition {partition}: {reading.error}")
        return [Message.of(partition, offset, value) for offset, value in enumerate(reading.values, begin)]


class _Reading(threading.Thread):
    """Reads some messages of one partition; without a broker, for ever.

    All datasets of tensorflow-io share one consumer, which the latest takes over. So each is read to its end before
    the next is made. Nothing may read ahead: behind the last message or an error, that would never end.
    """

    def __init__(self, topic: str, settings: list[str], partition: int, begin: int, end: int):
        super().__init__(daemon=True, name=f"partition-{partition}")
        self.what = (partition, begin, end)
        self._topic, self._settings = topic, settings
        self.values: list[bytes] = []
        self.error = ""

    def run(self) -> None:
        """Reads."""
        partition, begin, end = self.what
        options = tf.data.Options()
        options.experimental_optimization.inject_prefetch = False
        options.experimental_optimization.map_parallelization = False
        options.autotune.enabled = False
        try:
            data = tfio.IODataset.stream().from_kafka(self._topic, partition, begin, None, self._settings)
            for some in data.take(end - begin).batch(_AT_A_TIME).with_options(options):
                self.values.extend(some.message.numpy())
        except tf.errors.OpError as e:
            # Behind the names of datasets within datasets.
            found = re.search(r"[Ff]ailed to .*", str(e.message))
            self.error = found.group() if found else str(e.message).split("\n")[0]

    def wait(self) -> bool:
        """Whether it is done; waits as long as messages come."""
        last, seen = time.monotonic(), 0
        while self.is_alive():
            self.join(0.1)
            if len(self.values) > seen:
                last, seen = time.monotonic(), len(self.values)
            elif time.monotonic() - last > _STALL:
                return not self.is_alive()
        return True
