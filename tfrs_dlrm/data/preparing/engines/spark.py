"""The engine on a Spark cluster: tasks work on segments, and Spark SQL sums and sorts vocabularies.

Executors read raw files and write shards through a file system that all machines share. Only numbers of tasks and
counted values pass through Spark. The same code works on the same segments as on one machine, and gives the same bytes.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import json
import os
import shutil
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
from absl import logging

from tfrs_dlrm.data.preparing import job as prepare_job
from tfrs_dlrm.data.preparing.engines import spark_tasks
from tfrs_dlrm.data.preparing.engines.spark_session import explained, is_local, session
from tfrs_dlrm.data.preparing.engines.spark_tasks import Site
from tfrs_dlrm.data.preparing.engines.units import WorkUnit, stretches, units
from tfrs_dlrm.data.preparing.job import PrepareJob
from tfrs_dlrm.data.preparing.passes import rows_of
from tfrs_dlrm.data.preparing.workspace import COUNTED, ENCODED, FAILED, Workspace
from tfrs_dlrm.data.raw import raw_files, sources
from tfrs_dlrm.data.raw.parsing import BadRow, BadRowError
from tfrs_dlrm.data.raw.sources import BlockStart
from tfrs_dlrm.schema import Schema
from tfrs_dlrm.stores import Progress
from tfrs_dlrm.stores.files import read_json, write_json

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_TASKS = 10_000  # maximum per job; with more units, a task works on several
_POLL_S = 0.2
# How long to wait for the first executor before a warning, and before an error.
_WARN_S, _GIVE_UP_S = 20.0, 300.0


@contextlib.contextmanager
def spark_engine(master: str | None) -> Iterator[SparkEngine]:
    """Makes the engine, on the active Spark session or a new one; see `session` for arguments and errors."""
    with session(master) as spark:
        yield SparkEngine(spark)


class SparkEngine:
    """The engine on a Spark session."""

    def __init__(self, spark: SparkSession):
        self._spark = spark

    def count(self, job: PrepareJob, workspace: Workspace, report: Progress) -> None:
        """See `Engine.count`."""
        self._pass("vocabulary", COUNTED, len(job.train_files), _site(job, workspace), None, report)

    def encode(self, job: PrepareJob, workspace: Workspace, schema: Schema, report: Progress) -> None:
        """See `Engine.encode`."""
        self._pass("encode", ENCODED, len(job.files), _site(job, workspace), schema, report)

    def sums(
        self, job: PrepareJob, workspace: Workspace, tables: Sequence[str], ranked: bool
    ) -> Iterator[tuple[str, Iterator[pa.RecordBatch]]]:
        """See `Engine.sums`."""
        if not tables:
            return
        files = self._summed_values(job, workspace, tables, ranked)
        for number, name in enumerate(tables):
            yield name, _batches([spark_tasks.values_file(workspace, part, t) for part, t in files if t == number])

    def _summed_values(
        self, job: PrepareJob, workspace: Workspace, tables: Sequence[str], ranked: bool
    ) -> list[tuple[int, int]]:
        """Sums the counts of all tables, see `Engine.sums`; returns the files of the values, as (part, table)."""
        from pyspark.sql import functions as F

        site, names = _site(job, workspace), workspace.marked(COUNTED)
        read = functools.partial(spark_tasks.read_counts, site, list(tables), names)
        sums = (
            _map(self._numbers(len(names)), read, "table int, value string, n bigint")
            .where(~F.col("value").rlike("[\r\n]"))  # a vocabulary file holds one value per line
            .groupBy("table", "value")
            .agg(F.sum("n").alias("n"))
        )
        # Each part writes one table after the other.
        sums = sums.orderBy("table", F.col("n").desc(), "value") if ranked else sums.sortWithinPartitions("table")
        sums = sums.select("table", "value", "n")
        write = functools.partial(spark_tasks.write_values, site)
        rows = self._collect(_map(sums, write, "part int, table int"))
        return sorted((row.part, row.table) for row in rows)

    def _pass(self, stage: str, kind: str, files: int, site: Site, schema: Schema | None, report: Progress) -> None:
        workspace = Workspace(site.output, run=site.run)
        shutil.rmtree(os.path.join(workspace.work, FAILED), ignore_errors=True)
        plan = self._plan(site, workspace)
        total = sum(site.sizes[:files])
        progress = _PassProgress(workspace, stage, kind, total, report)
        todo = [
            unit
            for unit in plan
            if unit.file < files and not (unit.start and workspace.is_marked(kind, unit.first_segment))
        ]
        run = functools.partial(spark_tasks.run_pass, site, kind, schema, todo)
        self._collect(_map(self._numbers(len(todo)), run, "id bigint"), progress)
        if failed := workspace.marked(FAILED):
            _raise(workspace.read_mark(FAILED, failed[0]))
        progress()
        report(stage, total, total, progress.rows)

    def _plan(self, site: Site, workspace: Workspace) -> list[WorkUnit]:
        """The units of all files, which are found once and then kept."""
        path = os.path.join(workspace.work, "units.json")
        if os.path.exists(path):
            kept = read_json(path)
            if kept["cuts"] == list(site.cuts):
                return [
                    WorkUnit(file, BlockStart(*start) if start else None, size) for file, start, size in kept["units"]
                ]
        parts = stretches(site.paths, site.sizes)
        look = functools.partial(spark_tasks.look_at, site, parts)
        rows = self._collect(_map(self._numbers(len(parts)), look, "id bigint, answer string"))
        answers: dict[int, list[int]] = {}
        for row in sorted(rows, key=lambda row: row.id):
            answers.setdefault(parts[row.id].file, []).extend(json.loads(row.answer))
        header = not site.job.schema.text.columns
        found: list[WorkUnit] = []
        for file, (name, size) in enumerate(zip(site.paths, site.sizes, strict=True)):
            found += units(file, name, size, answers[file], header)
        rows_of_units = [[u.file, u.start and [*vars(u.start).values()], u.size] for u in found]
        write_json(path, {"cuts": list(site.cuts), "units": rows_of_units})
        return found

    def _numbers(self, count: int) -> DataFrame:
        """A column with the numbers from 0 to `count` - 1, each of which is a task."""
        return self._spark.range(0, count, 1, max(1, min(count, _TASKS)))

    def _collect(self, frame: DataFrame, tick: Callable[[], None] = lambda: None) -> list[Any]:
        """Collects the rows of a small frame, and calls `tick` while it waits.

        Raises:
          OSError: executors fail, lack something, or do not start.
        """
        context = self._spark.sparkContext
        group = f"tfrs-dlrm-{uuid.uuid4().hex}"

        def collect() -> list[Any]:
            context.setJobGroup(group, "tfrs-dlrm prepare", interruptOnCancel=True)
            return frame.collect()

        pool = concurrent.futures.ThreadPoolExecutor(1)
        future = pool.submit(collect)
        try:
            waiting = _Waiting(self._spark)
            pause = _POLL_S
            while not concurrent.futures.wait([future], pause).done:
                begin = time.monotonic()
                waiting()
                tick()
                pause = max(_POLL_S, 20 * (time.monotonic() - begin))  # long directories take a while to list
            with explained(str(context.master)):
                return future.result()
        finally:
            if not future.done():
                with contextlib.suppress(Exception):
                    context.cancelJobGroup(group)
            pool.shutdown(wait=False)


class _Waiting:
    """Warns, then raises, while a cluster gives no executor."""

    def __init__(self, spark: SparkSession):
        self._context, self._begin, self._warned = spark.sparkContext, time.monotonic(), False
        self._over = is_local(str(self._context.master))

    def __call__(self) -> None:
        if self._over:
            return
        with contextlib.suppress(Exception):  # if the driver's Java is gone, the job raises
            tracker = self._context._jsc.sc().statusTracker()
            self._over = len(tracker.getExecutorInfos()) > 1  # the driver is one
        waited = time.monotonic() - self._begin
        what = (
            f"no executor from {self._context.master} for {waited:.0f} s: are there workers with free cores and memory"
        )
        if not self._over and waited > _GIVE_UP_S:
            raise TimeoutError(f"{what}? Start workers, or ask for less (spark.executor.memory, spark.executor.cores)")
        if not self._over and waited > _WARN_S and not self._warned:
            self._warned = True
            logging.warning("%s?", what)


class _PassProgress:
    """Reports the finished segments, and the rows of this run."""

    def __init__(self, workspace: Workspace, stage: str, kind: str, total: int, report: Progress):
        self._workspace, self._stage, self._kind, self._total, self._report = workspace, stage, kind, total, report
        self._seen: set[str] = set()
        self._bytes = self.rows = 0
        self._look()
        self.rows = 0
        self()

    def __call__(self) -> None:
        self._look()
        self._report(self._stage, min(self._bytes, self._total), self._total, self.rows)

    def _look(self) -> None:
        new = set(self._workspace.marked(self._kind)) - self._seen
        marks = [self._workspace.read_mark(self._kind, name) for name in new]
        self._bytes += sum(mark.get("bytes", 0) for mark in marks)  # LocalEngine marks hold no bytes
        self.rows += sum(rows_of(mark) for mark in marks)
        self._seen |= new


def _site(job: PrepareJob, workspace: Workspace) -> Site:
    paths = tuple(raw_files.absolute(str(file)) for file in job.files)
    cuts = sources.BLOCK_BYTES, sources.BLOCK_ROWS, prepare_job.BLOCKS_PER_SEGMENT
    sizes = tuple(map(raw_files.size, paths))
    return Site(job, paths, sizes, os.path.abspath(workspace.output), workspace.run, cuts)


def _map(frame: DataFrame, function: Callable[..., Any], columns: str) -> DataFrame:
    """Applies a function of `spark_tasks` to the partitions of a frame."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # on pandas, which none of this uses
        return frame.mapInArrow(function, columns)


def _batches(paths: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Yields the batches of files, in order."""
    for path in paths:
        with pq.ParquetFile(path) as file:
            yield from file.iter_batches()


def _raise(failure: dict[str, Any]) -> None:
    if "bad" in failure:
        raise BadRowError(BadRow(**failure["bad"]))
    raise ValueError(failure["message"])
