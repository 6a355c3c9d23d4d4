"""Which rows belong together. A window is written down before it is touched.

A run that is killed between two checkpoints does the same windows again, so that it ends with the same weights as one
that was not, and with the same evaluations.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping

from tfrs_dlrm.streaming.reader import Range, StreamError


@dataclasses.dataclass(frozen=True)
class Window:
    """Some rows, evaluated and trained on as one.

    Attributes:
      number: from 1.
      ranges: by partition, the offsets from the first up to, but not including, the second.
    """

    number: int
    ranges: dict[int, Range]

    @property
    def size(self) -> int:
        """How many offsets it has; some of them may hold no row."""
        return sum(end - begin for begin, end in self.ranges.values())


def compose(begins: Mapping[int, int], ends: Mapping[int, int], rows: int) -> dict[int, Range]:
    """Up to `rows` offsets, of all partitions as equally many as they have; those without any are left out.

    It depends on the arguments alone.

    Args:
      begins: by partition, the next offset.
      ends: by partition, the offset behind the last.
      rows: how many at most.
    """
    available = {p: max(0, ends[p] - begins[p]) for p in begins}
    ranges, left = {}, rows
    # Those with few rows first: what they leave is for the others.
    for i, p in enumerate(sorted(available, key=lambda p: (available[p], p))):
        share = -(-left // (len(available) - i))
        taken = min(available[p], share)
        left -= taken
        if taken:
            ranges[p] = (begins[p], begins[p] + taken)
    return dict(sorted(ranges.items()))


class Journal:
    """The windows of a run, in a file of JSON lines.

    Args:
      path: of it.

    Raises:
      ValueError: it holds something else.
    """

    def __init__(self, path: str):
        self._path = path
        self._windows: dict[int, Window] = {}
        if os.path.exists(path):
            self._read()

    def window(self, number: int, begins: Mapping[int, int]) -> Window | None:
        """The window of that number, where a run that was killed has begun it.

        Args:
          number: of it.
          begins: by partition, the next offset.

        Raises:
          StreamError: it begins elsewhere.
        """
        window = self._windows.get(number)
        wrong = [p for p, (begin, _) in (window.ranges if window else {}).items() if begins.get(p, begin) != begin]
        if window and wrong:
            begin = window.ranges[wrong[0]][0]
            raise StreamError(
                f"{self._path}: window {number} begins at offset {begin} of partition {wrong[0]}, and the checkpoint"
                f" goes on at {begins[wrong[0]]}; these are of different runs"
            )
        return window

    def write(self, window: Window) -> None:
        """Adds a window; it is on disk when this returns."""
        self._windows = {window.number: window}
        with open(self._path, "a", encoding="utf-8") as f:
            f.write(json.dumps({"window": window.number, "ranges": window.ranges}) + "\n")
            f.flush()
            os.fsync(f.fileno())

    def _read(self) -> None:
        with open(self._path, "rb+") as f:
            whole = 0
            for line in f:
                if not line.endswith(b"\n"):
                    break  # a kill in the middle of it: nobody has begun this window
                try:
                    data = json.loads(line)
                    ranges = {int(p): (int(begin), int(end)) for p, (begin, end) in data["ranges"].items()}
                    self._windows[data["window"]] = Window(data["window"], ranges)
                except (ValueError, KeyError, TypeError, AttributeError) as e:
                    raise ValueError(f"{self._path}: not the windows of a stream: {line[:100]!r}") from e
                whole += len(line)
            f.truncate(whole)
