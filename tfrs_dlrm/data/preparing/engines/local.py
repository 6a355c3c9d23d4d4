"""The engine on this machine: threads work on blocks in parallel, and DuckDB sorts vocabularies."""

from __future__ import annotations

import collections
import concurrent.futures
import functools
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import pyarrow as pa

from tfrs_dlrm.data.encoding.encoder import Encoder
from tfrs_dlrm.data.preparing.duckdb_rows import connect
from tfrs_dlrm.data.preparing.job import PrepareJob, segment_name, segment_of
from tfrs_dlrm.data.preparing.kept_rows import KeptBlock, drop_kept, kept_segments
from tfrs_dlrm.data.preparing.passes import CountingPass, EncodingPass, Pass, rows_of
from tfrs_dlrm.data.preparing.profiling.row_sample import planned_share
from tfrs_dlrm.data.preparing.value_counts import summed
from tfrs_dlrm.data.preparing.workspace import ENCODED, Workspace
from tfrs_dlrm.data.raw import sources
from tfrs_dlrm.data.raw.sources import RawBlock
from tfrs_dlrm.schema import Schema
from tfrs_dlrm.stores import Progress

T = TypeVar("T")
R = TypeVar("R")
B = TypeVar("B", RawBlock, RawBlock | KeptBlock)


class LocalEngine:
    """The engine on this machine."""

    def count(self, job: PrepareJob, workspace: Workspace, report: Progress) -> None:
        """See `Engine.count`."""
        _run(CountingPass(job), job, workspace, report)

    def sums(
        self, job: PrepareJob, workspace: Workspace, tables: Sequence[str], ranked: bool
    ) -> Iterator[tuple[str, Iterator[pa.RecordBatch]]]:
        """See `Engine.sums`."""
        if not tables:
            return
        with connect(workspace.counts) as connection:  # one for all, since it takes as long as a small query
            for table in tables:
                yield table, summed(connection, workspace.counts, table, ranked)

    def encode(self, job: PrepareJob, workspace: Workspace, schema: Schema, report: Progress) -> None:
        """See `Engine.encode`."""
        encoder, share = Encoder(schema, workspace.output), planned_share(workspace)
        _run(EncodingPass(job, encoder, share), job, workspace, report)


def _run(work: Pass, job: PrepareJob, workspace: Workspace, report: Progress) -> None:
    """Works on the blocks of all unfinished segments in parallel, and finishes the segments in order."""
    sizes = [sources.size_of(job.files[file], job.log.schema) for file in work.files]
    rows, ahead = 0, (os.cpu_count() or 1) + 1
    report(work.stage, 0, sum(sizes), 0)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for file, size, before in zip(work.files, sizes, itertools.accumulate(sizes, initial=0), strict=False):
            reader = _FileBlocks(job, file, size)
            todo = _todo(work, workspace, file, reader)
            for segment, group in _by_segment(pool, functools.partial(work.work, file), todo, ahead):
                name = segment_name(file, segment)
                mark = work.finish(workspace, name, group)
                workspace.mark(work.kind, name, mark)
                if work.kind == ENCODED:
                    drop_kept(workspace, name)
                rows += rows_of(mark)
                report(work.stage, before + reader.position, sum(sizes), rows)
    report(work.stage, sum(sizes), sum(sizes), rows)


def _todo(work: Pass, workspace: Workspace, file: int, reader: _FileBlocks) -> Iterator[RawBlock | KeptBlock]:
    """Yields the blocks of unfinished segments, in order: kept ones, and where there are none, those of the log."""
    if work.kind == ENCODED and (names := kept_segments(workspace, file)):
        for number, name in enumerate(names, 1):
            yield from work.kept(workspace, name) or ()
            reader.position = reader.size * number // len(names)
        return
    for segment, group in itertools.groupby(reader, segment_of):
        name = segment_name(file, segment)
        if not workspace.is_marked(work.kind, name):
            yield from work.kept(workspace, name) or group


class _FileBlocks:
    """The blocks of a file or frame of `size` bytes, and how many of them have been read."""

    def __init__(self, job: PrepareJob, file: int, size: int):
        self._job, self._file, self.size, self.position = job, file, size, 0

    def __iter__(self) -> Iterator[RawBlock]:
        job, file = self._job, self._file
        return sources.blocks_of_many(job.files[file], job.log.schema, job.beside(file), self._at)

    def _at(self, position: int) -> None:
        self.position = position


def _by_segment(
    pool: concurrent.futures.Executor, work: Callable[[B], R], blocks: Iterable[B], ahead: int
) -> Iterator[tuple[int, Iterator[R]]]:
    """Runs `work` on blocks, and yields each segment and the results of its blocks in order.

    Args:
      pool: runs the work.
      work: works on one block.
      blocks: the blocks of one file, in order.
      ahead: how many blocks are in work at most, which bounds memory.

    Yields:
      Pairs; use up the results of one before asking for the next.
    """
    results = _in_order(pool, functools.partial(_numbered, work), blocks, ahead)
    for segment, group in itertools.groupby(results, key=lambda pair: pair[0]):
        yield segment, (result for _, result in group)


def _numbered(work: Callable[[B], R], block: B) -> tuple[int, R]:
    return segment_of(block), work(block)


def _in_order(pool: concurrent.futures.Executor, work: Callable[[T], R], items: Iterable[T], ahead: int) -> Iterator[R]:
    """Yields results in the order of the items, with at most `ahead` items in work, which bounds memory."""
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
