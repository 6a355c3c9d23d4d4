"""DuckDB within bounded memory, and the rows of its queries as Arrow."""

from __future__ import annotations

from typing import Any

import duckdb
import pyarrow as pa

_MEMORY = "800MB"


def connect(work: str) -> duckdb.DuckDBPyConnection:
    """Opens a database in memory, which spills to the directory `work` if it is full."""
    return duckdb.connect(":memory:", config={"memory_limit": _MEMORY, "temp_directory": work})


def rows_of(connection: duckdb.DuckDBPyConnection, query: str, *params: Any) -> pa.RecordBatchReader:
    """Returns the rows of a query, which are read batch by batch. The methods for this differ between versions."""
    return pa.RecordBatchReader.from_stream(connection.sql(query, params=list(params)))
