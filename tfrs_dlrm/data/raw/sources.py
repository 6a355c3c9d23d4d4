"""Raw logs as sequences of blocks: where each begins and ends, and which columns it has.

A block is a bounded piece of one file or frame, cut at a line or row boundary. The cuts depend on the file alone, so a
run that was interrupted finds the same blocks again.
"""

from __future__ import annotations

import csv
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from tfrs_dlrm.data.raw import raw_files
from tfrs_dlrm.data.raw.frames import Frame, FrameContent, RawInput
from tfrs_dlrm.data.raw.raw_files import is_compressed, is_parquet, usual_delimiter
from tfrs_dlrm.schema import Schema
from tfrs_dlrm.stores import StoreError

BLOCK_BYTES = 16 << 20
BLOCK_ROWS = 65_536
_BOM = b"\xef\xbb\xbf"


@dataclasses.dataclass(frozen=True)
class RawBlock:
    """A piece of a raw file, or of a frame.

    Attributes:
      path: the file, or the name of the frame.
      index: the position of the block in its file, from 0.
      first_row: the number of its first line (text, counted from 1 with the header) or row (of a table, from 1).
      rows: the number of lines or rows.
      data: whole lines of text, or a table with at least `columns`.
      columns: the names of the fields of a line, in order; of a table, the columns to read.
      delimiter: between the fields of a line; empty for a table.
    """

    path: str
    index: int
    first_row: int
    rows: int
    data: bytes | pa.Table
    columns: tuple[str, ...]
    delimiter: str = ""

    @property
    def unit(self) -> str:
        """What `first_row` counts: `line` or `row`."""
        return "line" if isinstance(self.data, bytes) else "row"

    def texts(self, rows: Sequence[int]) -> list[str]:
        """Returns the content of lines or rows by number, for messages; bytes that are no UTF-8 appear as escapes."""
        if not len(rows):
            return []
        if isinstance(self.data, bytes):
            lines = self.data.split(b"\n")
            return [lines[n - self.first_row].decode("utf-8", "backslashreplace").rstrip("\r") for n in rows]
        return [_row_text(self.data.slice(n - self.first_row, 1)) for n in rows]


@dataclasses.dataclass(frozen=True)
class BlockStart:
    """The beginning of a block, from which it can be read without the blocks before it.

    Attributes:
      index: the position of the block in its file.
      first_row: the number of its first line or row, as in `RawBlock`.
      offset: text: the byte at which that line begins. Parquet: the row group that holds the row.
      after: text: the byte from which the file is read in whole pieces; the bytes from `offset` to it begin the line.
        Parquet: how many batches of the row group come before.
    """

    index: int
    first_row: int
    offset: int
    after: int


def blocks(
    path: RawInput, schema: Schema, position: Callable[[int], None] | None = None, start: BlockStart | None = None
) -> Iterator[RawBlock]:
    """Yields the blocks of one file or frame, in order.

    Args:
      path: a frame, a .parquet file, or text (.tsv, .csv or any other name), which may be compressed as .gz.
      schema: names the columns and the layout of text files.
      position: called with the number of bytes of the file read so far, for progress bars.
      start: the block to begin with; by default the first. A .gz file or a frame can only be read from the first.

    Raises:
      ValueError: a column is missing, the file is damaged or cut off, or the frame changed; the message names it.
    """
    report = position or (lambda _: None)
    if isinstance(path, Frame):
        yield from frame_blocks(path, schema.columns, report)
    elif is_parquet(path):
        yield from _parquet_blocks(path, schema, report, start or BlockStart(0, 1, 0, 0))
    else:
        yield from _text_blocks(path, schema, report, start or BlockStart(0, 1, 0, 0))


def frame_blocks(
    frame: Frame, columns: Sequence[str], position: Callable[[int], None] | None = None
) -> Iterator[RawBlock]:
    """Yields some columns of a frame, cut as those of a Parquet file with as many rows; see `blocks`."""
    _check_columns(frame.name, columns, frame.columns, "")
    first_row, size = 1, 0
    for index, table in enumerate(frame.tables(columns, BLOCK_ROWS)):
        yield RawBlock(frame.name, index, first_row, table.num_rows, table, tuple(columns))
        first_row, size = first_row + table.num_rows, size + table.nbytes
        if position:
            position(size)
    if first_row == 1:
        raise ValueError(f"{frame.name}: it has no rows")


def size_of(source: RawInput, schema: Schema) -> int:
    """Returns the bytes that `blocks` reads, as it reports them."""
    return frame_content(source, schema).size if isinstance(source, Frame) else raw_files.size(source)


def frame_content(frame: Frame, schema: Schema) -> FrameContent:
    """Returns the content of the columns that a schema reads.

    Raises:
      ValueError: a column is missing, or the frame has no rows.
    """
    _check_columns(frame.name, schema.columns, frame.columns, "")
    return frame.content(schema.columns, BLOCK_ROWS)


def first_line(path: str) -> str:
    """Reads the first line of a text file.

    Raises:
      ValueError: the line is empty, damaged or no UTF-8; the message names the file.
    """
    line = next(_chunks(path, lambda _: None), b"").removeprefix(_BOM).partition(b"\n")[0]
    if not line:
        raise ValueError(f"{path}: the first line is empty")
    return _decoded(path, line)


def split_line(line: str, delimiter: str) -> list[str]:
    """Splits a line into fields, without the quotes around them."""
    try:
        return next(csv.reader([line], delimiter=delimiter))
    except csv.Error as e:  # such as a field of 128 KB
        raise ValueError(f"no list of fields: {line[:40]!r}...: {e}") from e


def _parquet_blocks(path: str, schema: Schema, report: Callable[[int], None], start: BlockStart) -> Iterator[RawBlock]:
    try:
        file = pq.ParquetFile(raw_files.open_file(path), page_checksum_verification=True)
        size, names = raw_files.size(path), file.schema_arrow.names
        _check_columns(path, schema.columns, names, "")
        if file.metadata.num_rows == 0:
            raise ValueError(f"{path}: the file has no rows")
        first_row, index, skip = start.first_row, start.index, start.after
        for group in range(start.offset, file.num_row_groups):
            batches = file.iter_batches(BLOCK_ROWS, row_groups=[group], columns=list(schema.columns))
            batches, skip = itertools.islice(batches, skip, None), 0
            for batch in batches:
                yield RawBlock(path, index, first_row, batch.num_rows, pa.Table.from_batches([batch]), schema.columns)
                first_row, index = first_row + batch.num_rows, index + 1
                report(int(size * (first_row - 1) / file.metadata.num_rows))
    except StoreError:
        raise
    except (pa.ArrowException, OSError) as e:
        raise ValueError(f"{path}: not a readable Parquet file: {e}") from e


def _text_blocks(path: str, schema: Schema, report: Callable[[int], None], start: BlockStart) -> Iterator[RawBlock]:
    delimiter = schema.text.delimiter or usual_delimiter(path)
    columns = schema.text.columns
    line, index, rest, begin = 1, 0, b"", 0
    if start.index > 0:
        line, index, begin = start.first_row, start.index, start.after
        columns = columns or _header(path, _header_line(path), delimiter, schema)
        rest = _bytes(path, start.offset, begin)
    for chunk in _chunks(path, report, begin):
        data = rest + chunk
        if line == 1:
            data = data.removeprefix(_BOM)
            if not columns:
                header, newline, data = data.partition(b"\n")
                if not newline and len(header) >= BLOCK_BYTES:
                    raise ValueError(f"{path}: line 1 is longer than {BLOCK_BYTES} bytes; is this a text file?")
                columns = _header(path, header, delimiter, schema)
                line = 2
        end = data.rfind(b"\n") + 1
        data, rest = data[:end], data[end:]
        if len(rest) > BLOCK_BYTES:
            raise ValueError(f"{path}: line {line} is longer than {BLOCK_BYTES} bytes; is this a text file?")
        if data:
            lines = data.count(b"\n")
            yield RawBlock(path, index, line, lines, data, columns, delimiter)
            line, index = line + lines, index + 1
    if rest:
        yield RawBlock(path, index, line, 1, rest + b"\n", columns, delimiter)
    elif index == 0:
        raise ValueError(f"{path}: the file {'is empty' if line == 1 else 'has a header but no rows'}")


def _chunks(path: str, report: Callable[[int], None], begin: int = 0) -> Iterator[bytes]:
    """Yields the decompressed bytes of a file from `begin` on, in pieces of `BLOCK_BYTES`; the last is shorter."""
    compressed = is_compressed(path)
    try:
        with raw_files.open_file(path) as raw:
            raw.seek(begin)
            stream: IO[bytes] = pa.CompressedInputStream(raw, "gzip") if compressed else raw
            while chunk := _read_full(stream, BLOCK_BYTES):
                report(raw.tell())
                yield chunk
    except StoreError:
        raise
    except OSError as e:
        what = "the gz file is damaged or ends in the middle" if compressed else "cannot be read"
        raise ValueError(f"{path}: {what}: {e}") from e


def _read_full(stream: IO[bytes], size: int) -> bytes:
    """Reads exactly `size` bytes, fewer only at the end; a decompressor may return fewer per call."""
    parts, missing = [], size
    while missing > 0 and (part := stream.read(missing)):
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


def _bytes(path: str, begin: int, end: int) -> bytes:
    with raw_files.open_file(path) as file:
        file.seek(begin)
        return file.read(end - begin)


def _header_line(path: str) -> bytes:
    begin = b""
    with raw_files.open_file(path) as file:
        while b"\n" not in begin and len(begin) < BLOCK_BYTES and (piece := file.read(1 << 16)):
            begin += piece
    return begin.partition(b"\n")[0].removeprefix(_BOM)


def _row_text(row: pa.Table) -> str:
    try:
        return str(row.to_pylist()[0])
    except UnicodeDecodeError:
        fields = [f.with_type(pa.binary()) if pa.types.is_string(f.type) else f for f in row.schema]
        return str(row.cast(pa.schema(fields)).to_pylist()[0])


def _decoded(path: str, line: bytes) -> str:
    try:
        return line.decode("utf-8").rstrip("\r")
    except UnicodeDecodeError as e:
        raise ValueError(f"{path}: line 1: invalid UTF-8 in the header: {e}") from e


def _header(path: str, line: bytes, delimiter: str, schema: Schema) -> tuple[str, ...]:
    text = _decoded(path, line)
    names = split_line(text, delimiter) if text else []
    names = [n.strip() for n in names] if schema.text.strip else names
    hint = "; if the file has no header line, list its columns in text.columns of the schema"
    _check_columns(path, schema.columns, names, hint)
    return tuple(names)


def _check_columns(path: str, columns: Sequence[str], names: Sequence[str], hint: str) -> None:
    missing = [name for name in columns if name not in names]
    if missing:
        shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
        raise ValueError(f"{path}: no column {', '.join(map(repr, missing))}; it has: {shown[:500]}{hint}")
    for name in columns:
        if names.count(name) > 1:
            raise ValueError(f"{path}: column {name!r} occurs {names.count(name)} times; give each column another name")
