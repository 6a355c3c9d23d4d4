"""Raw logs as sequences of blocks: where each begins and ends, and which columns it has.

A block is a bounded piece of one file or frame, cut at a line or row boundary. The cuts depend on the file alone, so a
run that was interrupted finds the same blocks again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from tfrs_dlrm.data.raw import raw_files
from tfrs_dlrm.data.raw.file_kinds import FileKind, kind_of, says_parquet
from tfrs_dlrm.data.raw.frames import Frame, FrameContent, RawInput
from tfrs_dlrm.data.raw.no_rows import NoRowsError
from tfrs_dlrm.data.raw.partitions import partitions
from tfrs_dlrm.data.raw.text_layout import BOM, check_columns, layout_of, usual_quote
from tfrs_dlrm.data.raw.unpacking import chunks, open_parquet
from tfrs_dlrm.schema import CategoricalFeature, Label, Schema, TextFormat
from tfrs_dlrm.stores import StoreError

BLOCK_BYTES = 16 << 20
BLOCK_ROWS = 65_536


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
      given_quote: the quote around fields; None is the usual one for the delimiter.
      constants: columns of text that have one value in all rows, from the names of directories; None is missing.
    """

    path: str
    index: int
    first_row: int
    rows: int
    data: bytes | pa.Table
    columns: tuple[str, ...]
    delimiter: str = ""
    given_quote: str | None = None
    constants: Mapping[str, str | None] = dataclasses.field(default_factory=dict)

    @property
    def quote(self) -> str:
        """The quote around the fields of a line; empty if there is none."""
        return usual_quote(self.delimiter) if self.given_quote is None else self.given_quote

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
      path: a frame, or a file: Parquet or text, by its first bytes, which may be compressed. A column that the file
        lacks is taken from the names of its directories, such as `dt=2026-11-01`.
      schema: names the columns and the layout of text files.
      position: called with the number of bytes of the file read so far, for progress bars.
      start: the block to begin with; by default the first. Compressed files and frames are read from the first only.

    Raises:
      NoRowsError: the file has no rows.
      ValueError: a column is missing, the file is damaged or cut off, or the frame changed; the message names it.
    """
    report = position or (lambda _: None)
    if isinstance(path, Frame):
        yield from frame_blocks(path, schema.columns, report)
        return
    start, kind = start or BlockStart(0, 1, 0, 0), file_kind(path)
    if kind.content == "parquet":
        yield from _parquet_blocks(path, kind, schema, report, start)
    else:
        yield from _text_blocks(path, kind, schema, report, start)


def blocks_of_many(
    path: RawInput,
    schema: Schema,
    files: int,
    position: Callable[[int], None] | None = None,
    start: BlockStart | None = None,
) -> Iterator[RawBlock]:
    """Yields the blocks of one of `files` files, as `blocks` does; if there are others, a file may have no rows."""
    with _one_may_have_no_rows(files):
        yield from blocks(path, schema, position, start)


@contextlib.contextmanager
def _one_may_have_no_rows(files: int) -> Iterator[None]:
    try:
        yield
    except NoRowsError:
        if files == 1:
            raise


def file_kind(path: str) -> FileKind:
    """Returns the kind of a file, see `kind_of`; a file with the name of a Parquet file must be one."""
    kind = kind_of(path)
    if kind.content != "parquet" and says_parquet(path):
        what = "it begins as text does and not with PAR1; if it is a text file, give it another name"
        raise ValueError(f"{path}: not a readable Parquet file: {what}")
    return kind


def columns_of(path: str, text: TextFormat) -> tuple[str, ...]:
    """Returns the names of the columns of a file, those in the names of its directories last.

    Raises:
      ValueError: the file is damaged or of a kind that is not read; the message names it.
    """
    kind = file_kind(path)
    if kind.content == "parquet":
        names = tuple(parquet_file(path, kind).schema_arrow.names)
    else:
        names = layout_of(path, kind, text, (), BLOCK_BYTES).columns
    return (*names, *(name for name in partitions(path) if name not in names))


def check(path: RawInput, schema: Schema, files: int = 1) -> None:
    """Checks what the beginning of a file tells: that it is of a kind that is read, and has the columns of a schema.

    Args:
      path: the file, or a frame, of which nothing is checked.
      schema: names the columns.
      files: how many files are read; if there are others, a file may be empty.

    Raises:
      ValueError: see `blocks`.
    """
    if isinstance(path, Frame):
        return
    kind = file_kind(path)
    if kind.content == "text":
        with _one_may_have_no_rows(files):
            layout_of(path, kind, schema.text, schema.columns, BLOCK_BYTES)
    elif not kind.packing:  # an unpacked copy of others is made when they are read
        check_columns(path, schema.columns, parquet_file(path, kind).schema_arrow.names, "", tuple(partitions(path)))


def reading(names: Sequence[str], text: TextFormat) -> Schema:
    """Returns a schema that reads some columns as they are."""
    features = tuple(CategoricalFeature(f"c{i}", column=name) for i, name in enumerate(names))
    return Schema(Label(names[0]), categorical=features, text=text)


def frame_blocks(
    frame: Frame, columns: Sequence[str], position: Callable[[int], None] | None = None
) -> Iterator[RawBlock]:
    """Yields some columns of a frame, cut as those of a Parquet file with as many rows; see `blocks`."""
    check_columns(frame.name, columns, frame.columns, "")
    first_row, size = 1, 0
    for index, table in enumerate(frame.tables(columns, BLOCK_ROWS)):
        yield RawBlock(frame.name, index, first_row, table.num_rows, table, tuple(columns))
        first_row, size = first_row + table.num_rows, size + table.nbytes
        if position:
            position(size)
    if first_row == 1:
        raise NoRowsError(f"{frame.name}: it has no rows")


def size_of(source: RawInput, schema: Schema) -> int:
    """Returns the bytes that `blocks` reads, as it reports them."""
    return frame_content(source, schema).size if isinstance(source, Frame) else raw_files.size(source)


def frame_content(frame: Frame, schema: Schema) -> FrameContent:
    """Returns the content of the columns that a schema reads.

    Raises:
      ValueError: a column is missing.
    """
    check_columns(frame.name, schema.columns, frame.columns, "")
    return frame.content(schema.columns, BLOCK_ROWS)


def parquet_file(path: str, kind: FileKind) -> pq.ParquetFile:
    """Opens a Parquet file, which may be compressed as a whole.

    Raises:
      ValueError: it is damaged; the message names it.
      OSError: there is no room for an unpacked copy.
    """
    try:
        return pq.ParquetFile(open_parquet(path, kind.packing), page_checksum_verification=True)
    except StoreError:
        raise
    except (pa.ArrowException, OSError) as e:
        if isinstance(e, OSError) and e.errno == errno.ENOSPC:
            raise  # there is no room for an unpacked copy
        raise ValueError(f"{path}: not a readable Parquet file: {e}") from e


def _parquet_blocks(
    path: str, kind: FileKind, schema: Schema, report: Callable[[int], None], start: BlockStart
) -> Iterator[RawBlock]:
    file = parquet_file(path, kind)
    size, names = raw_files.size(path), file.schema_arrow.names
    constants = {k: v for k, v in partitions(path).items() if k in schema.columns and k not in names}
    check_columns(path, schema.columns, names, "", tuple(constants))
    if file.metadata.num_rows == 0:
        raise NoRowsError(f"{path}: the file has no rows")
    wanted = [name for name in schema.columns if name not in constants]
    first_row, index, skip = start.first_row, start.index, start.after
    try:
        for group in range(start.offset, file.num_row_groups):
            batches = file.iter_batches(BLOCK_ROWS, row_groups=[group], columns=wanted)
            batches, skip = itertools.islice(batches, skip, None), 0
            for batch in batches:
                table = pa.Table.from_batches([batch])
                for name, value in constants.items():
                    table = table.append_column(name, pa.repeat(pa.scalar(value, pa.string()), batch.num_rows))
                yield RawBlock(path, index, first_row, batch.num_rows, table, schema.columns)
                first_row, index = first_row + batch.num_rows, index + 1
                report(int(size * (first_row - 1) / file.metadata.num_rows))
    except StoreError:
        raise
    except (pa.ArrowException, OSError) as e:
        raise ValueError(f"{path}: not a readable Parquet file: {e}") from e


def _text_blocks(
    path: str, kind: FileKind, schema: Schema, report: Callable[[int], None], start: BlockStart
) -> Iterator[RawBlock]:
    layout = layout_of(path, kind, schema.text, schema.columns, BLOCK_BYTES)
    constants = {k: v for k, v in partitions(path).items() if k in schema.columns and k not in layout.columns}
    whole = RawBlock(path, 0, 0, 0, b"", layout.columns, layout.delimiter, layout.quote, constants)
    line, index, rest, begin = 1, 0, b"", 0
    if start.index > 0:
        line, index, begin = start.first_row, start.index, start.after
        rest = _bytes(path, start.offset, begin)
    for chunk in chunks(path, kind.packing, kind.encoding, BLOCK_BYTES, report, begin):
        if line == 1:
            chunk, rest = (rest + chunk).removeprefix(BOM), b""
            if not schema.text.columns:
                _, _, chunk = chunk.partition(b"\n")
                line = 2
        end = chunk.rfind(b"\n") + 1
        # One copy of the lines, and a short one of what follows them.
        data, rest = (b"".join((rest, memoryview(chunk)[:end])), chunk[end:]) if end else (b"", rest + chunk)
        if len(rest) > BLOCK_BYTES:
            raise ValueError(f"{path}: line {line} is longer than {BLOCK_BYTES} bytes; is this a text file?")
        if data:
            lines = data.count(b"\n")
            yield dataclasses.replace(whole, index=index, first_row=line, rows=lines, data=data)
            line, index = line + lines, index + 1
    if rest:
        yield dataclasses.replace(whole, index=index, first_row=line, rows=1, data=rest + b"\n")
    elif index == 0:
        raise NoRowsError(f"{path}: the file {'is empty' if line == 1 else 'has a header but no rows'}")


def _bytes(path: str, begin: int, end: int) -> bytes:
    with raw_files.open_file(path) as file:
        file.seek(begin)
        return file.read(end - begin)


def _row_text(row: pa.Table) -> str:
    try:
        return str(row.to_pylist()[0])
    except UnicodeDecodeError:
        fields = [f.with_type(pa.binary()) if pa.types.is_string(f.type) else f for f in row.schema]
        return str(row.cast(pa.schema(fields)).to_pylist()[0])
