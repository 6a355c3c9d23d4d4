"""Sketches of the numbers of training rows, which give edges of buckets: exact for few distinct values, else close.

A sketch is rising float32 values and how many numbers each stands for. Up to `DISTINCT` different values in a segment
of the log are kept as they are. Of more, `DISTINCT` are kept that have equal numbers of rows between them, so that
their ranks are at most 1 / `DISTINCT` of the rows apart. The result depends on the segments only, which all
engines share.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tfrs_dlrm.data.preparing.workspace import COUNTED, Workspace

DISTINCT = 8192
_SCHEMA = pa.schema([("input", pa.string()), ("value", pa.float32()), ("count", pa.int64())])


class NumberSketch:
    """Rising values, float32 [K], and how many numbers each stands for, int64 [K]."""

    def __init__(self, values: np.ndarray, counts: np.ndarray):
        self.values, self.counts = values, counts

    @classmethod
    def of(cls, numbers: np.ndarray) -> NumberSketch:
        """Sketches numbers, float32 [N], exactly; what is not finite is skipped."""
        numbers = numbers[np.isfinite(numbers)] + np.float32(0)  # no -0.0
        return cls(*np.unique(numbers, return_counts=True))

    @classmethod
    def joined(cls, parts: Iterable[NumberSketch]) -> NumberSketch:
        """Joins sketches of parts; the order of the parts does not matter."""
        found = list(parts)
        if not found:
            return cls(np.zeros(0, np.float32), np.zeros(0, np.int64))
        values, where = np.unique(np.concatenate([s.values for s in found]), return_inverse=True)
        counts = np.zeros(len(values), np.int64)
        np.add.at(counts, where, np.concatenate([s.counts for s in found]))
        return cls(values, counts)

    def smaller(self, size: int) -> NumberSketch:
        """Keeps at most about `size` values, the first and the last among them."""
        if len(self.values) <= size:
            return self
        until = np.cumsum(self.counts)
        ranks = (np.arange(1, size + 1) * until[-1] + size - 1) // size
        kept = np.unique([0, *np.searchsorted(until, ranks), len(until) - 1])
        return NumberSketch(self.values[kept], np.diff(until[kept], prepend=0))

    def edges(self, parts: int) -> list[float]:
        """Returns the rising lower ends of at most `parts` intervals of equally many numbers, without the first.

        Each interval takes numbers until it has its share of those that are left. A number that has a whole share is
        alone in its interval, so that the zeros of a mostly empty column leave intervals to its other numbers.
        """
        until = np.cumsum(self.counts)
        found: list[float] = []
        done, total = 0, int(until[-1])
        for left in range(parts, 1, -1):
            # In Python's integers, which do not overflow.
            share = -(-(total - done) // left)
            last = int(np.searchsorted(until, done + share))
            if int(self.counts[last]) >= share and int(until[last] - self.counts[last]) > done:
                last -= 1
            if last + 1 >= len(until):
                break
            done = int(until[last])
            found.append(float(self.values[last + 1]))
        return found


def write_sketches(workspace: Workspace, name: str, sketches: Mapping[str, NumberSketch]) -> None:
    """Writes the sketches of a segment, by input."""
    tables = [
        pa.table([pa.repeat(key, len(s.values)), pa.array(s.values), pa.array(s.counts)], schema=_SCHEMA)
        for key, s in sorted(sketches.items())
    ]
    path = _file(workspace, name)
    temporary = workspace.temporary(path)
    pq.write_table(pa.concat_tables(tables), temporary, compression="lz4")
    workspace.publish(temporary, path)


def read_sketches(workspace: Workspace, inputs: Iterable[str]) -> dict[str, NumberSketch]:
    """Joins the sketches of all counted segments, by input; one input at a time is in memory."""
    files = [_file(workspace, name) for name in workspace.marked(COUNTED)]

    def of(key: str) -> NumberSketch:
        parts = (pq.read_table(file, filters=[("input", "=", key)]) for file in files)
        return NumberSketch.joined(NumberSketch(t["value"].to_numpy(), t["count"].to_numpy()) for t in parts)

    return {key: of(key) for key in inputs}


def _file(workspace: Workspace, name: str) -> str:
    return os.path.join(workspace.work, "numbers", f"{name}.parquet")
