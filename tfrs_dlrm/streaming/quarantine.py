"""What becomes of messages that are no rows: a line in a file, and perhaps a copy in another topic."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Any

from tfrs_dlrm.streaming.address import StreamAddress
from tfrs_dlrm.streaming.client import ANSWER, Client, producer
from tfrs_dlrm.streaming.messages import Malformed
from tfrs_dlrm.streaming.reader import StreamError, Unavailable
from tfrs_dlrm.training.records import Records


class Quarantine:
    """The malformed messages of a run.

    In the file each is there once, whatever happened to the run. The dead-letter topic gets each at least once: those
    between a checkpoint and a kill come again, under the same key, TOPIC/PARTITION/OFFSET.

    Args:
      path: the file: one JSON object a line.
      address: of the stream.
    """

    def __init__(self, path: str, address: StreamAddress):
        self.records = Records(path, "window")
        self._address = address
        self._producer: Any = producer(address) if address.dead_letter else None

    def add(self, window: int, malformed: Sequence[Malformed]) -> None:
        """Sets the malformed messages of a window aside.

        Raises:
          StreamError: the dead-letter topic cannot be written to.
          Unavailable: no broker takes them; nothing is in the file.
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
            raise Unavailable(f"{self._address}: the dead-letter topic does not take messages")


def check_dead_letter(address: StreamAddress) -> None:
    """Makes sure that there is a dead-letter topic, where the address names one.

    Raises:
      StreamError: there is none, or no right to see it.
      Unavailable: no broker answers.
    """
    if address.dead_letter:
        client = Client(dataclasses.replace(address, topic=address.dead_letter))
        try:
            client.bounds()
        finally:
            client.close()


def reasons(malformed: Sequence[Malformed], shown: int = 3) -> str:
    """The first of each kind, the most frequent kinds first."""
    counts = Counter((bad.column, bad.reason) for bad in malformed)
    firsts: dict[tuple[str, str], Malformed] = {}
    for bad in malformed:
        firsts.setdefault((bad.column, bad.reason), bad)
    return "; ".join(str(firsts[kind]) for kind, _ in counts.most_common(shown))
