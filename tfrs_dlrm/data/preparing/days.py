"""Cuts a log into a file for each day, by a column of times."""

from __future__ import annotations

import contextlib
import datetime
import os
import shutil
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tfrs_dlrm.data.encoding.time_parts import read_micros
from tfrs_dlrm.data.preparing.block_values import distinct
from tfrs_dlrm.data.preparing.job import file_stamp
from tfrs_dlrm.data.preparing.split_arguments import split_rule
from tfrs_dlrm.data.raw import sources
from tfrs_dlrm.data.raw.frames import Frame, expand_inputs
from tfrs_dlrm.data.raw.parsing import BadRow, BadRowError, ColumnParser
from tfrs_dlrm.data.raw.sources import RawBlock
from tfrs_dlrm.schema import Schema, Time
from tfrs_dlrm.stores.files import put, read_json, unfinished, write_json

_SOURCE_FILE = "source.json"
_MICROS_PER_DAY = 86_400 * 10**6


def split_into_days(
    schema: Schema, inputs: Sequence[str], time: str, directory: str, time_format: str | None = None
) -> list[str]:
    """Writes a Parquet file for each day of a log, with the columns that the schema reads and the times.

    The same call again returns the files that it finds.

    Args:
      schema: of the log.
      inputs: the log: paths, directories and glob patterns.
      time: the column of the times.
      directory: where the files go; it must not hold others.
      time_format: see `Time.format`; by default it is found in the first rows. Days are those of UTC.

    Returns:
      The paths DIRECTORY/YYYY-MM-DD.parquet, in the order of the days. Rows of a day are in the order of the log.

    Raises:
      BadRowError: a row is malformed, or has no time. Nothing is written then.
      FileNotFoundError, ValueError: there is no such file or column, the times are in no known format, files have
        other types, or the directory holds the days of another log.
    """
    files = [file for file in expand_inputs(list(inputs), "inputs") if not isinstance(file, Frame)]
    stamps = [file_stamp(file) for file in files]
    source = {"files": stamps, "time": time, "time_format": time_format, "columns": list(schema.columns)}
    if os.path.isdir(directory):
        _check_same(directory, source)
        return _days_in(directory)
    rule = split_rule(
        schema, files, time=time, time_format=time_format, eval_after=None, keep_order=True, split_by=None,
        eval_fraction=0.0, with_eval=False,
    )  # fmt: skip
    reads = sources.reading(tuple(dict.fromkeys([*schema.columns, time])), schema.text)
    written = unfinished(directory)
    os.makedirs(written)
    try:
        with contextlib.ExitStack() as stack:
            days = _DayFiles(written, stack)
            for file in files:
                for block in sources.blocks_of_many(file, reads, len(files)):
                    table, micros = _rows_of(block, reads, time, rule.times)
                    days.write(table, micros // _MICROS_PER_DAY, block.path)
        write_json(os.path.join(written, _SOURCE_FILE), source)
        put(written, directory)
    finally:
        shutil.rmtree(written, ignore_errors=True)
    return _days_in(directory)


def _check_same(directory: str, source: Mapping[str, object]) -> None:
    path = os.path.join(directory, _SOURCE_FILE)
    if not os.path.isfile(path) or read_json(path) != source:
        raise ValueError(
            f"{directory}: holds something else than the days of this log; choose another place, or remove it"
        )


def _days_in(directory: str) -> list[str]:
    return [os.path.join(directory, name) for name in sorted(os.listdir(directory)) if name.endswith(".parquet")]


def _rows_of(block: RawBlock, reads: Schema, column: str, time: Time) -> tuple[pa.Table, np.ndarray]:
    """Returns the rows of a block as they are in the log, and their times in microseconds since 1970."""
    parser = ColumnParser(block, reads)
    values, indices = distinct(parser.times(column, time))
    micros, known = (x.numpy()[indices] for x in read_micros(values, time))
    bad = parser.bad_rows()
    if not bad and not known.all():
        number = int(parser.lines[np.flatnonzero(~known)[0]])
        bad = [BadRow(block.path, number, column, "the time is missing", block.texts([number])[0], block.unit)]
    if bad:
        raise BadRowError(bad[0], "leave it out of the log")
    return pa.table({name: _readable(parser.arrays[name]) for name in reads.columns}), micros


def _readable(array: pa.Array) -> pa.Array:
    """Returns texts as strings if they are UTF-8; other bytes stay as they are."""
    with contextlib.suppress(pa.ArrowInvalid):
        return array.cast(pa.string()) if pa.types.is_binary(array.type) else array
    return array


class _DayFiles:
    """The files of the days, open until all rows are written."""

    def __init__(self, directory: str, stack: contextlib.ExitStack) -> None:
        self._directory, self._stack = directory, stack
        self._writers: dict[int, pq.ParquetWriter] = {}

    def write(self, table: pa.Table, days: np.ndarray, source: str) -> None:
        """Writes each row to the file of its day, a number since 1970."""
        for day in np.unique(days).tolist():
            part = table.filter(pa.array(days == day))
            if day not in self._writers:
                name = (datetime.date(1970, 1, 1) + datetime.timedelta(day)).isoformat()
                path = os.path.join(self._directory, f"{name}.parquet")
                self._writers[day] = self._stack.enter_context(pq.ParquetWriter(path, part.schema))
            writer = self._writers[day]
            if part.schema != writer.schema:
                raise ValueError(f"{source}: its columns have other types than those of earlier files: {part.schema}")
            writer.write_table(part)
