"""Vocabularies and statistics of the training rows: counted block by block, joined by DuckDB, out of core."""

from __future__ import annotations

import collections
import glob
import os
from collections.abc import Iterable, Iterator

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

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

    def write(self, directory: str, name: str) -> None:
        """Writes the sums to DIRECTORY/TABLE/NAME.parquet, in order of value so that equal counts give equal bytes."""
        for table, parts in self._parts.items():
            sums = pa.concat_tables(parts).group_by("value").aggregate([("count", "sum")]).sort_by("value")
            os.makedirs(os.path.join(directory, table), exist_ok=True)
            path = os.path.join(directory, table, f"{name}.parquet")
            pq.write_table(sums.rename_columns(["value", "count"]), path + ".tmp", compression="lz4")
            os.replace(path + ".tmp", path)


def write_vocabulary(counts_dir: str, table: Table, min_count: int, max_size: int | None, path: str) -> int:
    """Joins the counts of one table into a vocabulary file, one value a line, and returns the number of values.

    By falling count, ties by value (in the order of their UTF-8 bytes). DuckDB counts and sorts, and spills to
    `counts_dir` what does not fit into its memory. A value with a line break in it cannot stand in the file, so it
    gets no row of its own.

    Raises:
      ValueError: no value occurs `min_count` times.
    """
    with open(path + ".tmp", "w", encoding="utf-8", newline="\n") as f:
        size = 0
        for values in _by_falling_count(counts_dir, table.name, min_count, max_size):
            f.writelines(f"{v}\n" for v in values)
            size += len(values)
    if size == 0:
        os.remove(path + ".tmp")
        raise ValueError(
            f"table {table.name!r}: no value occurs min_count={min_count} times in the training rows; lower it"
        )
    os.replace(path + ".tmp", path)
    return size


def _by_falling_count(counts_dir: str, table: str, min_count: int, max_size: int | None) -> Iterator[list[str]]:
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
