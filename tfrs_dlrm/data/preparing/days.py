"""Cuts a log into a directory for each day, by a column of times."""

from __future__ import annotations

import collections
import contextlib
import datetime
import glob
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
from tfrs_dlrm.data.raw.text import is_utf8
from tfrs_dlrm.schema import Schema, Time
from tfrs_dlrm.stores.files import put, read_json, unfinished, write_json
from tfrs_dlrm.stores.lock import directory_lock

_SOURCE_FILE = "source.json"
_MOST_OPEN = 100
_MICROS_PER_DAY = 86_400 * 10**6


def split_into_days(
    schema: Schema, inputs: Sequence[str], time: str, directory: str, time_format: str | None = None
) -> list[str]:
    """Writes the rows of each day of a log as Parquet, with the columns that the schema reads and the times.

    The same call again returns what it finds, and removes what a killed one left.

    Args:
      schema: of the log.
      inputs: the log: paths, directories and glob patterns.
      time: the column of the times.
      directory: where the days go; it must not hold anything else.
      time_format: see `Time.format`; by default it is found in the first rows. Days are those of UTC.

    Returns:
      The directories DIRECTORY/YYYY-MM-DD, in the order of the days. The files of each, by their names, have the rows
      of the day in the order of the log.

    Raises:
      BadRowError: a row is malformed, has no time, or a text that is no UTF-8. Nothing is written then.
      FileNotFoundError, ValueError: there is no such file or column, the times are in no known format, the directory
        holds the days of another log, or another process writes it.
    """
    files = [file for file in expand_inputs(list(inputs), "inputs") if not isinstance(file, Frame)]
    stamps = [file_stamp(file) for file in files]
    columns = list(schema.columns)
    source = {"layout": 2, "files": stamps, "time": time, "time_format": time_format, "columns": columns}
    with directory_lock(os.path.dirname(os.path.abspath(directory)), "cuts a log into days in it") as lock:
        lock.acquire()
        for left in glob.glob(f"{glob.escape(directory)}.*.tmp"):
            shutil.rmtree(left, ignore_errors=True)
        if os.path.isdir(directory):
            _check_same(directory, source)
        else:
            _write(schema, files, time, time_format, directory, source)
    return sorted(entry.path for entry in os.scandir(directory) if entry.is_dir())


def _write(
    schema: Schema,
    files: Sequence[str],
    time: str,
    time_format: str | None,
    directory: str,
    source: Mapping[str, object],
) -> None:
    rule = split_rule(
        schema, files, time=time, time_format=time_format, eval_after=None, keep_order=True, split_by=None,
        eval_fraction=0.0, with_eval=False,
    )  # fmt: skip
    reads = sources.reading(tuple(dict.fromkeys([*schema.columns, time])), schema.text)
    written = unfinished(directory)
    os.makedirs(written)
    try:
        with contextlib.closing(_DayFiles(written)) as days:
            for file in files:
                for block in sources.blocks_of_many(file, reads, len(files)):
                    table, micros = _rows_of(block, reads, time, rule.times)
                    days.write(table, micros // _MICROS_PER_DAY)
        write_json(os.path.join(written, _SOURCE_FILE), source)
        put(written, directory)
    finally:
        shutil.rmtree(written, ignore_errors=True)


def _check_same(directory: str, source: Mapping[str, object]) -> None:
    path = os.path.join(directory, _SOURCE_FILE)
    if not os.path.isfile(path) or read_json(path) != source:
        raise ValueError(
            f"{directory}: holds something else than the days of this log; choose another place, or remove it"
        )


def _rows_of(block: RawBlock, reads: Schema, column: str, time: Time) -> tuple[pa.Table, np.ndarray]:
    """Returns the rows of a block as they are in the log, and their times in microseconds since 1970."""
    parser = ColumnParser(block, reads)
    values, indices = distinct(parser.times(column, time))
    micros, known = (x.numpy()[indices] for x in read_micros(values, time))
    table = pa.table({name: _readable(parser, name) for name in reads.columns})
    bad = parser.bad_rows()
    if not bad and not known.all():
        number = int(parser.lines[np.flatnonzero(~known)[0]])
        bad = [BadRow(block.path, number, column, "the time is missing", block.texts([number])[0], block.unit)]
    if bad:
        raise BadRowError(bad[0], "leave it out of the log")
    return table, micros


def _readable(parser: ColumnParser, column: str) -> pa.Array:
    """Returns texts as strings; rows with other bytes are refused, as `prepare` would."""
    array = parser.arrays[column]
    if not pa.types.is_binary(array.type):
        return array
    try:
        return array.cast(pa.string())
    except pa.ArrowInvalid:
        values = array.to_pylist()
        wrong = np.array([value is not None and not is_utf8(value) for value in values])
        parser.refuse(wrong, column, lambda i: f"invalid UTF-8: {values[i][:40]!r}")
        return array


class _DayFiles:
    """The files of the days, of which the last used ones are open: a process may open about a thousand.

    A day gets another file if its last one was closed, or has columns of other types.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._writers: dict[int, pq.ParquetWriter] = {}  # the last used at the end
        self._parts: collections.Counter[int] = collections.Counter()

    def write(self, table: pa.Table, days: np.ndarray) -> None:
        """Writes each row to a file of its day, a number since 1970."""
        for day in np.unique(days).tolist():
            part = table.filter(pa.array(days == day))
            writer = self._writers.pop(day, None)
            if writer and writer.schema != part.schema:
                writer.close()
                writer = None
            self._writers[day] = writer or self._begin(day, part.schema)
            self._writers[day].write_table(part)
            if len(self._writers) > _MOST_OPEN:
                self._writers.pop(next(iter(self._writers))).close()

    def close(self) -> None:
        """Ends all files."""
        for writer in self._writers.values():
            writer.close()

    def _begin(self, day: int, schema: pa.Schema) -> pq.ParquetWriter:
        date = (datetime.date(1970, 1, 1) + datetime.timedelta(day)).isoformat()
        directory = os.path.join(self._directory, date)
        os.makedirs(directory, exist_ok=True)
        self._parts[day] += 1
        return pq.ParquetWriter(os.path.join(directory, f"{date}-{self._parts[day]:06d}.parquet"), schema)
