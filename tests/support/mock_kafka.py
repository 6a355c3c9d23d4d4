"""A Kafka broker on loopback: librdkafka's own mock, with the controls that its C interface has."""

import ctypes
import glob
import json
import os

import confluent_kafka

_PLACE = os.path.join(os.path.dirname(os.path.dirname(confluent_kafka.__file__)), "confluent_kafka.libs")


class MockKafka:
    """One broker, until `close`."""

    def __init__(self):
        self._lib = ctypes.CDLL(glob.glob(os.path.join(_PLACE, "librdkafka*"))[0])
        for name in ("rd_kafka_new", "rd_kafka_mock_cluster_new"):
            getattr(self._lib, name).restype = ctypes.c_void_p
        self._lib.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p
        self._handle = ctypes.c_void_p(self._lib.rd_kafka_new(0, None, ctypes.create_string_buffer(512), 512))
        self._cluster = ctypes.c_void_p(self._lib.rd_kafka_mock_cluster_new(self._handle, 1))
        self.servers = self._lib.rd_kafka_mock_cluster_bootstraps(self._cluster).decode()
        # A partition keeps 5 MB, as they were sent.
        settings = {"bootstrap.servers": self.servers, "compression.type": "gzip", "linger.ms": 20, "log_level": 0}
        self._producer = confluent_kafka.Producer(settings | {"message.max.bytes": 20_000_000})

    def topic(self, name: str, partitions: int = 3) -> None:
        assert self._lib.rd_kafka_mock_topic_create(self._cluster, name.encode(), partitions, 1) == 0

    def send(self, topic: str, messages, partitions: int = 3) -> None:
        """Bytes, or objects to be sent as JSON, round and round the partitions."""
        for i, message in enumerate(messages):
            value = message if isinstance(message, bytes) or message is None else json.dumps(message)
            self._producer.produce(topic, value, partition=i % partitions)
            self._producer.poll(0)
        assert self._producer.flush(30) == 0

    def forget(self, topic: str, partition: int, before: int) -> None:
        """Drops the messages before an offset, as retention does."""
        function = self._lib.rd_kafka_mock_partition_delete_records
        assert function(self._cluster, topic.encode(), partition, ctypes.c_int64(before)) == 0

    def refuse(self, topic: str, code: int) -> None:
        """Makes every request for a topic fail with this error of the protocol."""
        self._lib.rd_kafka_mock_topic_set_error(self._cluster, topic.encode(), code)

    def down(self) -> None:
        assert self._lib.rd_kafka_mock_broker_set_down(self._cluster, 1) == 0

    def up(self) -> None:
        assert self._lib.rd_kafka_mock_broker_set_up(self._cluster, 1) == 0

    def messages(self, topic: str) -> list:
        """All that a topic has."""
        consumer = confluent_kafka.Consumer(
            {"bootstrap.servers": self.servers, "group.id": "test", "enable.partition.eof": True, "log_level": 0}
        )
        found, left = [], consumer.list_topics(topic, timeout=10).topics[topic].partitions.keys()
        consumer.assign([confluent_kafka.TopicPartition(topic, p, 0) for p in left])
        left = set(left)
        while left:
            message = consumer.poll(10)
            assert message is not None
            if message.error():
                left.discard(message.partition())
            else:
                found.append(message)
        consumer.close()
        return found

    def close(self) -> None:
        self._producer.flush(5)
        self._lib.rd_kafka_mock_cluster_destroy(self._cluster)
        self._lib.rd_kafka_destroy(self._handle)
