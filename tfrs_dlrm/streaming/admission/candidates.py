"""Values without a row, and when each was seen."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Iterable, Iterator


def decayed(count: float, rows: int, half_life: int) -> float:
    """Returns a count after so many rows."""
    return count * 0.5 ** (rows / half_life)


class Candidates:
    """Counts values that have no row, until they are seen `after` times within `within` rows.

    The least recently seen one is forgotten when there are more than `most`, and each that was not seen for `within`
    rows. As long as there are not more, the counts are exact.

    Args:
      after: how often.
      within: of how many rows; also the half-life of counts.
      most: how many values are kept.
    """

    def __init__(self, after: int, within: int, most: int):
        self._after, self._within, self._most = after, within, most
        # By value, the least recently seen first: its decayed count, and the positions of the last occurrences.
        self._seen: OrderedDict[bytes, tuple[float, list[int]]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._seen)

    def __contains__(self, value: bytes) -> bool:
        return value in self._seen

    def __iter__(self) -> Iterator[tuple[bytes, float, list[int]]]:
        """Yields values, the least recently seen first, with their counts and positions as `add` takes them."""
        for value, (count, positions) in self._seen.items():
            yield value, count, positions

    def add(self, value: bytes, count: float, positions: Iterable[int]) -> None:
        """Adds a value that was seen last of all.

        Args:
          value: the value.
          count: as of its last occurrence.
          positions: of up to `after` last occurrences, in order.
        """
        self._seen[value] = count, list(positions)[-self._after :]
        if len(self._seen) > self._most:
            self._seen.popitem(last=False)

    def see(self, value: bytes, position: int) -> bool:
        """Counts an occurrence, and returns whether the value has now been seen often enough.

        Args:
          value: the value.
          position: the number of its row along the stream, not below that of earlier calls.
        """
        count, positions = self._seen.pop(value, (0.0, []))
        count = 1 + (decayed(count, position - positions[-1], self._within) if positions else 0.0)
        positions.append(position)
        self.add(value, count, positions)
        positions = self._seen[value][1]
        return len(positions) == self._after and position - positions[0] < self._within

    def count(self, value: bytes, position: int) -> float:
        """Returns the decayed count of a candidate at a position: the sum of 2^(-age / within) of its occurrences."""
        count, positions = self._seen[value]
        return decayed(count, position - positions[-1], self._within)

    def remove(self, value: bytes) -> None:
        """Removes a value that got a row."""
        del self._seen[value]

    def forget(self, position: int) -> None:
        """Forgets the values whose last occurrence is `within` rows or more before a position."""
        old = itertools.takewhile(lambda seen: position - seen[1][1][-1] >= self._within, self._seen.items())
        for value in [value for value, _ in old]:
            del self._seen[value]
