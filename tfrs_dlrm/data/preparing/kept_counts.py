"""What a preparation keeps for the next one: how often each value occurred, and since when it has its row."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tfrs_dlrm.data.encoding.checksums import check_file, files_in
from tfrs_dlrm.data.encoding.vocabulary import vocabulary_file, write_vocabulary
from tfrs_dlrm.schema import Table
from tfrs_dlrm.stores.files import crc32c, whole_file

COUNTS_DIR, LINEAGE_DIR = "counts", "lineage"
NO_ROW = -1
COUNTED_VALUES = pa.schema([("value", pa.string()), ("count", pa.float64()), ("since", pa.int32())])
_ROWS_PER_GROUP = 1 << 17


def counts_path(directory: str, table: str) -> str:
    """The path of the counts of a table's values, those with a row first, in the order of their rows."""
    return os.path.join(directory, COUNTS_DIR, f"{table}.parquet")


def lineage_path(directory: str, table: str) -> str:
    """The path of `since`, int32, of rows 1, 2, ...: the link of the chain, from 0, that gave the row to its value."""
    return os.path.join(directory, LINEAGE_DIR, f"{table}.parquet")


def write_counted(
    batches: Iterable[pa.RecordBatch], table: Table, min_count: int, directory: str, lineage: bool
) -> int:
    """Writes the vocabulary of a table, the counts of all its values, and the lineage; returns the rows of the table.

    Args:
      batches: of `COUNTED_VALUES`, each value once. Values with a row come first, in the order of their rows; those
        without have `NO_ROW` as `since`.
      table: the table.
      min_count: how often each value of the vocabulary occurs at least, for an error.
      directory: the prepared directory.
      lineage: whether to write `since`.

    Raises:
      ValueError: no value has a row.
    """
    paths = [counts_path(directory, table.name), *([lineage_path(directory, table.name)] if lineage else [])]
    for path in paths:
        os.makedirs(os.path.dirname(path), exist_ok=True)
    since: list[pa.Array] = []
    with whole_file(paths[0], "wb") as f, _Rows(f, ["value", "count"]) as counts:
        size = write_vocabulary(
            _with_row(batches, counts, since), table, min_count, vocabulary_file(directory, table.name)
        )
    if lineage:
        with whole_file(paths[1], "wb") as f:
            pq.write_table(pa.table([pa.chunked_array(since, pa.int32())], ["since"]), f, compression="zstd")
    return 1 + size


def _with_row(batches: Iterable[pa.RecordBatch], counts: _Rows, since: list[pa.Array]) -> Iterator[list[str]]:
    """Keeps the counts of all values, and yields those with a row."""
    for batch in batches:
        counts.add(pa.Table.from_batches([batch]))
        found = int(pc.sum(pc.greater_equal(batch["since"], 0)).as_py() or 0)
        if found:
            since.append(batch["since"].slice(0, found))
            yield batch["value"].slice(0, found).to_pylist()


class _Rows:
    """Writes columns of tables to one Parquet file, in row groups of one size however large the tables are."""

    def __init__(self, file: object, columns: list[str]):
        schema = pa.schema([COUNTED_VALUES.field(name) for name in columns])
        # A dictionary of values that are all different takes time and space.
        self._writer = pq.ParquetWriter(file, schema, compression="zstd", use_dictionary=["count"])
        self._columns, self._kept, self._rows = columns, [schema.empty_table()], 0

    def add(self, table: pa.Table) -> None:
        self._kept.append(table.select(self._columns))
        self._rows += table.num_rows
        while self._rows >= _ROWS_PER_GROUP:
            self._write(_ROWS_PER_GROUP)

    def __enter__(self) -> _Rows:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._rows and kind is None:
            self._write(self._rows)
        self._writer.close()

    def _write(self, rows: int) -> None:
        joined = pa.concat_tables(self._kept)
        self._writer.write_table(joined.slice(0, rows).combine_chunks(), row_group_size=rows)
        self._kept, self._rows = [joined.slice(rows)], self._rows - rows


def kept_checksums(directory: str) -> dict[str, str]:
    """Computes the CRC32C of each file with counts or lineage, by its path below a prepared directory."""
    names = [name for part in (COUNTS_DIR, LINEAGE_DIR) for name in files_in(directory, part, ".parquet")]
    return {name: crc32c(os.path.join(directory, name)) for name in names}


def check_kept(path: str, expected: str) -> None:
    """Makes sure that a file with counts or lineage is as it was written; raises as `check_file`."""
    check_file(path, expected, "restore it, or prepare the data again")


def read_since(directory: str, table: str, rows: int) -> np.ndarray:
    """Reads since when each row of a table has its value, int32 [rows]; row 0 and a chain's first link have 0."""
    path = lineage_path(directory, table)
    since = pq.read_table(path).column("since").to_numpy() if os.path.isfile(path) else np.zeros(rows - 1, np.int32)
    return np.concatenate([np.zeros(1, np.int32), since]).astype(np.int32)
