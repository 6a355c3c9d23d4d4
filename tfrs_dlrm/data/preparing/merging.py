"""The vocabulary of a day on that of the days before: DuckDB joins the counts, out of core.

Both engines sum the counts of the day; everything after that is here, so that they give the same bytes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tfrs_dlrm.data.encoding.vocabulary_merge import assign_rows
from tfrs_dlrm.data.preparing.base import PreparedBase
from tfrs_dlrm.data.preparing.duckdb_rows import connect, read_query
from tfrs_dlrm.data.preparing.kept_counts import COUNTED_VALUES, NO_ROW

# A value without a row that occurred once and then in no log for six half-lives is forgotten.
FORGOTTEN_BELOW = 2.0**-6
# `new` is a value that gets a row, `lost` the row of a value that gives it up.
_RESULT = """
SELECT value, count, CASE WHEN now IS NULL THEN $1 WHEN row IS NULL THEN $2 ELSE since END AS since FROM (
  SELECT m.value, m.count, m.row, coalesce(l.since, 0) AS since,
    coalesce(new.row, CASE WHEN lost.row IS NULL THEN m.row END) AS now
  FROM merged m
    LEFT JOIN taken new ON m.row IS NULL AND m.value = new.value
    LEFT JOIN taken lost ON m.row = lost.row
    LEFT JOIN lineage l ON m.row = l.row
)
WHERE now IS NOT NULL OR count >= $3
ORDER BY now NULLS LAST, count DESC, value
"""


def ranked(batches: Iterable[pa.RecordBatch], min_count: int, max_size: int | None) -> Iterator[pa.RecordBatch]:
    """Gives rows to the values of a first vocabulary: to the most frequent ones that occur `min_count` times.

    Args:
      batches: `value` and `count`, by falling count.
      min_count: how often a value must occur.
      max_size: how many values may have a row; None is any number.

    Yields:
      The same, as `COUNTED_VALUES`.
    """
    room = 2**31 if max_size is None else max_size
    for batch in batches:
        counts = batch.column(1).cast(pa.float64())
        above = int((counts.to_numpy() >= min_count).sum())
        found = min(above, room)
        room -= found
        since = pa.array(np.where(np.arange(batch.num_rows) < found, 0, NO_ROW), pa.int32())
        yield pa.record_batch([batch.column(0), counts, since], schema=COUNTED_VALUES)


def merged(
    base: PreparedBase,
    table: str,
    batches: Iterable[pa.RecordBatch],
    min_count: int,
    max_size: int | None,
    work: str,
) -> Iterator[pa.RecordBatch]:
    """Merges the values of a day into the vocabulary of the base; see `assign_rows` for the rule.

    The count of a value is its count in the base, decayed, plus its occurrences in the log. Values without a row get
    one if their count is at least `min_count`: first the most frequent, ties by their UTF-8 bytes.

    Args:
      base: has the counts and the vocabulary.
      table: the name of the table.
      batches: `value` and `count` of the log.
      min_count: how often a value must occur.
      max_size: how many values may have a row; None is any number.
      work: a directory for temporary files.

    Yields:
      Batches of `COUNTED_VALUES`: the values with a row in the order of the rows, then the others by falling count.
    """
    day = os.path.join(work, "day", f"{table}.parquet")
    os.makedirs(os.path.dirname(day), exist_ok=True)
    _write_day(batches, day)
    with connect(work) as connection:
        _join(connection, base, table, day)
        counts = read_query(connection, "SELECT count FROM merged WHERE row IS NOT NULL ORDER BY row").read_all()
        candidates = read_query(
            connection,
            "SELECT value, count FROM merged WHERE row IS NULL AND count >= ? ORDER BY count DESC, value LIMIT ?",
            min_count,
            2**31 if max_size is None else max_size,
        ).read_all()
        rows = assign_rows(counts["count"].to_numpy(), candidates["count"].to_numpy(), max_size)
        values = candidates.select(["value"]).slice(0, len(rows))
        connection.register("taken", values.append_column("row", pa.array(rows, pa.int64())))
        for batch in read_query(connection, _RESULT, NO_ROW, base.links, FORGOTTEN_BELOW):
            columns = [batch.column(i).cast(field.type) for i, field in enumerate(COUNTED_VALUES)]
            yield pa.record_batch(columns, schema=COUNTED_VALUES)
    os.remove(day)


def _write_day(batches: Iterable[pa.RecordBatch], path: str) -> None:
    schema = pa.schema([("value", pa.string()), ("count", pa.float64())])
    with pq.ParquetWriter(path, schema, compression="lz4") as writer:
        for batch in batches:
            columns = [batch.column(0).cast(pa.string()), batch.column(1).cast(pa.float64())]
            writer.write_table(pa.table(columns, schema=schema))


def _join(connection: duckdb.DuckDBPyConnection, base: PreparedBase, table: str, day: str) -> None:
    """Makes the tables `merged`, with all values, their counts and the rows of the known ones, and `lineage`."""
    counts, lineage = base.counts_file(table), base.lineage_file(table)
    since = "SELECT since, file_row_number + 1 AS row FROM read_parquet(?, file_row_number = true)"
    none = "SELECT CAST(0 AS INTEGER) AS since, CAST(0 AS BIGINT) AS row WHERE false"
    connection.execute(f"CREATE TABLE lineage AS {since if lineage else none}", [lineage] if lineage else [])
    connection.execute(
        "CREATE TABLE merged AS SELECT coalesce(b.value, d.value) AS value,"
        " CASE WHEN b.file_row_number < ? THEN b.file_row_number + 1 END AS row,"
        " coalesce(b.count, 0) * CAST(? AS DOUBLE) + coalesce(d.count, 0) AS count"
        " FROM read_parquet(?, file_row_number = true) b FULL OUTER JOIN read_parquet(?) d ON b.value = d.value",
        [base.value_count(table), base.factor, counts, day],
    )
