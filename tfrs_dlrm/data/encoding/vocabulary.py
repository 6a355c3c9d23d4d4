"""Vocabulary files: the values of a table, one a line, in the order of their rows."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfrs_dlrm.schema import Schema, Table
from tfrs_dlrm.stores.files import whole_file

VOCABULARY_DIR = "vocabulary"


def vocabulary_file(directory: str, table: str) -> str:
    """The path of the values of a table, one per line: line k (from 0) is row k + 1."""
    return os.path.join(directory, VOCABULARY_DIR, f"{table}.txt")


def vocabulary_settings(schema: Schema, table: Table) -> tuple[int, int | None] | None:
    """Returns `min_count` and `max_size` of a table's vocabulary; None if it has no vocabulary."""
    feature = next(f for f in schema.categorical if f.table == table.name)
    return (feature.min_count, feature.max_size) if feature.encoding == "vocabulary" else None


def write_vocabulary(values: Iterable[Sequence[str]], table: Table, min_count: int, path: str) -> int:
    """Writes a vocabulary file, one value per line, and returns the number of values.

    Args:
      values: batches of values, in the order of their rows.
      table: the table of the vocabulary.
      min_count: how often each value occurs at least.
      path: the path of the file.

    Raises:
      ValueError: no values are given.
    """
    with whole_file(path) as f:
        size = 0
        for values_of_batch in values:
            f.writelines(f"{v}\n" for v in values_of_batch)
            size += len(values_of_batch)
        if size == 0:
            raise ValueError(
                f"table {table.name!r}: no value occurs min_count={min_count} times in the training rows; lower it"
            )
    return size


def read_vocabulary(directory: str, table: str) -> Iterator[str]:
    """Yields the values of a table in the order of their rows, from row 1 on."""
    with open(vocabulary_file(directory, table), encoding="utf-8", newline="\n") as f:
        for line in f:
            yield line.removesuffix("\n")


def rows_by_value(table: str, directory: str, other: str) -> np.ndarray:
    """Returns, for each row of a table in one directory, the row of the same value in another one.

    Args:
      table: its name.
      directory: has a vocabulary of it.
      other: has another one.

    Returns:
      int32 [values + 1], -1 for a value that the other vocabulary does not have. Row 0 is row 0.
    """
    of_values = pc.index_in(_values(directory, table), value_set=_values(other, table))
    rows = pc.fill_null(of_values, -2).to_numpy(zero_copy_only=False) + 1
    return np.concatenate([[0], rows]).astype(np.int32)


def all_rows_by_value(directory: str, other: str) -> dict[str, np.ndarray]:
    """Returns `rows_by_value` of each table with a vocabulary, 0 for a value that the other one does not have."""
    names = sorted(os.listdir(os.path.join(directory, VOCABULARY_DIR)))
    tables = [name.removesuffix(".txt") for name in names]
    return {table: np.maximum(rows_by_value(table, directory, other), 0) for table in tables}


def _values(directory: str, table: str) -> pa.Array:
    with open(vocabulary_file(directory, table), "rb") as f:
        return pa.array(f.read().split(b"\n")[:-1], pa.binary())
