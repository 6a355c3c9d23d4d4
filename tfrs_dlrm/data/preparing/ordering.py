"""Puts the training rows of a prepared directory in the order of their times.

The second pass keeps the rows of each segment, sorted by time. When all segments are there, their times tell the place
of each row in the whole set, and each shard takes its rows out of the segments. Of rows with equal times, the earlier
in the log comes first.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import os
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tfrs_dlrm.data.preparing import job as prepare_job
from tfrs_dlrm.data.preparing.manifest import PreparedShard
from tfrs_dlrm.data.preparing.workspace import ENCODED, ORDERED, Workspace
from tfrs_dlrm.data.raw import sources
from tfrs_dlrm.stores import Progress

ROWS_PER_GROUP = 65_536
_TIME = "/time"  # the name of no other column
_WORKERS = 4  # each holds two copies of the rows of a shard


def shard_writer(path: str, schema: pa.Schema) -> pq.ParquetWriter:
    """Opens the writer of a shard."""
    # Without checksums, most flipped bits in a page go unnoticed: the ids stay valid.
    return pq.ParquetWriter(path, schema, compression="zstd", write_page_checksum=True)


class TimedRows:
    """The training rows of one segment, collected part by part."""

    def __init__(self, schema: pa.Schema):
        self._schema = schema.append(pa.field(_TIME, pa.int64()))
        self._parts: list[pa.Table] = []

    def add(self, table: pa.Table, times: np.ndarray) -> int:
        """Adds encoded rows and their times, int64 [N], and returns N."""
        self._parts.append(table.append_column(self._schema.field(_TIME), pa.array(times)))
        return len(times)

    def write(self, path: str) -> None:
        """Writes the rows, sorted by time."""
        table = pa.concat_tables([self._schema.empty_table(), *self._parts])
        order = np.argsort(table[_TIME].to_numpy(), kind="stable")
        batch = table.take(pa.array(order)).combine_chunks().to_batches()
        with pa.OSFile(path, "wb") as file, pa.ipc.new_file(file, self._schema) as writer:
            for part in batch:
                writer.write_batch(part)


@dataclasses.dataclass(frozen=True)
class _Order:
    """The order of all training rows.

    Attributes:
      names: the segments.
      begins: int64 [segments + 1], how many rows are in earlier segments.
      rows: int64 [N], the rows in order, numbered through all segments.
    """

    names: Sequence[str]
    begins: np.ndarray
    rows: np.ndarray

    @classmethod
    def of(cls, workspace: Workspace) -> _Order:
        names = workspace.marked(ENCODED)
        begins = np.cumsum([0, *(mark["rows"]["train"] for mark in workspace.marks(ENCODED))])
        times = np.empty(begins[-1], np.int64)
        for name, begin, end in zip(names, begins[:-1], begins[1:], strict=True):
            times[begin:end] = _rows(workspace, name)[_TIME].to_numpy()
        return cls(names, begins, np.argsort(times, kind="stable"))


def order_rows(workspace: Workspace, progress: Progress) -> None:
    """Writes the training shards of all segments in the order of time; skips those that are finished.

    Takes up to 20 bytes of memory per row: the times, their order, and half as much as one of them to sort.
    """
    order, size = _Order.of(workspace), sources.BLOCK_ROWS * prepare_job.BLOCKS_PER_SEGMENT
    total = len(order.rows)
    progress(ORDERED, 0, total, 0)
    names = [prepare_job.segment_name(0, k) for k in range(-(-total // size))]

    def write(k: int) -> int:
        rows = order.rows[k * size : (k + 1) * size]
        if not workspace.is_marked(ORDERED, names[k]):
            _write_shard(workspace, workspace.shard("train", names[k]), order, rows)
            workspace.mark(ORDERED, names[k], {"rows": len(rows)})
        return len(rows)

    done = 0
    with concurrent.futures.ThreadPoolExecutor(min(_WORKERS, os.cpu_count() or 1)) as pool:
        for written in pool.map(write, range(len(names))):
            done += written
            progress(ORDERED, done, total, done)


def ordered_shards(workspace: Workspace) -> tuple[PreparedShard, ...]:
    """Returns the shards that `order_rows` wrote."""
    marks = zip(workspace.marked(ORDERED), workspace.marks(ORDERED), strict=True)
    return tuple(PreparedShard(f"train/{name}.parquet", mark["rows"]) for name, mark in marks)


def _write_shard(workspace: Workspace, path: str, order: _Order, rows: np.ndarray) -> None:
    by_place = np.sort(rows)
    cuts = np.searchsorted(by_place, order.begins)
    parts = []
    for segment in np.flatnonzero(np.diff(cuts)).tolist():
        taken = by_place[cuts[segment] : cuts[segment + 1]] - order.begins[segment]
        # The rows of a segment are sorted, so those of a shard are neighbours. A slice would keep the file open.
        parts.append(_rows(workspace, order.names[segment]).take(pa.array(taken)).drop_columns([_TIME]))
    table = pa.concat_tables(parts).take(pa.array(np.searchsorted(by_place, rows)))
    temporary = workspace.temporary(path)
    with shard_writer(temporary, table.schema) as writer:
        writer.write_table(table, row_group_size=ROWS_PER_GROUP)
    workspace.publish(temporary, path)


def _rows(workspace: Workspace, name: str) -> pa.Table:
    return pa.ipc.open_file(pa.memory_map(workspace.timed(name))).read_all()
