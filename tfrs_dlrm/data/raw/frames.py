"""Rows in memory or of a query, read through the Arrow C stream interface: pandas, polars, pyarrow, DuckDB."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfrs_dlrm.data.raw import file_patterns, raw_files

_UNNAMED_INDEX = re.compile(r"__index_level_\d+__")


class ArrowStream(Protocol):
    """A table of another library, which can be read as a stream of Arrow batches."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """See the Arrow PyCapsule interface."""


@dataclasses.dataclass(frozen=True)
class FrameContent:
    """The content of some columns of a frame: equal values give equal contents, whichever library holds them.

    Attributes:
      rows: the number of rows.
      size: the bytes of the Arrow columns.
      digests: a hash of each block of rows.
    """

    rows: int
    size: int
    digests: tuple[bytes, ...]

    @property
    def sha256(self) -> str:
        """A hash of all rows."""
        return hashlib.sha256(b"".join(self.digests)).hexdigest()


class Frame:
    """The rows of a DataFrame, an Arrow table or a DuckDB relation.

    The named levels of a pandas index are columns, as in a Parquet file of the frame; unnamed ones are left out.

    Args:
      data: has the method `__arrow_c_stream__`, or is a pandas DataFrame.
      place: the argument that gave it, for messages.

    Raises:
      ValueError: the data cannot become typed columns; the message says what to change.
    """

    def __init__(self, data: ArrowStream, place: str = "data"):
        self.data = data
        self.name = f"{place} ({type(data).__module__.partition('.')[0]} {type(data).__name__})"
        if isinstance(data, pa.RecordBatchReader):
            raise ValueError(f"{self.name}: it can be read once only; give the table that its read_all() returns")
        self._source = _of_pandas(data, self.name) if _is_pandas(data) else data
        self._contents: dict[tuple[tuple[str, ...], int], FrameContent] = {}
        names = getattr(data, "columns", None)  # of a relation, which a reader would run
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            with self._reader() as reader:
                names = reader.schema.names
        self.columns: tuple[str, ...] = tuple(names)

    def __str__(self) -> str:
        return self.name

    def tables(self, columns: Sequence[str], rows: int) -> Iterator[pa.Table]:
        """Yields some columns, in tables of `rows` rows; the last may have fewer.

        Raises:
          ValueError: the frame cannot be read, or its rows are no longer those of `content`.
        """
        known = self._contents.get((tuple(columns), rows))
        index = -1
        for index, table in enumerate(self._cut(columns, rows)):
            if known and known.digests[index : index + 1] != (_digest(table),):
                raise ValueError(self._changed())
            yield table
        if known and index + 1 != len(known.digests):
            raise ValueError(self._changed())

    def content(self, columns: Sequence[str], rows: int) -> FrameContent:
        """Reads some columns in blocks of `rows` rows, and returns their content; later calls do not read again.

        Raises:
          ValueError: the frame cannot be read.
        """
        key = tuple(columns), rows
        if key not in self._contents:
            count = size = 0
            digests = []
            for table in self._cut(columns, rows):
                count, size = count + table.num_rows, size + table.nbytes
                digests.append(_digest(table))
            self._contents[key] = FrameContent(count, size, tuple(digests))
        return self._contents[key]

    def _cut(self, columns: Sequence[str], rows: int) -> Iterator[pa.Table]:
        waiting: list[pa.RecordBatch] = []
        count = 0
        try:
            with self._reader() as reader:
                names = reader.schema.names
                target = pa.schema([(name, _without_view(reader.schema.field(name).type)) for name in columns])
                for batch in reader:
                    batch = pa.RecordBatch.from_arrays(
                        [_cast(batch.column(names.index(field.name)), field.type) for field in target], schema=target
                    )
                    while batch.num_rows:
                        part = batch.slice(0, rows - count)
                        waiting.append(part)
                        count, batch = count + part.num_rows, batch.slice(part.num_rows)
                        if count == rows:
                            yield pa.Table.from_batches(waiting)
                            waiting, count = [], 0
        except (pa.ArrowException, OSError) as e:
            raise ValueError(f"{self.name}: it cannot be read: {e}") from e
        if waiting:
            yield pa.Table.from_batches(waiting)

    def _reader(self) -> pa.RecordBatchReader:
        try:
            return pa.RecordBatchReader.from_stream(self._source)
        except (pa.ArrowException, TypeError) as e:
            raise ValueError(f"{self.name}: columns with names are needed, such as those of a DataFrame: {e}") from e

    def _changed(self) -> str:
        return (
            f"{self.name}: its rows changed, or came in another order, while they were read; give a table in memory,"
            " such as the relation's to_arrow_table()"
        )


RawInput = str | Frame
RawInputs = str | ArrowStream | Sequence[str | ArrowStream]


def is_frame(data: object) -> bool:
    """Whether `Frame` can read the data."""
    return hasattr(data, "__arrow_c_stream__") or _is_pandas(data)


def expand_inputs(inputs: RawInputs, argument: str) -> tuple[RawInput, ...]:
    """Returns the files of paths, directories and glob patterns, and the frames, each once and in the given order.

    Args:
      inputs: one or several.
      argument: the name of the argument, for messages.

    Raises:
      FileNotFoundError: a path or pattern names no file.
      ValueError: see `Frame` and `file_patterns.expand`; or an input is something else.
    """
    one = is_frame(inputs) or isinstance(inputs, (str, os.PathLike))
    if not one and (isinstance(inputs, (Mapping, np.ndarray)) or not isinstance(inputs, Sequence)):
        raise ValueError(_unreadable(argument, inputs))
    given: Sequence[Any] = [inputs] if one else inputs  # type: ignore[assignment]
    if not given:
        file_patterns.expand([])  # says what to give
    found: dict[Any, RawInput] = {}
    for i, item in enumerate(given):
        place = argument if one else f"{argument}[{i}]"
        if is_frame(item):
            found.setdefault(id(item), Frame(item, place))
        elif isinstance(item, (str, os.PathLike)):
            for path in file_patterns.expand([os.fspath(item)]):
                found.setdefault(raw_files.identity(path), path)
        else:
            raise ValueError(_unreadable(place, item))
    return tuple(found.values())


def input_identity(source: RawInput) -> Any:
    """Returns the same value for a frame, and for all paths of one file."""
    return id(source.data) if isinstance(source, Frame) else raw_files.identity(source)


def _unreadable(place: str, given: object) -> str:
    return (
        f"{place}: {type(given).__name__!r} is neither a path nor a table; give a pandas or polars DataFrame, a pyarrow"
        " Table or a DuckDB relation (of a LazyFrame its collect(), of a dict of arrays pyarrow.table(...))"
    )


def _is_pandas(data: object) -> bool:
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(data, pandas.DataFrame)


def _of_pandas(frame: Any, name: str) -> pa.Table:
    """Converts a pandas DataFrame once, for all passes."""
    columns = [*map(str, frame.columns), *(str(level) for level in frame.index.names if level is not None)]
    twice = next((c for c in columns if columns.count(c) > 1), None)
    if twice is not None:
        raise ValueError(f"{name}: column {twice!r} occurs {columns.count(twice)} times; give each column another name")
    for column, kind in frame.dtypes.items():
        if kind.kind == "c":
            raise ValueError(
                f"{name}: column {column!r} holds complex numbers ({kind}), which no feature reads: leave it out, such"
                f" as by frame = frame.drop(columns={column!r})"
            )
        if hasattr(frame[column], "sparse"):
            raise ValueError(
                f"{name}: column {column!r} is sparse ({kind}), which Arrow does not read: convert it, such as by"
                f" frame[{column!r}] = frame[{column!r}].sparse.to_dense()"
            )
    try:
        table = pa.Table.from_pandas(frame)
    except (pa.ArrowException, TypeError, ValueError) as e:
        found = re.search(r"for column (.*) with type", str(e.args[-1]))
        column = found[1] if found else "NAME"
        raise ValueError(
            f"{name}: {'; '.join(map(str, e.args))}. All values of a column need one type: convert it, such as by"
            f" frame[{column!r}] = frame[{column!r}].astype('string')"
        ) from e
    unnamed = [c for c in table.column_names if _UNNAMED_INDEX.fullmatch(c)]
    return table.drop_columns(unnamed).replace_schema_metadata()


def _without_view(kind: pa.DataType) -> pa.DataType:
    """The type that Parquet would give instead of one that not all of Arrow's functions take."""
    types = pa.types
    if types.is_string_view(kind):
        return pa.large_string()
    if types.is_binary_view(kind):
        return pa.large_binary()
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        inner = _without_view(kind.value_type)
        return kind if inner == kind.value_type else pa.large_list(inner)
    if types.is_dictionary(kind) and types.is_string_view(kind.value_type):
        return pa.dictionary(kind.index_type, pa.large_string(), kind.ordered)
    return kind


def _cast(array: pa.Array, kind: pa.DataType) -> pa.Array:
    if array.type != kind and pa.types.is_dictionary(kind):
        return pa.DictionaryArray.from_arrays(array.indices, array.dictionary.cast(kind.value_type))
    return array if array.type == kind else array.cast(kind)


def _digest(table: pa.Table) -> bytes:
    """Hashes the values of a table, without what Arrow leaves undefined."""
    digest = hashlib.sha256()
    for name, column in zip(table.column_names, table.columns, strict=True):
        digest.update(f"{name}\n".encode())
        array = column.combine_chunks()
        _add(digest, array.chunk(0) if isinstance(array, pa.ChunkedArray) else array)
    return digest.digest()


def _add(digest: Any, array: pa.Array) -> None:
    types, kind = pa.types, array.type
    if types.is_dictionary(kind):
        array = array.dictionary_decode()
        kind = array.type
    digest.update(array.is_null().to_numpy(zero_copy_only=False))
    if types.is_integer(kind) or types.is_float32(kind) or types.is_float64(kind):
        digest.update(str(kind).encode())
        digest.update(np.ascontiguousarray(pc.fill_null(array, 0).to_numpy(zero_copy_only=False)))
    elif types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        digest.update(pc.fill_null(pc.list_value_length(array), 0).cast(pa.int64()).to_numpy(zero_copy_only=False))
        _add(digest, array.flatten())
    elif types.is_string(kind) or types.is_large_string(kind) or types.is_binary(kind) or types.is_large_binary(kind):
        text = pc.fill_null(array.cast(pa.large_binary()), b"")
        digest.update(pc.binary_length(text).to_numpy(zero_copy_only=False))
        first = np.frombuffer(text.buffers()[1], np.int64)[text.offset : text.offset + len(text) + 1]
        if len(first) and first[-1] > first[0]:
            digest.update(text.buffers()[2][int(first[0]) : int(first[-1])])
    else:
        digest.update(f"{kind}\n{array.to_pylist()}".encode())
