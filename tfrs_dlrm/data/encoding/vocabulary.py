"""Vocabulary files: the values of a table, one a line, in the order of their rows."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

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


def same_values(data_dir: str, encoder_dir: str) -> dict[str, np.ndarray]:
    """Returns, by table with a vocabulary, which rows of data have the same value elsewhere, bool [rows]; row 0 has.

    Args:
      data_dir: the directory with the vocabularies of the data.
      encoder_dir: another directory with vocabularies of these tables.
    """
    found = {}
    for name in sorted(os.listdir(os.path.join(data_dir, VOCABULARY_DIR))):
        table = name.removesuffix(".txt")
        of_data, others = read_vocabulary(data_dir, table), read_vocabulary(encoder_dir, table)
        found[table] = np.array([True, *(value == next(others, None) for value in of_data)])
    return found
