"""Shuffle windows: the rows that are shuffled together, and their order in an epoch.

Each epoch puts the chunks of an input pipeline in a random order, joins neighbours to windows, and shuffles the rows of
each window. All of it is a function of (seed, epoch), so every process with the chunks finds the same windows.
"""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from tfrs_dlrm.data.reading.columns import Columns
from tfrs_dlrm.data.reading.parts import RowChunk
from tfrs_dlrm.data.reading.whole_groups import order_of_groups


class ShuffleWindow(NamedTuple):
    """A window: its epoch and number, counted from 0, its chunks, and how many of its first rows to skip."""

    epoch: int
    number: int
    chunks: list[Any]
    skip: int = 0

    @property
    def rows(self) -> int:
        """The number of rows of all chunks."""
        return sum(p.rows for p in self.chunks)


class ShuffleWindows:
    """The windows of one input pipeline.

    Args:
      chunks: the chunks of the pipeline; see `PipelineShare`.
      read: reads one chunk.
      seed: of the order; None keeps chunks and rows in order.
      shuffle_rows: the rows after which a window is complete.
      groups: which of the matrices has the groups, whose rows stay together; None shuffles single rows.
    """

    def __init__(
        self,
        chunks: Sequence[RowChunk],
        read: Callable[[Any], Columns],
        seed: int | None,
        shuffle_rows: int,
        groups: int | None = None,
    ) -> None:
        self._chunks, self._read, self._seed, self._shuffle_rows = chunks, read, seed, shuffle_rows
        self._groups = groups

    @property
    def most(self) -> int:
        """The maximal number of windows in an epoch."""
        return len(self._chunks)

    def of(self, epoch: int, first_row: int = 0) -> list[ShuffleWindow]:
        """Lists the windows of an epoch, in order, from row `first_row` on."""
        out = []
        for number, chunks in enumerate(self._grouped(epoch)):
            window = ShuffleWindow(epoch, number, chunks, first_row)
            if first_row < window.rows:
                out.append(window)
            first_row = max(0, first_row - window.rows)
        return out

    def load(self, window: ShuffleWindow) -> Columns:
        """Reads and shuffles a window, and drops its first `skip` rows."""
        columns = Columns.join([self._read(piece) for piece in window.chunks])
        if self._seed is not None:
            columns = columns.take(self._order(columns, self._seed, window.epoch, window.number + 1))
        return columns.slice(window.skip, len(columns)) if window.skip else columns

    def rows(self, epoch: int, first_row: int) -> Iterator[Columns]:
        """Yields the rows of an epoch from `first_row` on, per window; the next window is read in the background."""
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            ahead = None
            for window in self.of(epoch, first_row):
                following = pool.submit(self.load, window)
                if ahead is not None:
                    yield ahead.result()
                ahead = following
            if ahead is not None:
                yield ahead.result()

    def _order(self, columns: Columns, *key: int) -> np.ndarray:
        """Returns the random order of the rows of a window."""
        if self._groups is None:
            return permutation(len(columns), *key)
        return order_of_groups(columns.matrices[self._groups], lambda count: permutation(count, *key))

    def _grouped(self, epoch: int) -> Iterator[list[Any]]:
        order = list(range(len(self._chunks)))
        if self._seed is not None:
            order = permutation(len(order), self._seed, epoch, 0).tolist()
        window: list[Any] = []
        for i in order:
            window.append(self._chunks[i])
            if sum(p.rows for p in window) >= self._shuffle_rows:
                yield window
                window = []
        if window:
            yield window


def permutation(size: int, *key: int) -> np.ndarray:
    """Makes a permutation from a key, the same in every version of NumPy: Philox's stream is fixed."""
    bits = np.random.Philox(np.random.SeedSequence([k % 2**64 for k in key]))
    return np.argsort(bits.random_raw(size), kind="stable")
