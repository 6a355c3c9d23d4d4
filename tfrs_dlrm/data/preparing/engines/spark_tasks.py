"""The tasks of Spark executors, which import this module by name, and TensorFlow only if they need it.

A task may run twice at the same time, or die and run again on another machine. So it writes temporary files of unique
names, finishes whole segments only, and writes the same bytes in each run.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import socket
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from tfrs_dlrm.data.preparing import job as prepare_job
from tfrs_dlrm.data.preparing.engines.units import Stretch, WorkUnit, look
from tfrs_dlrm.data.preparing.job import PrepareJob, segment_name, segment_of
from tfrs_dlrm.data.preparing.workspace import COUNTED, ENCODED, FAILED, Workspace
from tfrs_dlrm.data.raw import raw_files, sources
from tfrs_dlrm.data.raw.sources import RawBlock
from tfrs_dlrm.schema import Schema
from tfrs_dlrm.stores import StoreError

if TYPE_CHECKING:
    from tfrs_dlrm.data.preparing.passes import Pass

Batches = Iterator[pa.RecordBatch]
_PASSES: dict[tuple[str, str], Pass] = {}


@dataclasses.dataclass(frozen=True)
class Site:
    """The files of a run and how it cuts them, equal for all tasks.

    Attributes:
      job: the job.
      paths: the absolute paths of its files.
      sizes: the sizes of its files in bytes.
      output: the absolute path of the output directory.
      run: the run of `prepare`.
      cuts: `BLOCK_BYTES`, `BLOCK_ROWS` and `BLOCKS_PER_SEGMENT` of the process that divided the work.
    """

    job: PrepareJob
    paths: tuple[str, ...]
    sizes: tuple[int, ...]
    output: str
    run: str
    cuts: tuple[int, int, int]

    def enter(self) -> Workspace:
        """Sets up an executor; call it first in each task.

        Raises:
          FileNotFoundError: this machine cannot see the output directory.
        """
        # Cut files as the driver does, even if this is another version.
        sources.BLOCK_BYTES, sources.BLOCK_ROWS, prepare_job.BLOCKS_PER_SEGMENT = self.cuts
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
        workspace = Workspace(self.output, uuid.uuid4().hex, self.run)
        if not os.path.isdir(workspace.work):
            raise FileNotFoundError(_not_visible(self.output, "output"))
        return workspace

    def check_visible(self, file: int) -> None:
        """Checks that this machine sees the same input file as the driver.

        Raises:
          FileNotFoundError: it is missing, or has another size.
        """
        try:
            size = raw_files.size(self.paths[file])
        except StoreError:
            raise
        except OSError:
            raise FileNotFoundError(_not_visible(self.paths[file], "input")) from None
        if size != self.sizes[file]:
            where = f"on the executor {socket.gethostname()}, {self.sizes[file]} where prepare was started"
            raise FileNotFoundError(f"{self.paths[file]}: {size} bytes {where}; all machines must see one shared file")


def _not_visible(path: str, what: str) -> str:
    here = f"the {what} cannot be seen on the executor {socket.gethostname()}"
    return f"{path}: {here}; put it on a file system that all machines share, under the same path"


def look_at(site: Site, parts: list[Stretch], batches: Batches) -> Batches:
    """Looks at the stretches of `parts` by number; columns `id` and `answer`, which is JSON."""
    site.enter()
    for batch in batches:
        numbers = batch.column(0).to_pylist()
        for number in numbers:
            site.check_visible(parts[number].file)
        answers = [json.dumps(look(site.paths[parts[n].file], parts[n])) for n in numbers]
        yield pa.record_batch([pa.array(numbers, pa.int64()), pa.array(answers, pa.string())], ["id", "answer"])


def run_pass(site: Site, kind: str, schema: Schema | None, todo: list[WorkUnit], batches: Batches) -> Batches:
    """Runs a pass over units, given by their numbers in `todo`, and returns the numbers.

    Bad data in a segment is no error of the task, since running it again would not help: a mark tells the driver.
    Once a segment has failed, later ones are skipped.

    Args:
      site: the files of the run.
      kind: the kind of the marks of the pass.
      schema: has the size of every table, for the second pass.
      todo: the units of the pass.
      batches: batches of one column, the numbers.
    """
    workspace = site.enter()
    work = _pass(site, kind, schema)
    for batch in batches:
        for number in batch.column(0).to_pylist():
            unit = todo[number]
            failed = workspace.marked(FAILED)
            if not failed or unit.first_segment < failed[0]:
                site.check_visible(unit.file)
                _UnitRun(site, workspace, work, unit).run()
        yield pa.record_batch([batch.column(0)], ["id"])


def _pass(site: Site, kind: str, schema: Schema | None) -> Pass:
    """Returns the pass, which is kept for the next task of this process: vocabularies are slow to load."""
    key = site.run, kind
    if key not in _PASSES:
        from tfrs_dlrm.data.encoding.encoder import Encoder
        from tfrs_dlrm.data.preparing.passes import CountingPass, EncodingPass
        from tfrs_dlrm.data.preparing.profiling.row_sample import planned_share

        _PASSES.clear()
        if kind == COUNTED:
            _PASSES[key] = CountingPass(site.job)
        elif kind == ENCODED and schema is not None:
            share = planned_share(Workspace(site.output))
            _PASSES[key] = EncodingPass(site.job, Encoder(schema, site.output), share)
    return _PASSES[key]


class _UnitRun:
    """A pass over one unit."""

    def __init__(self, site: Site, workspace: Workspace, work: Pass, unit: WorkUnit):
        self._site, self._workspace, self._work, self._unit = site, workspace, work, unit
        self._path = site.paths[unit.file]
        self._name = unit.first_segment
        self._read = self._counted = 0

    def run(self) -> None:
        from tfrs_dlrm.data.raw.parsing import BadRowError

        try:
            for segment, group in itertools.groupby(self._blocks(), segment_of):
                self._name = segment_name(self._unit.file, segment)
                if not self._workspace.is_marked(self._work.kind, self._name):
                    self._segment(group)
                self._counted = self._read
        except BadRowError as e:
            self._fail({"bad": dataclasses.asdict(e.bad)})
        except ValueError as e:
            self._fail({"message": str(e).replace(self._path, self._given)})

    @property
    def _given(self) -> str:
        """The path as it was given to `prepare`, for messages and for the list of bad rows."""
        return str(self._site.job.files[self._unit.file])

    def _blocks(self) -> Iterator[RawBlock]:
        unit = self._unit
        job = self._site.job
        blocks = sources.blocks_of_many(self._path, job.log.schema, job.beside(unit.file), self._at, unit.start)
        if unit.start:
            blocks = itertools.islice(blocks, prepare_job.BLOCKS_PER_SEGMENT)
        return (dataclasses.replace(block, path=self._given) for block in blocks)

    def _at(self, position: int) -> None:
        self._read = position

    def _segment(self, group: Iterator[RawBlock]) -> None:
        blocks = self._work.kept(self._workspace, self._name) or group
        parts = (self._work.work(self._unit.file, block) for block in blocks)
        mark = self._work.finish(self._workspace, self._name, parts)
        size = self._unit.size if self._unit.start else self._read - self._counted
        self._workspace.mark(self._work.kind, self._name, {**mark, "bytes": size})

    def _fail(self, content: dict) -> None:
        self._workspace.mark(FAILED, self._name, content)


def read_counts(site: Site, tables: list[str], names: list[str], batches: Batches) -> Batches:
    """Reads the counts of segments by number in `names`; columns `table` (a number in `tables`), `value`, `n`."""
    from tfrs_dlrm.data.preparing.value_counts import counts_file

    workspace = site.enter()
    for batch in batches:
        for number, (i, table) in itertools.product(batch.column(0).to_pylist(), enumerate(tables)):
            with pq.ParquetFile(counts_file(workspace, table, names[number])) as file:
                for part in file.iter_batches():
                    of_table = pa.repeat(pa.scalar(i, pa.int32()), part.num_rows)
                    yield pa.record_batch([of_table, part.column(0), part.column(1)], ["table", "value", "n"])


def write_values(site: Site, batches: Batches) -> Batches:
    """Writes sorted columns `table`, `value` and `n` to one file per table; returns `part` and `table` of each."""
    from pyspark import TaskContext

    context = TaskContext.get()
    if context is None:
        raise RuntimeError("write_values runs in a task of Spark only")
    workspace, part = site.enter(), context.partitionId()
    rows = (row for batch in batches for row in _by_table(batch))
    for table, group in itertools.groupby(rows, key=lambda row: row[0]):
        path = values_file(workspace, part, table)
        temporary = workspace.temporary(path)
        columns = pa.schema([("value", pa.string()), ("count", pa.int64())])
        with pq.ParquetWriter(temporary, columns, compression="lz4") as writer:
            for _, values, counts in group:
                writer.write_table(pa.table([values.cast(pa.string()), counts], schema=columns))
        workspace.publish(temporary, path)
        yield pa.record_batch([pa.array([part], pa.int32()), pa.array([table], pa.int32())], ["part", "table"])


def values_file(workspace: Workspace, part: int, table: int) -> str:
    """The path of the sorted values of a table in one partition."""
    return os.path.join(workspace.work, f"sorted-{workspace.run}", f"{table:05d}-{part:05d}.parquet")


def _by_table(batch: pa.RecordBatch) -> Iterator[tuple[int, pa.Array, pa.Array]]:
    """Splits a batch that is sorted by table into tables, their values and the counts of these."""
    tables = batch.column(0).to_numpy()
    begin = 0
    while begin < len(tables):
        end = begin + int((tables[begin:] == tables[begin]).argmin() or len(tables) - begin)
        yield int(tables[begin]), *(batch.column(i).slice(begin, end - begin) for i in (1, 2))
        begin = end
