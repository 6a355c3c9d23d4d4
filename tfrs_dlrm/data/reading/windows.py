"""Windows: the rows that are shuffled together, and the order of them in an epoch.

Each epoch puts the pieces of an input pipeline in a random order, joins neighbours to windows, and shuffles the rows of
a window. All of it is a function of (seed, epoch), so whoever has the pieces can say what a window holds.
"""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from tfrs_dlrm.data.reading.columns import Columns
from tfrs_dlrm.data.reading.parts import RowChunk


class ShuffleWindow(NamedTuple):
    """Which window of which epoch it is, counted from 0; its pieces; and how many of its rows to leave out."""

    epoch: int
    number: int
    pieces: list[Any]
    skip: int = 0

    @property
    def rows(self) -> int:
        """Of all pieces."""
        return sum(p.rows for p in self.pieces)


class ShuffleWindows:
    """The windows of one input pipeline.

    Args:
      pieces: what is read as a whole, see `PipelineShare`.
      read: reads one.
      seed: of the order; None leaves pieces and rows as they are.
      shuffle_rows: a window is complete once it has so many.
    """

    def __init__(self, pieces: Sequence[RowChunk], read: Callable[[Any], Columns], seed: int | None, shuffle_rows: int):
        self._pieces, self._read, self._seed, self._shuffle_rows = pieces, read, seed, shuffle_rows

    @property
    def most(self) -> int:
        """No epoch has more windows than this."""
        return len(self._pieces)

    def of(self, epoch: int, first_row: int = 0) -> list[ShuffleWindow]:
        """The windows of an epoch, in order, but for its rows before `first_row`."""
        out = []
        for number, pieces in enumerate(self._grouped(epoch)):
            window = ShuffleWindow(epoch, number, pieces, first_row)
            if first_row < window.rows:
                out.append(window)
            first_row = max(0, first_row - window.rows)
        return out

    def load(self, window: ShuffleWindow) -> Columns:
        """Reads and shuffles a window; its first `skip` rows are left out."""
        columns = Columns.join([self._read(piece) for piece in window.pieces])
        if self._seed is not None:
            columns = columns.take(permutation(len(columns), self._seed, window.epoch, window.number + 1))
        return columns.slice(window.skip, len(columns)) if window.skip else columns

    def rows(self, epoch: int, first_row: int) -> Iterator[Columns]:
        """The rows of an epoch from `first_row` on, a window at a time; the next is read in the background."""
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            ahead = None
            for window in self.of(epoch, first_row):
                following = pool.submit(self.load, window)
                if ahead is not None:
                    yield ahead.result()
                ahead = following
            if ahead is not None:
                yield ahead.result()

    def _grouped(self, epoch: int) -> Iterator[list[Any]]:
        order = list(range(len(self._pieces)))
        if self._seed is not None:
            order = permutation(len(order), self._seed, epoch, 0).tolist()
        window: list[Any] = []
        for i in order:
            window.append(self._pieces[i])
            if sum(p.rows for p in window) >= self._shuffle_rows:
                yield window
                window = []
        if window:
            yield window


def permutation(size: int, *key: int) -> np.ndarray:
    """A permutation that is a function of its arguments, whatever the version of NumPy: Philox's stream is fixed."""
    bits = np.random.Philox(np.random.SeedSequence([k % 2**64 for k in key]))
    return np.argsort(bits.random_raw(size), kind="stable")
