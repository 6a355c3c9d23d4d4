"""Vocabularies and statistics of the training rows: counted block by block, joined by DuckDB, out of core."""

from __future__ import annotations

import collections
import glob
import os
from collections.abc import Iterable, Iterator, Sequence

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tfrs_dlrm.data.preparing.workspace import Workspace
from tfrs_dlrm.schema import Schema, Table

_SCHEMA = pa.schema([("value", pa.string()), ("count", pa.int64())])


class ValueCounts:
    """How often each value of each vocabulary occurs in some rows."""

    def __init__(self) -> None:
        self._parts: dict[str, list[pa.Table]] = collections.defaultdict(list)

    def add(self, table: str, values: np.ndarray, counts: np.ndarray) -> None:
        """Adds `counts`, int64 [N], of `values`, bytes [N] of UTF-8, to a table's vocabulary. Values may repeat."""
        value_array = pa.array(values, pa.binary()).cast(pa.string())
        self._parts[table].append(pa.table([value_array, pa.array(counts, pa.int64())], schema=_SCHEMA))

    def write(self, workspace: Workspace, name: str) -> None:
        """Writes the sums to the files `counts_file`, in order of value so that equal counts give equal bytes."""
        for table, parts in self._parts.items():
            sums = pa.concat_tables(parts).group_by("value").aggregate([("count", "sum")]).sort_by("value")
            path = counts_file(workspace, table, name)
            temporary = workspace.temporary(path)
            pq.write_table(sums.rename_columns(["value", "count"]), temporary, compression="lz4")
            workspace.publish(temporary, path)


def counts_file(workspace: Workspace, table: str, name: str) -> str:
    """The Parquet file with the values of a table in a segment, and how often each occurs."""
    return os.path.join(workspace.counts, table, f"{name}.parquet")


def write_vocabulary(values: Iterable[Sequence[str]], table: Table, min_count: int, path: str) -> int:
    """Writes a vocabulary file, one value a line, and returns the number of values.

    Args:
      values: in the order of their rows, many at a time.
      table: whose vocabulary it is.
      min_count: how often each occurs at least.
      path: of the file.

    Raises:
      ValueError: there are no values.
    """
    with open(path + ".tmp", "w", encoding="utf-8", newline="\n") as f:
        size = 0
        for values_of_batch in values:
            f.writelines(f"{v}\n" for v in values_of_batch)
            size += len(values_of_batch)
    if size == 0:
        os.remove(path + ".tmp")
        raise ValueError(
            f"table {table.name!r}: no value occurs min_count={min_count} times in the training rows; lower it"
        )
    os.replace(path + ".tmp", path)
    return size


def by_falling_count(counts_dir: str, table: str, min_count: int, max_size: int | None) -> Iterator[list[str]]:
    """The vocabulary of a table, many values at a time: by falling count, ties in the order of their UTF-8 bytes.

    DuckDB counts and sorts, and spills to `counts_dir` what does not fit into its memory. A value with a line break in
    it cannot stand in a vocabulary file, so it gets no row of its own.
    """
    files = os.path.join(glob.escape(os.path.join(counts_dir, table)), "*.parquet")
    with duckdb.connect(":memory:", config={"memory_limit": "800MB", "temp_directory": counts_dir}) as connection:
        query = (
            "SELECT value FROM (SELECT value, sum(count) AS n FROM read_parquet(?) GROUP BY value)"
            " WHERE n >= ? AND NOT regexp_matches(value, '[\\r\\n]') ORDER BY n DESC, value LIMIT ?"
        )
        result = connection.execute(query, [files, min_count, max_size if max_size is not None else 2**31])
        while rows := result.fetchmany(100_000):
            yield [value for (value,) in rows]


class Moments:
    """Count, mean and standard deviation of columns of numbers, joined from parts (Chan et al. 1979).

    The result does not depend on how the parts came about, only on their order.
    """

    def __init__(self, count: Iterable[float], mean: Iterable[float], m2: Iterable[float]):
        self.count, self.mean, self.m2 = (np.array(list(x), np.float64) for x in (count, mean, m2))

    @classmethod
    def of(cls, values: np.ndarray) -> Moments:
        """Of float [N, K], NaN left out."""
        values = values.astype(np.float64)
        present = np.isfinite(values)
        count = present.sum(0)
        mean = np.where(present, values, 0).sum(0) / np.maximum(count, 1)
        m2 = np.where(present, (values - mean) ** 2, 0).sum(0)
        return cls(count, mean, m2)

    def __add__(self, other: Moments) -> Moments:
        count = self.count + other.count
        delta = other.mean - self.mean
        share = other.count / np.maximum(count, 1)
        return Moments(count, self.mean + delta * share, self.m2 + other.m2 + delta**2 * self.count * share)

    @property
    def std(self) -> np.ndarray:
        """The standard deviation of the population, float64 [K]."""
        return np.sqrt(self.m2 / np.maximum(self.count, 1))


def vocabulary_settings(schema: Schema, table: Table) -> tuple[int, int | None] | None:
    """The `min_count` and `max_size` of a table's vocabulary, or None where it has none."""
    feature = next(f for f in schema.categorical if f.table == table.name)
    return (feature.min_count, feature.max_size) if feature.encoding == "vocabulary" else None
