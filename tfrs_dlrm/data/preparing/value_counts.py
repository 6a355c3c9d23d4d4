"""Counts how often values occur, segment by segment; DuckDB sums and sorts the counts out of core."""

from __future__ import annotations

import collections
import glob
import os
from collections.abc import Iterator

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tfrs_dlrm.data.preparing.duckdb_rows import read_query
from tfrs_dlrm.data.preparing.workspace import Workspace

_SCHEMA = pa.schema([("value", pa.string()), ("count", pa.int64())])


class ValueCounts:
    """The number of occurrences of each value of each vocabulary."""

    def __init__(self) -> None:
        self._parts: dict[str, list[pa.Table]] = collections.defaultdict(list)

    def add(self, table: str, values: pa.Array, counts: np.ndarray) -> None:
        """Adds `counts`, int64 [N], of `values`, strings [N], to a table's vocabulary. Values may repeat."""
        self._parts[table].append(pa.table([values, pa.array(counts, pa.int64())], schema=_SCHEMA))

    def write(self, workspace: Workspace, name: str) -> None:
        """Writes the sums to `counts_file`, sorted by value, so that equal counts give equal bytes."""
        for table, parts in self._parts.items():
            sums = pa.concat_tables(parts).group_by("value").aggregate([("count", "sum")]).sort_by("value")
            path = counts_file(workspace, table, name)
            temporary = workspace.temporary(path)
            pq.write_table(sums.rename_columns(["value", "count"]), temporary, compression="lz4")
            workspace.publish(temporary, path)


def counts_file(workspace: Workspace, table: str, name: str) -> str:
    """The path of the Parquet file with the values of a table in a segment, and their counts."""
    return os.path.join(workspace.counts, table, f"{name}.parquet")


def summed(
    connection: duckdb.DuckDBPyConnection, counts_dir: str, table: str, ranked: bool
) -> Iterator[pa.RecordBatch]:
    """Sums the counts of all segments: yields the values of a table, `value` and `count`, in batches.

    DuckDB does it out of core. A value with a line break is left out, since a vocabulary file holds one value per line.

    Args:
      connection: of `connect`; it does nothing else until the iterator is used up or dropped.
      counts_dir: `Workspace.counts`.
      table: the name of the table.
      ranked: whether to sort them by falling count, ties by their UTF-8 bytes; otherwise they are in any order.
    """
    files = os.path.join(glob.escape(os.path.join(counts_dir, table)), "*.parquet")
    query = (
        "SELECT value, CAST(sum(count) AS BIGINT) AS n FROM read_parquet(?)"
        " WHERE NOT contains(value, chr(10)) AND NOT contains(value, chr(13)) GROUP BY value"
    )
    yield from read_query(connection, query + (" ORDER BY n DESC, value" if ranked else ""), files)
