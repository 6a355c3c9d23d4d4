"""This machine: blocks side by side in threads, vocabularies by DuckDB."""

from __future__ import annotations

import concurrent.futures
import functools
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence

from tfrs_dlrm.data.encoding.encoder import Encoder
from tfrs_dlrm.data.preparing.job import PrepareJob
from tfrs_dlrm.data.preparing.passes import CountingPass, EncodingPass, Pass, rows_of
from tfrs_dlrm.data.preparing.value_counts import by_falling_count
from tfrs_dlrm.data.preparing.workspace import Workspace
from tfrs_dlrm.data.raw import raw_files
from tfrs_dlrm.data.raw.segments import Reader, by_segment, segment_name, segment_of
from tfrs_dlrm.schema import Schema
from tfrs_dlrm.stores import Progress


class LocalEngine:
    """See `Engine`."""

    def count(self, job: PrepareJob, workspace: Workspace, report: Progress) -> None:
        """See `Engine`."""
        _run(CountingPass(job), job, workspace, report)

    def vocabularies(
        self, job: PrepareJob, workspace: Workspace, settings: Mapping[str, tuple[int, int | None]]
    ) -> Iterator[tuple[str, Iterator[Sequence[str]]]]:
        """See `Engine`."""
        for table, (min_count, max_size) in settings.items():
            yield table, by_falling_count(workspace.counts, table, min_count, max_size)

    def encode(self, job: PrepareJob, workspace: Workspace, schema: Schema, report: Progress) -> None:
        """See `Engine`."""
        _run(EncodingPass(job, Encoder(schema, workspace.output)), job, workspace, report)


def _run(work: Pass, job: PrepareJob, workspace: Workspace, report: Progress) -> None:
    """Works on the blocks of all unfinished segments side by side, and finishes each segment in order."""
    sizes = [raw_files.size(job.files[file]) for file in work.files]
    rows, ahead = 0, (os.cpu_count() or 1) + 1
    report(work.stage, 0, sum(sizes), 0)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for file, before in zip(work.files, itertools.accumulate(sizes, initial=0), strict=False):
            reader = Reader(job.files[file], job.schema)
            done = functools.partial(_is_done, work, workspace, file)
            todo = (block for block in reader if not done(segment_of(block)))
            for segment, group in by_segment(pool, functools.partial(work.work, file), todo, ahead):
                name = segment_name(file, segment)
                mark = work.finish(workspace, name, group)
                workspace.mark(work.kind, name, mark)
                rows += rows_of(mark)
                report(work.stage, before + reader.position, sum(sizes), rows)
    report(work.stage, sum(sizes), sum(sizes), rows)


def _is_done(work: Pass, workspace: Workspace, file: int, segment: int) -> bool:
    return workspace.is_marked(work.kind, segment_name(file, segment))
