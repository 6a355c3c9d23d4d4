"""The values of a table along a stream: which are admitted, and which give up their row."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from tfrs_dlrm.streaming.admission.candidates import Candidates


@dataclasses.dataclass(frozen=True)
class Occurrences:
    """The values of a table in a window.

    Attributes:
      texts: the distinct ones.
      codes: int64 [N], of each occurrence its place in `texts`, in the order of the rows.
      positions: int64 [N], of each occurrence the number of its row along the stream.
    """

    texts: Sequence[bytes]
    codes: np.ndarray
    positions: np.ndarray


@dataclasses.dataclass(frozen=True)
class Changes:
    """The effects of a window on a table.

    Attributes:
      admitted: how many values got a row.
      fresh: int64 [k], ascending: the rows that changed hands, and begin anew.
      seen: how many values the window had, repetitions included.
      unseen: how many of them had no row before the window.
    """

    admitted: int
    fresh: np.ndarray
    seen: int
    unseen: int


class LivingVocabulary:
    """The values of a table, which has room for more of them.

    The count of a value, at a position of the stream, is the sum of 2^(-age / within) of its occurrences, where the age
    is in rows. After each window, the values that were seen `after` times within `within` rows at a moment of it get
    rows, the one with the highest count first, ties by their bytes. They get the free rows in order. Without free rows,
    the value with the lowest count gives up its row, if that count is lower than the newcomer's; of equal counts that
    of the last row. A newcomer that gets none stays a candidate. A value that lost its row is forgotten.

    Args:
      values: of rows 1, 2, ...
      counts: float64, their counts at the begin of the stream.
      room: how many values the table has rows for.
      within: the half-life of counts in rows.
      candidates: those that have no row.
      position: how many rows of the stream the counts have seen.

    Attributes:
      values: of rows 1, 2, ...
      counts: float64 [room], at `position`; of free rows 0.
    """

    def __init__(
        self,
        values: Sequence[bytes],
        counts: np.ndarray,
        room: int,
        within: int,
        candidates: Candidates,
        position: int = 0,
    ):
        self.values, self.position, self.candidates = list(values), position, candidates
        self.counts = np.zeros(room)
        self.counts[: len(counts)] = counts
        self._within = within
        self._rows = {value: row for row, value in enumerate(self.values, 1)}

    def rows(self, texts: Sequence[bytes]) -> np.ndarray:
        """Returns the row of each text, int64; 0 without one."""
        return np.fromiter((self._rows.get(text, 0) for text in texts), np.int64, len(texts))

    def see(self, found: Occurrences, position: int) -> Changes:
        """Counts the values of a window, and admits those that were seen often enough.

        Args:
          found: in the window.
          position: of the row behind it.
        """
        rows = self.rows(found.texts)[found.codes]
        known = rows > 0
        self.counts *= 0.5 ** ((position - self.position) / self._within)
        ages = (position - found.positions[known]) / self._within
        np.add.at(self.counts, rows[known] - 1, 0.5**ages)
        self.position = position
        newcomers = self._newcomers(found, ~known)
        begun = len(self.values)
        free = len(self.counts) - begun
        for count, value in newcomers[:free]:
            self.values.append(value)
            self._give(len(self.values), count, value)
        fresh = self._take_over(newcomers[free:])
        self.candidates.forget(position)
        unseen = int(np.count_nonzero(~known))
        return Changes(len(self.values) - begun + len(fresh), fresh, len(rows), unseen)

    def _newcomers(self, found: Occurrences, unknown: np.ndarray) -> list[tuple[float, bytes]]:
        """Counts occurrences without a row, and returns the values that were seen often enough, in their order."""
        enough = set[bytes]()
        pairs = zip(found.codes[unknown].tolist(), found.positions[unknown].tolist(), strict=True)
        for code, position in pairs:
            if self.candidates.see(found.texts[code], position):
                enough.add(found.texts[code])
        # If there were too many candidates, some are forgotten already.
        counted = [(self.candidates.count(v, self.position), v) for v in enough if v in self.candidates]
        return sorted(counted, key=lambda pair: (-pair[0], pair[1]))

    def _take_over(self, newcomers: Sequence[tuple[float, bytes]]) -> np.ndarray:
        """Gives the rows with the lowest counts to newcomers with higher ones; returns these rows, int64, ascending."""
        size = min(len(newcomers), len(self.counts))
        if not size:
            return np.zeros(0, np.int64)
        limit = np.partition(self.counts, size - 1)[size - 1]
        lowest = np.flatnonzero(self.counts <= limit)
        lowest = lowest[np.lexsort((-lowest, self.counts[lowest]))][:size]
        taken = []
        for line, (count, value) in zip(lowest.tolist(), newcomers, strict=False):
            if not self.counts[line] < count:
                break
            del self._rows[self.values[line]]
            self.values[line] = value
            self._give(line + 1, count, value)
            taken.append(line + 1)
        return np.array(sorted(taken), np.int64)

    def _give(self, row: int, count: float, value: bytes) -> None:
        self._rows[value] = row
        self.counts[row - 1] = count
        self.candidates.remove(value)
