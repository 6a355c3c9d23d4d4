"""The partitions and offsets of a topic, by confluent-kafka, and which errors of a broker are temporary."""

from __future__ import annotations

import os
import time
from typing import Any

from tfrs_dlrm.messages import install_command
from tfrs_dlrm.streaming.address import StreamAddress
from tfrs_dlrm.streaming.reader import BrokerUnavailable, OffsetRange, StreamError

# In seconds: how long to wait for an answer, and how often to ask for the partitions.
ANSWER = 10.0
_PARTITIONS_EVERY = 60.0


class TopicClient:
    """A topic of a broker, without its messages.

    Args:
      address: of the topic.

    Raises:
      StreamError: confluent-kafka is not installed, a setting is wrong, or the file of settings cannot be read.
    """

    def __init__(self, address: StreamAddress):
        self._kafka = _confluent_kafka()
        self.address = address
        self._last_error = ""
        self._partitions: list[int] = []
        self._asked = 0.0
        # A second consumer: on connections that wait for messages, a broker answers only once some arrive.
        self._consumer = self.consumer()

    def consumer(self) -> Any:
        """Returns a consumer that reads no partition yet."""
        fixed = {
            "group.id": "tfrs-dlrm",  # required, though no group is joined
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            # A missing offset is an error, never a jump to another one.
            "auto.offset.reset": "error",
            "enable.partition.eof": True,
            "error_cb": self._note,
        }
        try:
            return self._kafka.Consumer(settings(self.address) | fixed)
        except (self._kafka.KafkaException, TypeError, ValueError) as e:
            raise StreamError(f"{self.address}: {_text(e)}") from e

    def bounds(self) -> dict[int, OffsetRange]:
        """See `StreamReader.bounds`."""
        kafka, topic = self._kafka, self.address.topic
        try:
            partitions = self._partitions  # which another thread may forget meanwhile
            if not partitions or time.monotonic() - self._asked > _PARTITIONS_EVERY:
                self._partitions = partitions = self._ask()
                self._asked = time.monotonic()
            return {
                p: self._consumer.get_watermark_offsets(kafka.TopicPartition(topic, p), timeout=ANSWER)
                for p in partitions
            }
        except kafka.KafkaException as e:
            self._partitions = []  # ask again
            raise self.error(e.args[0]) from e

    def error(self, error: Any) -> Exception:
        """Returns the exception to raise for an error of librdkafka."""
        code, codes, topic = error.code(), self._kafka.KafkaError, self.address.topic
        if code in (codes.TOPIC_AUTHORIZATION_FAILED, codes.CLUSTER_AUTHORIZATION_FAILED):
            return StreamError(
                f"{self.address}: no permission to read topic {topic!r} ({_text(error)}); it takes the rights Describe"
                " and Read, for the user that client_config=FILE in the address names"
            )
        if code in (codes._AUTHENTICATION, codes.SASL_AUTHENTICATION_FAILED):
            return StreamError(f"{self.address}: the broker refuses the credentials in client_config: {_text(error)}")
        if code == codes.UNKNOWN_TOPIC_OR_PART:
            return StreamError(f"{self.address}: the topic {topic!r} does not exist, or has lost partitions")
        if code in (codes._AUTO_OFFSET_RESET, codes.OFFSET_OUT_OF_RANGE):
            return StreamError(f"{self.address}: an offset does not exist: {_text(error)}")
        if error.fatal():
            return StreamError(f"{self.address}: {_text(error)}")
        return BrokerUnavailable(f"{self.address}: no answer: {self._last_error or _text(error)}")

    def close(self) -> None:
        """Leaves the broker."""
        self._consumer.close()

    def _ask(self) -> list[int]:
        """The numbers of the partitions."""
        try:
            found = self._consumer.list_topics(self.address.topic, timeout=ANSWER).topics[self.address.topic]
        except self._kafka.KafkaException:
            self._consumer.poll(0.1)  # calls `_note`
            raise
        if found.error is not None:
            raise self._kafka.KafkaException(found.error)
        if not found.partitions:
            raise BrokerUnavailable(f"{self.address}: the topic has no partitions yet")
        return sorted(found.partitions)

    def _note(self, error: Any) -> None:
        self._last_error = _text(error)


def settings(address: StreamAddress) -> dict[str, Any]:
    """Returns the settings of librdkafka for consumers and producers.

    Raises:
      StreamError: the file of settings cannot be read, or is malformed.
    """
    defaults = {
        "bootstrap.servers": address.servers,
        # Lines of librdkafka would break the progress bar; failures are reported where they are seen.
        "log_level": 0,
        # In milliseconds: how long a consumer at the end of a partition ignores other requests.
        "fetch.wait.max.ms": 50,
        "reconnect.backoff.max.ms": 2000,
    }
    return defaults | _of_file(address.client_config) | dict(address.settings)


def _of_file(path: str) -> dict[str, str]:
    if not path:
        return {}
    try:
        with open(os.path.expanduser(path), encoding="utf-8") as f:
            lines = [line.strip() for line in f]
    except (OSError, UnicodeDecodeError) as e:
        raise StreamError(f"client_config={path} in the address of the stream cannot be read: {e}") from e
    found = {}
    for number, line in enumerate(lines, 1):
        name, equals, value = line.partition("=")
        if not line or line.startswith("#"):
            continue
        if not equals:  # which may hold a password, and is not shown
            raise StreamError(f"client_config={path}: line {number} is not of the form NAME=VALUE")
        found[name.strip()] = value.strip()
    return found


def _text(error: Any) -> str:
    """An error of librdkafka in words."""
    error = error.args[0] if isinstance(error, Exception) and error.args else error
    return error.str() if hasattr(error, "str") else str(error)


def _confluent_kafka() -> Any:
    try:
        import confluent_kafka
    except ImportError as e:
        raise StreamError(f"streams need confluent-kafka: {install_command('kafka')}") from e
    return confluent_kafka


def producer(address: StreamAddress) -> Any:
    """A producer for the brokers of an address."""
    return _confluent_kafka().Producer(settings(address) | {"enable.idempotence": True})
