"""Sets malformed messages aside: in a file and, if the address names one, in another topic."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Any

from tfrs_dlrm.config import RunConfig
from tfrs_dlrm.streaming.address import StreamAddress
from tfrs_dlrm.streaming.client import ANSWER, TopicClient, producer
from tfrs_dlrm.streaming.messages import Decoded, Malformed
from tfrs_dlrm.streaming.reader import BrokerUnavailable, StreamError
from tfrs_dlrm.training.run import RunRecords


class Quarantine:
    """The malformed messages of a run.

    The file holds each once, whatever happened to the run. The dead-letter topic gets each at least once: messages
    between a checkpoint and a kill are sent again under the same key, TOPIC/PARTITION/OFFSET.

    Args:
      path: the file: one JSON object a line.
      address: of the stream.
      config: `data.bad_rows=error` refuses malformed messages; after `stream.malformed_in_a_row` in a row, windows
        without any row are refused.
    """

    def __init__(self, path: str, address: StreamAddress, config: RunConfig):
        self.records = RunRecords(path, "window")
        self._address, self._bad_rows, self._limit = address, config.data.bad_rows, config.stream.malformed_in_a_row
        self._producer: Any = producer(address) if address.dead_letter else None

    def add(self, window: int, malformed: Sequence[Malformed]) -> None:
        """Sets the malformed messages of a window aside.

        Raises:
          StreamError: the dead-letter topic cannot be written to.
          BrokerUnavailable: no broker takes them; nothing is in the file.
        """
        if not malformed:
            return
        if self._producer is not None:
            self._send(malformed)
        for bad in malformed:
            self.records.append(
                {
                    "window": window,
                    "partition": bad.message.partition,
                    "offset": bad.message.offset,
                    "column": bad.column,
                    "reason": bad.reason,
                    "text": bad.text,
                }
            )

    def check(self, window: int, decoded: Decoded, in_a_row: int) -> None:
        """Makes sure that the malformed messages of a window may be set aside.

        Args:
          window: its number.
          decoded: its messages.
          in_a_row: the malformed messages since the last row, where whole windows were malformed.

        Raises:
          StreamError: they may not be set aside.
        """
        bad = decoded.malformed
        if bad and self._bad_rows == "error":
            raise StreamError(
                f"{self._address}: {bad[0]}. Mend what writes them, or set such messages aside with"
                " --config.data.bad_rows=quarantine"
            )
        in_a_row += len(bad)
        if bad and not len(decoded) and 0 < self._limit <= in_a_row:
            raise StreamError(
                f"{self._address}: all {len(bad):,} messages of window {window} are malformed, {in_a_row:,} in a row;"
                f" is the stream of another schema, or another format than {self._address.format}?"
                f" {reasons(bad)}. None of this window was set aside; to have that done, raise"
                " config.stream.malformed_in_a_row, or set it to 0"
            )

    def _send(self, malformed: Sequence[Malformed]) -> None:
        failed: list[Any] = []

        def note(error: Any, message: Any) -> None:
            del message
            if error is not None:
                failed.append(error)

        for bad in malformed:
            self._producer.produce(
                self._address.dead_letter,
                bad.message.value,
                f"{self._address.topic}/{bad.message.partition}/{bad.message.offset}",
                headers={"reason": bad.reason.encode(), "column": bad.column.encode()},
                on_delivery=note,
            )
            self._producer.poll(0)
        left = self._producer.flush(ANSWER)
        if failed and not failed[0].retriable():
            topic = self._address.dead_letter
            raise StreamError(
                f"{self._address}: the dead-letter topic {topic!r} cannot be written to: {failed[0].str()}"
            )
        if failed or left:
            self._producer.purge()
            raise BrokerUnavailable(f"{self._address}: the dead-letter topic does not take messages")


def check_dead_letter(address: StreamAddress) -> None:
    """Makes sure that the dead-letter topic exists, if the address names one.

    Raises:
      StreamError: it does not exist, or may not be seen.
      BrokerUnavailable: no broker answers.
    """
    if address.dead_letter:
        client = TopicClient(dataclasses.replace(address, topic=address.dead_letter))
        try:
            client.bounds()
        finally:
            client.close()


def reasons(malformed: Sequence[Malformed], shown: int = 3) -> str:
    """Describes the first message of each kind, the most frequent kinds first."""
    counts = Counter((bad.column, bad.reason) for bad in malformed)
    firsts: dict[tuple[str, str], Malformed] = {}
    for bad in malformed:
        firsts.setdefault((bad.column, bad.reason), bad)
    return "; ".join(str(firsts[kind]) for kind, _ in counts.most_common(shown))
