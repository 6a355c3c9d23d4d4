"""DuckDB within bounded memory, and the rows of its queries as Arrow."""

from __future__ import annotations

from typing import Any

import duckdb
import pyarrow as pa

_MEMORY = "800MB"
_BATCH_ROWS = 131_072


def connect(work: str) -> duckdb.DuckDBPyConnection:
    """Opens a database in memory, which spills to the directory `work` if it is full."""
    return duckdb.connect(":memory:", config={"memory_limit": _MEMORY, "temp_directory": work})


def read_query(connection: duckdb.DuckDBPyConnection, query: str, *params: Any) -> pa.RecordBatchReader:
    """Returns a reader of the rows of a query, which come batch by batch: the result is never whole in memory."""
    database: Any = connection  # the methods differ between versions
    if not hasattr(database, "fetch_record_batch"):  # 2.0 and later, whose to_arrow_reader holds the whole result
        return pa.RecordBatchReader.from_stream(database.sql(query, params=list(params)))
    result = database.execute(query, list(params))  # the relations of 1.x hold the whole result
    read = result.to_arrow_reader if hasattr(result, "to_arrow_reader") else result.fetch_record_batch
    return read(_BATCH_ROWS)
