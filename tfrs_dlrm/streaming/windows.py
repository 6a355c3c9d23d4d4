"""Windows of rows, which are written down before they are touched, and which rows the weights have seen.

A run that is killed between two checkpoints trains on the same windows again. So it ends with the same weights and
evaluations as a run that is not killed. What the weights have seen is in the checkpoint: the two cannot disagree.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf

from tfrs_dlrm.streaming.reader import OffsetRange, StreamError


@dataclasses.dataclass(frozen=True)
class StreamWindow:
    """Rows that are evaluated, then trained on, together.

    Attributes:
      number: from 1.
      ranges: by partition, the offsets from the first up to, but not including, the second.
    """

    number: int
    ranges: dict[int, OffsetRange]

    @property
    def size(self) -> int:
        """The number of offsets; some of them may hold no row."""
        return sum(end - begin for begin, end in self.ranges.values())


def compose(begins: Mapping[int, int], ends: Mapping[int, int], rows: int) -> dict[int, OffsetRange]:
    """Returns up to `rows` offsets, as equally many of each partition as it has; empty partitions are left out.

    The result depends on the arguments alone.

    Args:
      begins: by partition, the next offset.
      ends: by partition, the offset behind the last.
      rows: how many at most.
    """
    available = {p: max(0, ends[p] - begins[p]) for p in begins}
    ranges, left = {}, rows
    # Partitions with few rows first: the others share what is left.
    for i, p in enumerate(sorted(available, key=lambda p: (available[p], p))):
        share = -(-left // (len(available) - i))
        taken = min(available[p], share)
        left -= taken
        if taken:
            ranges[p] = (begins[p], begins[p] + taken)
    return dict(sorted(ranges.items()))


class WindowJournal:
    """The windows of a run, in a file of JSON lines.

    Args:
      path: the file.

    Raises:
      ValueError: the file holds something else.
    """

    def __init__(self, path: str):
        self._path = path
        self._windows: dict[int, StreamWindow] = {}
        if os.path.exists(path):
            self._read()

    def find(
        self, number: int, begins: Mapping[int, int], ranges: Callable[[Mapping[int, int]], dict[int, OffsetRange]]
    ) -> StreamWindow | None:
        """Returns the window of that number, the recorded one if there is one; None if no window follows.

        Args:
          number: of the window.
          begins: by partition, the next offset.
          ranges: gives the offsets of a new window, from the next offset by partition; empty if no window follows.

        Raises:
          StreamError: the recorded window does not begin where the checkpoint resumes.
        """
        if recorded := self.window(number, begins):
            return recorded
        found = ranges(begins)
        return StreamWindow(number, found) if found else None

    def window(self, number: int, begins: Mapping[int, int]) -> StreamWindow | None:
        """Returns the window of that number, if a run that was killed has begun it.

        Args:
          number: of the window.
          begins: by partition, the next offset.

        Raises:
          StreamError: it begins at another offset.
        """
        window = self._windows.get(number)
        wrong = [p for p, (begin, _) in (window.ranges if window else {}).items() if begins.get(p, begin) != begin]
        if window and wrong:
            begin = window.ranges[wrong[0]][0]
            raise StreamError(
                f"{self._path}: window {number} begins at offset {begin} of partition {wrong[0]}, and the checkpoint"
                f" resumes at {begins[wrong[0]]}; these are of different runs"
            )
        return window

    def write(self, window: StreamWindow) -> None:
        """Adds a window, unless it is recorded; it is on disk when this returns."""
        if self._windows.get(window.number) == window:
            return
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
                    break  # cut by a kill: this window was never begun
                try:
                    data = json.loads(line)
                    ranges = {int(p): (int(begin), int(end)) for p, (begin, end) in data["ranges"].items()}
                    self._windows[data["window"]] = StreamWindow(data["window"], ranges)
                except (ValueError, KeyError, TypeError, AttributeError) as e:
                    raise ValueError(f"{self._path}: not the windows of a stream: {line[:100]!r}") from e
                whole += len(line)
            f.truncate(whole)


class StreamState(tf.Module):
    """The progress of a run along a stream, saved with the weights.

    Attributes:
      step: the train steps so far.
      window: the windows so far, so that the last one done has this number.
      rows: trained on so far.
      malformed: messages set aside so far.
      malformed_in_a_row: malformed messages since the last row, counted over windows without any row.
      offsets: int64 [partitions], of each partition the offset of the first message that is not yet done.
    """

    def __init__(self) -> None:
        super().__init__()
        self.step = _counter()
        self.window = _counter()
        self.rows = _counter()
        self.malformed = _counter()
        self.malformed_in_a_row = _counter()
        # Topics may get further partitions.
        self.offsets = tf.Variable(np.zeros(0, np.int64), trainable=False, shape=tf.TensorShape([None]))

    @property
    def windows(self) -> int:
        """The number of the last window done."""
        return int(self.window.numpy())

    def advance(self, window: StreamWindow, step: int, rows: int, malformed: int) -> None:
        """Records that a window is done.

        Args:
          window: that window.
          step: the last train step.
          rows: how many it was trained on.
          malformed: its messages that were set aside.
        """
        self.step.assign(step)
        self.window.assign(window.number)
        self.rows.assign_add(rows)
        self.malformed.assign_add(malformed)
        self.malformed_in_a_row.assign(0 if rows else int(self.malformed_in_a_row.numpy()) + malformed)
        self.set_offsets(offsets_after(self.next_offsets(), window))

    def next_offsets(self) -> dict[int, int]:
        """The offsets by partition."""
        return {partition: int(offset) for partition, offset in enumerate(self.offsets.numpy())}

    def set_offsets(self, offsets: Mapping[int, int]) -> None:
        """Sets the offsets of all partitions, whose numbers are 0, 1, ..."""
        self.offsets.assign(np.array([offsets[p] for p in range(len(offsets))], np.int64))


def offsets_after(begins: Mapping[int, int], window: StreamWindow) -> dict[int, int]:
    """Returns, by partition, the next offset once a window is done.

    Args:
      begins: the next offset before it.
      window: the window.
    """
    offsets = dict(begins)
    for partition in range(max(window.ranges, default=-1) + 1):  # a new partition begins at its first offset
        offsets.setdefault(partition, window.ranges.get(partition, (0, 0))[0])
    return offsets | {p: end for p, (_, end) in window.ranges.items()}


def _counter() -> tf.Variable:
    return tf.Variable(0, dtype=tf.int64, trainable=False)
