"""Joins request logs with labels that came later, into a Parquet file that `prepare` reads like any raw log."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
from collections.abc import Sequence

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tfrs_dlrm.data.raw import sources
from tfrs_dlrm.data.raw.file_kinds import says_parquet
from tfrs_dlrm.data.raw.file_patterns import expand
from tfrs_dlrm.data.raw.no_rows import NoRowsError
from tfrs_dlrm.data.raw.parsing import fields
from tfrs_dlrm.data.raw.values import POINT_ZERO
from tfrs_dlrm.schema import Schema
from tfrs_dlrm.serving.request_logs.finished_logs import finished_logs
from tfrs_dlrm.serving.request_logs.log_tables import read_log
from tfrs_dlrm.serving.request_logs.request_log import LOG_FIELDS
from tfrs_dlrm.stores.files import check_writable, disk_full, local_path, put
from tfrs_dlrm.stores.lock import directory_lock

# The columns with the identity of a row; the log's columns may have any name without `log/` before it.
_KEYS = '"log/key", "log/row"'


@dataclasses.dataclass(frozen=True)
class Joined:
    """The counts of `join_labels`.

    Attributes:
      rows: logged and labelled rows, which were written.
      unlabelled: logged rows without a label, which were left out.
      unmatched_labels: labels of rows that were not logged.
      duplicate_rows: rows logged again under the same request_id and row; the first one counts.
      duplicate_labels: labels given again for the same request_id and row; the first one counts.
      lacking: columns of `training_only` features that the labels do not have: their values are missing in all rows.
    """

    rows: int
    unlabelled: int
    unmatched_labels: int
    duplicate_rows: int
    duplicate_labels: int
    lacking: tuple[str, ...] = ()


def join_labels(logs: Sequence[str], labels: str, output: str, schema: Schema) -> Joined:
    """Joins logs and labels by request_id and row.

    Requests lack the values of `training_only` features, so they come with the labels.

    Args:
      logs: paths, directories and glob patterns of files of a `RequestLog`; those in progress are left out.
      labels: a path, directory or glob pattern of text with a header, or of Parquet, as `prepare` reads them. Columns:
        `request_id`, the schema's label, its weight if it has one, and `row`, the position in the request; without it,
        labels belong to the first row. And columns of `training_only` features, where known. Rows with an empty label
        are skipped.
      output: the .parquet file to write, with the columns of the schema and of the log; missing values are null.
      schema: of the served model.

    Raises:
      FileNotFoundError: a log or the labels do not exist, or no file of the log is whole.
      ValueError: a log is broken or has another schema, no logged row has a label, or the labels lack a column: a
        target, or a `training_only` feature that refuses missing values.
      OSError: the disk is full.
    """
    if not says_parquet(output):
        raise ValueError(f"{output}: the output is a Parquet file; let its name end in .parquet")
    local_path(output), local_path(labels)
    try:
        label_files = expand([labels])
    except FileNotFoundError as e:
        raise FileNotFoundError(f"no labels at {labels!r}: {e}") from e
    files = finished_logs(logs)
    check_writable(os.path.dirname(output))
    home = f"{output}.unfinished"
    with directory_lock(home, "joins labels") as lock:
        lock.acquire()
        scratch = os.path.join(home, "scratch")
        shutil.rmtree(scratch, ignore_errors=True)
        os.makedirs(scratch)
        try:
            return _join(files, labels, label_files, output, schema, scratch)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def _join(files: list[str], labels: str, label_files: list[str], output: str, schema: Schema, scratch: str) -> Joined:
    with (
        disk_full(output),
        duckdb.connect(":memory:", config={"memory_limit": "800MB", "temp_directory": scratch}) as connection,
    ):
        _read_logs(connection, files, schema, scratch)
        later = _read_labels(connection, labels, label_files, schema, scratch)
        lacking = tuple(name for name in _training_only(schema) if name not in later)
        joined = dataclasses.replace(_count(connection, labels), lacking=lacking)
        whole = os.path.join(scratch, "joined.parquet")
        connection.execute(f"COPY ({_select(schema, later)}) TO {_text(whole)} (FORMAT parquet)")
        put(whole, output)
    return joined


def _training_only(schema: Schema) -> dict[str, bool]:
    """Returns the columns that requests lack, and whether a missing value is an error."""
    return {x.column: x.needed for x in schema.inputs if x.training_only and x.column not in schema.targets}


def _read_logs(connection: duckdb.DuckDBPyConnection, files: list[str], schema: Schema, scratch: str) -> None:
    """Makes `logged_all`, and `firsts` with one position per request_id and row."""
    path = os.path.join(scratch, "logged.parquet")
    with contextlib.ExitStack() as stack:
        writer = None
        for file in files:
            for table in read_log(file, schema):
                if writer is None:
                    writer = stack.enter_context(pq.ParquetWriter(path, table.schema))
                writer.write_table(table)
        if writer is None:
            raise ValueError(f"{files[0]}{' and the other logs' if len(files) > 1 else ''}: the logs hold no rows")
    # DuckDB numbers the rows of a Parquet file from 0.
    connection.execute(
        f'CREATE VIEW logged_all AS SELECT *, file_row_number AS "log/number", {_key("log/request_id")} AS "log/key"'
        f" FROM read_parquet({_text(path)}, file_row_number = true)"
    )
    connection.execute(
        f'CREATE TABLE firsts AS SELECT min("log/number") AS "log/number", {_KEYS} FROM logged_all GROUP BY {_KEYS}'
    )


def _read_labels(
    connection: duckdb.DuckDBPyConnection, path: str, files: Sequence[str], schema: Schema, scratch: str
) -> list[str]:
    """Makes `labels_all`, and `labels` with one row per request_id and row; returns the columns that came with them."""
    source = f"read_parquet({_text(_copy_labels(files, schema, scratch))})"
    found = {name: kind for name, kind, *_ in connection.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()}
    later = [name for name in (*schema.targets, *_training_only(schema)) if name in found]
    key = _key("request_id") if found["request_id"] == "BLOB" else _digits('CAST("request_id" AS VARCHAR)')
    row = "0"
    if "row" in found:
        row = 'CAST("row" AS BIGINT)'
        _check_rows(connection, path, f"{source} WHERE {_name(schema.label.column)} IS NOT NULL")
    columns = ", ".join(f"{_name(name)} AS {_name(f'later/{name}')}" for name in later)
    connection.execute(
        f'CREATE TABLE labels_all AS SELECT {key} AS "log/key", {row} AS "log/row", {columns} FROM {source}'
        f" WHERE {_name(schema.label.column)} IS NOT NULL"
    )
    connection.execute(
        "CREATE TABLE labels AS SELECT * FROM labels_all"
        f" QUALIFY row_number() OVER (PARTITION BY {_KEYS} ORDER BY rowid) = 1"
    )
    return later


def _copy_labels(files: Sequence[str], schema: Schema, scratch: str) -> str:
    """Writes the needed columns of the label files to one Parquet file, where empty texts are null; returns its path.

    Raises:
      ValueError: a column is missing, the files differ in their columns, or a line is no row.
    """
    path = os.path.join(scratch, "labels.parquet")
    text = dataclasses.replace(schema.text, columns=())  # files of labels have a header, whatever the log has
    needed = ["request_id", *schema.targets]
    with contextlib.ExitStack() as stack:
        writer = None
        for file in files:
            try:
                names = sources.columns_of(file, text)
            except NoRowsError:  # it is empty
                if len(files) == 1:
                    raise
                continue
            also = [x for x, refused in _training_only(schema).items() if refused or x in names]
            if writer is None:
                needed += also
            elif other := [x for x in also if x not in needed]:
                raise ValueError(
                    f"{file}: has {', '.join(map(repr, other))}, which the labels before it lack; join each alone"
                )
            missing = [name for name in needed if name not in names]
            if missing:
                raise ValueError(f"{file}: no column {', '.join(map(repr, missing))}; the file has: {', '.join(names)}")
            reader = sources.reading(list(dict.fromkeys([*needed, *(["row"] if "row" in names else [])])), text)
            for block in sources.blocks_of_many(file, reader, len(files)):
                columns, _, broken = fields(block, reader)
                for number, (_, reason) in broken.items():
                    raise ValueError(f"{file}: line {number}: {reason}; correct it")
                table = pa.table({name: _read_as_text(array) for name, array in columns.items()})
                if writer is None:
                    writer = stack.enter_context(pq.ParquetWriter(path, table.schema))
                writer.write_table(_like(file, table, writer.schema))
    return path


def _read_as_text(array: pa.Array) -> pa.Array:
    """Returns bytes as text where they are UTF-8, and null for empty ones."""
    if not pa.types.is_binary(array.type):
        return array
    with contextlib.suppress(pa.ArrowInvalid):
        array = array.cast(pa.string())
    return pc.if_else(pc.equal(pc.binary_length(array), 0), pa.scalar(None, array.type), array)


def _like(file: str, table: pa.Table, wanted: pa.Schema) -> pa.Table:
    try:
        return table.select(wanted.names).cast(wanted)
    except (pa.ArrowException, KeyError, ValueError) as e:
        raise ValueError(f"{file}: its columns differ from those of the other labels: {e}; join each alone") from e


def _check_rows(connection: duckdb.DuckDBPyConnection, path: str, labelled: str) -> None:
    """Raises ValueError for a row that is no integer; a cast would round 0.5."""
    wrong = connection.execute(
        f'SELECT request_id, "row" FROM {labelled} AND (TRY_CAST("row" AS BIGINT) IS NULL'
        ' OR TRY_CAST("row" AS BIGINT) <> TRY_CAST("row" AS DOUBLE)) LIMIT 1'
    ).fetchone()
    if wrong:
        raise ValueError(
            f"{path}: the row of request {wrong[0]!r} is {wrong[1]!r}; a position in the request, 0 or more, is needed"
        )


def _count(connection: duckdb.DuckDBPyConnection, labels: str) -> Joined:
    def count(table: str) -> int:
        found = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
        return int(found[0]) if found else 0

    def example(table: str) -> str:
        query = f"SELECT {_KEYS} FROM {table} ORDER BY {_KEYS} LIMIT 1"
        return str(connection.execute(query).fetchone() or ("none",))

    rows, logged, labelled = count(f"firsts JOIN labels USING ({_KEYS})"), count("firsts"), count("labels")
    if not rows:
        raise ValueError(
            f"{labels}: none of the {labelled} labels belongs to one of the {logged} logged rows; (request_id, row) is"
            f" {example('labels')} in the labels and {example('firsts')} in the log"
        )
    return Joined(
        rows=rows,
        unlabelled=logged - rows,
        unmatched_labels=labelled - rows,
        duplicate_rows=count("logged_all") - logged,
        duplicate_labels=count("labels_all") - labelled,
    )


def _select(schema: Schema, later: Sequence[str]) -> str:
    columns = [f"labels.{_name(f'later/{name}')} AS {_name(name)}" for name in later]
    columns += [f"logged_all.{_name(name)}" for name in schema.feature_columns if name not in later]
    columns += [
        f"logged_all.{_name('log/key' if name == 'request_id' else f'log/{name}')} AS {_name(name)}"
        for name in LOG_FIELDS
        if name not in schema.columns
    ]
    return (
        f'SELECT {", ".join(columns)} FROM logged_all SEMI JOIN firsts USING ("log/number")'
        f' JOIN labels USING ({_KEYS}) ORDER BY logged_all."log/number"'
    )


def _key(column: str) -> str:
    """Returns the SQL for the text of bytes, with escapes for bytes that are not ASCII; of whole numbers the digits."""
    return _digits(f"coalesce(try(decode({_name(column)})), CAST({_name(column)} AS VARCHAR))")


def _digits(text: str) -> str:
    """Returns the SQL that makes one key of `24216` and `24216.0`, as pandas writes numbers with gaps."""
    return rf"regexp_replace({text}, {_text(POINT_ZERO)}, '\1')"


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
