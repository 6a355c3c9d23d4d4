"""Blocks worked on side by side, their results in order, a segment at a time.

A segment is a few consecutive blocks of one file. It depends on the file alone, so that a run which was interrupted
finds the same segments again.
"""

from __future__ import annotations

import collections
import concurrent.futures
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from tfrs_dlrm.data.raw import sources
from tfrs_dlrm.data.raw.sources import RawBlock
from tfrs_dlrm.schema import Schema

BLOCKS_PER_SEGMENT = 4
T = TypeVar("T")
R = TypeVar("R")


def segment_of(block: RawBlock) -> int:
    """The position of a block's segment in its file."""
    return block.index // BLOCKS_PER_SEGMENT


def segment_name(file: int, segment: int) -> str:
    """A name that sorts by file and position."""
    return f"part-{file:05d}-{segment:05d}"


class Reader:
    """The blocks of a file, and how many of its bytes are read."""

    def __init__(self, path: str, schema: Schema):
        self._path, self._schema, self.position = path, schema, 0

    def __iter__(self) -> Iterator[RawBlock]:
        return sources.blocks(self._path, self._schema, self._at)

    def _at(self, position: int) -> None:
        self.position = position


def by_segment(
    pool: concurrent.futures.Executor, work: Callable[[RawBlock], R], blocks: Iterable[RawBlock], ahead: int
) -> Iterator[tuple[int, Iterator[R]]]:
    """Runs `work` on blocks and gives (segment, the results of its blocks in order).

    Args:
      pool: runs the work.
      work: on one block.
      blocks: of one file, in order.
      ahead: at most this many blocks are under way, so that memory stays bounded.

    Returns:
      Pairs of which each is to be used up before the next is asked for.
    """
    results = _in_order(pool, functools.partial(_numbered, work), blocks, ahead)
    for segment, group in itertools.groupby(results, key=lambda pair: pair[0]):
        yield segment, (result for _, result in group)


def _numbered(work: Callable[[RawBlock], R], block: RawBlock) -> tuple[int, R]:
    return segment_of(block), work(block)


def _in_order(pool: concurrent.futures.Executor, work: Callable[[T], R], items: Iterable[T], ahead: int) -> Iterator[R]:
    """Results in the order of the items, with at most `ahead` items under way, so that memory stays bounded."""
    pending: collections.deque[concurrent.futures.Future[R]] = collections.deque()
    try:
        for item in items:
            pending.append(pool.submit(work, item))
            if len(pending) >= ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()
