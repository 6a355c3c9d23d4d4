"""Joins request logs with labels that came later, into a Parquet file that `prepare` reads like any raw log."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
from collections.abc import Sequence

import duckdb
import pyarrow.parquet as pq

from tfrs_dlrm.data.raw.raw_files import expand, is_parquet, usual_delimiter
from tfrs_dlrm.schema import Schema
from tfrs_dlrm.serving.request_logs.log_tables import read_log
from tfrs_dlrm.serving.request_logs.request_log import LOG_FIELDS
from tfrs_dlrm.stores.files import disk_full, local_path


@dataclasses.dataclass(frozen=True)
class Joined:
    """The counts of `join_labels`.

    Attributes:
      rows: logged and labelled rows, which were written.
      unlabelled: logged rows without a label, which were left out.
      unmatched_labels: labels of rows that were not logged.
      duplicate_rows: rows logged again under the same request_id and row; the first one counts.
      duplicate_labels: labels given again for the same request_id and row; the first one counts.
    """

    rows: int
    unlabelled: int
    unmatched_labels: int
    duplicate_rows: int
    duplicate_labels: int


def join_labels(logs: Sequence[str], labels: str, output: str, schema: Schema) -> Joined:
    """Joins logs and labels by request_id and row.

    Args:
      logs: paths and glob patterns of files of a `RequestLog`.
      labels: .csv, .tsv or .parquet with the columns `request_id`, the schema's label, its weight if it has one, and
        `row`, the position in the request; without it, labels belong to the first row. Rows with an empty label are
        skipped.
      output: the .parquet file to write, with the columns of the schema and of the log; missing values are null.
      schema: of the served model.

    Raises:
      FileNotFoundError: a log or the labels do not exist.
      ValueError: a log is broken or has another schema, a column is missing, or no logged row has a label.
      OSError: the disk is full.
    """
    if not is_parquet(output):
        raise ValueError(f"{output}: the output is a Parquet file; let its name end in .parquet")
    local_path(output), local_path(labels)
    if not os.path.isfile(labels):
        raise FileNotFoundError(f"no labels at {labels!r}")
    files = expand(logs)
    scratch = f"{output}.unfinished"
    shutil.rmtree(scratch, ignore_errors=True)
    os.makedirs(scratch)
    try:
        with (
            disk_full(output),
            duckdb.connect(":memory:", config={"memory_limit": "800MB", "temp_directory": scratch}) as connection,
        ):
            _read_logs(connection, files, schema, scratch)
            _read_labels(connection, labels, schema)
            joined = _count(connection, labels)
            whole = os.path.join(scratch, "joined.parquet")
            connection.execute(f"COPY ({_select(schema)}) TO {_text(whole)} (FORMAT parquet)")
            os.replace(whole, output)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return joined


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
        f"CREATE VIEW logged_all AS SELECT *, file_row_number AS position, {_key('log/request_id')} AS key,"
        f' "log/row" AS key_row FROM read_parquet({_text(path)}, file_row_number = true)'
    )
    connection.execute(
        "CREATE TABLE firsts AS SELECT min(position) AS position, key, key_row FROM logged_all GROUP BY key, key_row"
    )


def _read_labels(connection: duckdb.DuckDBPyConnection, path: str, schema: Schema) -> None:
    """Makes `labels_all`, and `labels` with one row per request_id and row."""
    if is_parquet(path):
        source = f"read_parquet({_text(path)})"
    else:
        delimiter = _text(schema.text.delimiter or usual_delimiter(path))
        source = f"read_csv({_text(path)}, delim = {delimiter}, header = true, all_varchar = true)"
    found = {name: kind for name, kind, *_ in connection.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()}
    targets = schema.targets
    missing = [name for name in ["request_id", *targets] if name not in found]
    if missing:
        raise ValueError(f"{path}: no column {', '.join(map(repr, missing))}; the file has: {', '.join(found)}")
    key = _key("request_id") if found["request_id"] == "BLOB" else 'CAST("request_id" AS VARCHAR)'
    row = "0"
    if "row" in found:
        row = 'CAST("row" AS BIGINT)'
        _check_rows(connection, path, f"{source} WHERE {_name(schema.label.column)} IS NOT NULL")
    columns = ", ".join(f"{_name(name)} AS {_name(f'target/{name}')}" for name in targets)
    connection.execute(
        f"CREATE TABLE labels_all AS SELECT {key} AS key, {row} AS key_row, {columns} FROM {source}"
        f" WHERE {_name(schema.label.column)} IS NOT NULL"
    )
    connection.execute(
        "CREATE TABLE labels AS SELECT * FROM labels_all"
        " QUALIFY row_number() OVER (PARTITION BY key, key_row ORDER BY rowid) = 1"
    )


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
        query = f"SELECT key, key_row FROM {table} ORDER BY key, key_row LIMIT 1"
        return str(connection.execute(query).fetchone() or ("none",))

    rows, logged, labelled = count("firsts JOIN labels USING (key, key_row)"), count("firsts"), count("labels")
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


def _select(schema: Schema) -> str:
    targets = schema.targets
    columns = [f"labels.{_name(f'target/{name}')} AS {_name(name)}" for name in targets]
    columns += [f"logged_all.{_name(name)}" for name in schema.feature_columns if name not in targets]
    columns += [
        f"{'logged_all.key' if name == 'request_id' else 'logged_all.' + _name(f'log/{name}')} AS {_name(name)}"
        for name in LOG_FIELDS
        if name not in schema.columns
    ]
    return (
        f"SELECT {', '.join(columns)} FROM logged_all SEMI JOIN firsts USING (position)"
        " JOIN labels ON labels.key = logged_all.key AND labels.key_row = logged_all.key_row"
        " ORDER BY logged_all.position"
    )


def _key(column: str) -> str:
    """Returns the SQL for the text of bytes, with escapes for bytes that are not ASCII."""
    return f"coalesce(try(decode({_name(column)})), CAST({_name(column)} AS VARCHAR))"


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
