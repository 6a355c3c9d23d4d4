"""The layout of one text file: its columns, and the characters between and around its fields."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Sequence

from tfrs_dlrm.data.raw.file_kinds import FileKind, usual_delimiter
from tfrs_dlrm.data.raw.no_rows import NoRowsError
from tfrs_dlrm.data.raw.partitions import partitions
from tfrs_dlrm.data.raw.unpacking import chunks
from tfrs_dlrm.schema import TextFormat

BOM = b"\xef\xbb\xbf"
DELIMITERS = "\t,;|\x01"  # Hive writes the last
# Texts that stand for a missing value in any column.
MISSING = ("?", "NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "\\N", "#N/A")
_START = 1 << 16  # bytes; so much of a file decides about its layout


@dataclasses.dataclass(frozen=True)
class TextLayout:
    """The layout of one text file.

    Attributes:
      columns: the names of all columns, in order; a column without a name is called `column_` and its number.
      delimiter: the character between fields.
      quote: the character around fields; empty if there is none.
    """

    columns: tuple[str, ...]
    delimiter: str
    quote: str


def usual_quote(delimiter: str) -> str:
    """The quote of fields if a schema does not say it: double quotes, and none between tabs."""
    return "" if delimiter == "\t" else '"'


def layout_of(path: str, kind: FileKind, text: TextFormat, read: Sequence[str], longest: int) -> TextLayout:
    """Returns the layout of a file under a schema.

    Args:
      path: the file.
      kind: its kind.
      text: what the schema says about text files.
      read: the columns that it must have.
      longest: how many bytes line 1 may have.

    Raises:
      NoRowsError: the file is empty.
      ValueError: a column is missing, or header and schema disagree about quotes; the message names the file.
    """
    delimiter = text.delimiter or usual_delimiter(path)
    quote = usual_quote(delimiter) if text.quote is None else text.quote
    lines = first_lines(path, kind, _START, longest)
    if text.quote is None and not quote:
        _check_unquoted(path, lines, delimiter)
    directories = tuple(partitions(path))
    if text.columns:
        check_columns(path, read, text.columns, "; text.columns of the schema lists the columns of files", directories)
        return TextLayout(text.columns, delimiter, quote)
    names = split_header(path, decoded(path, lines[0]), delimiter, quote)
    names = [n.strip() for n in names] if text.strip else names
    names = named(names, [split(line, delimiter, quote) for line in lines[1:]])
    check_columns(path, read, names, _hint(names), directories)
    return TextLayout(tuple(names), delimiter, quote)


def first_lines(path: str, kind: FileKind, size: int, longest: int) -> list[bytes]:
    """Reads the whole lines among the first `size` bytes of a text file, at least one line, without their ends.

    Raises:
      NoRowsError: the file is empty.
      ValueError: the file is damaged, or the first line has more than `longest` bytes.
    """
    pieces, read = list[bytes](), 0
    for piece in chunks(path, kind.packing, kind.encoding, size, lambda _: None):
        pieces.append(piece)
        read += len(piece)
        if b"\n" in piece or read >= longest:
            break
    start = b"".join(pieces)
    if read >= longest and b"\n" not in start[:longest]:
        _check_line_ends(path, start)
        raise ValueError(f"{path}: line 1 is longer than {longest} bytes; is this a text file?")
    if not start:
        raise NoRowsError(f"{path}: the file is empty")
    lines = start.removeprefix(BOM).split(b"\n")
    whole = lines if len(start) < size or len(lines) == 1 else lines[:-1]
    return [line.removesuffix(b"\r") for line in whole]


def decoded(path: str, line: bytes) -> str:
    """Decodes line 1 of a file.

    Raises:
      ValueError: it is no UTF-8, or lines end in carriage returns alone; the message names the file.
    """
    _check_line_ends(path, line)
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as e:
        raise ValueError(
            f"{path}: line 1: invalid UTF-8 in the header: {e}; convert the file, such as by iconv -f LATIN1 -t UTF-8"
        ) from e


def _check_line_ends(path: str, line: bytes) -> None:
    if b"\r" in line.rstrip(b"\r"):
        raise ValueError(f"{path}: lines end in carriage returns alone; convert the file, such as by tr '\\r' '\\n'")


def split_header(path: str, line: str, delimiter: str, quote: str) -> list[str]:
    """Splits line 1 of a file into names.

    Raises:
      ValueError: its quotes are wrong; the message names the file.
    """
    if not line:
        return []
    try:
        return _fields(line, delimiter, quote)
    except csv.Error as e:  # such as a field of 128 KB
        raise ValueError(f"{path}: line 1: no list of fields: {line[:40]!r}...: {e}") from e


def split(line: bytes, delimiter: str, quote: str) -> list[str]:
    """Splits a line into fields; a line whose quotes are wrong has none."""
    try:
        return _fields(line.decode("utf-8", "replace"), delimiter, quote) if line else []
    except csv.Error:
        return []


def _fields(line: str, delimiter: str, quote: str) -> list[str]:
    if not quote:
        return line.split(delimiter)
    return next(csv.reader(io.StringIO(line, newline=""), delimiter=delimiter, quotechar=quote, strict=True), [])


def named(names: Sequence[str], rows: Sequence[Sequence[str]] = ()) -> list[str]:
    """Names the columns of a file that have no name `column_` and their number.

    Rows may have one field more than the header: a last one that is always empty, or as R writes it, a first one that
    counts the rows.

    Args:
      names: the fields of the header.
      rows: the fields of the first lines after it.
    """
    names, rows = list(names), [row for row in rows if row]
    if rows and all(len(row) == len(names) + 1 for row in rows):
        if not any(row[-1] for row in rows):
            names = [*names, ""]
        elif [row[0] for row in rows] == [str(i) for i in range(1, len(rows) + 1)]:
            names = ["", *names]
    for i, name in enumerate(names):
        if not name.strip():
            names[i] = f"column_{i + 1}"
            while names.count(names[i]) > 1:
                names[i] += "_"
    return names


def is_enclosed(field: str, quote: str = '"') -> bool:
    """Whether a field stands in quotes, and those within are doubled."""
    return len(field) > 1 and field[0] == field[-1] == quote and quote not in field[1:-1].replace(2 * quote, "")


def is_number(text: str) -> bool:
    """Whether a text is a number, or empty."""
    if not text.isascii() or "_" in text:
        return False
    try:
        return not text or float(text) is not None
    except ValueError:
        return False


def _check_unquoted(path: str, lines: Sequence[bytes], delimiter: str) -> None:
    """Refuses a file in which texts stand in quotes, if the schema does not say whether they belong to them."""
    rows = [split(line, delimiter, "") for line in lines]
    if stand_in_quotes(rows):
        example = next(field for row in rows for field in row if is_enclosed(field))
        raise ValueError(
            f"{path}: its texts stand in quotes, such as {example[:40]}, but the schema does not say what they mean:"
            ' set "text": {"quote": "\\""} to take them off, or {"quote": ""} to keep them'
        )


def stand_in_quotes(rows: Sequence[Sequence[str]]) -> bool:
    """Whether quotes belong to the layout, not to the values: in each column all values have them, or none.

    Writers put quotes around columns of texts and leave numbers, truth values and times without. So the names in line 1
    have them all, or each as its column.

    Args:
      rows: the fields of the first lines, with their quotes.
    """
    width = len(rows[0]) if rows else 0
    rows = [row for row in rows if len(row) == width]
    fields = [field for row in rows for field in row if field]
    if any(field.startswith('"') and not is_enclosed(field) for field in fields):
        return False
    names = {is_enclosed(name) for name in rows[0] if name} if rows else set()
    body = rows[1:] if len(names) == 1 else rows
    for column in zip(*body, strict=True):
        if len({is_enclosed(value) for value in column if value and value not in MISSING}) > 1:
            return False
    return sum(map(is_enclosed, fields)) > 1


def _hint(names: Sequence[str]) -> str:
    """What to do if the columns of a header are not those that a schema reads."""
    if len(names) == 1 and (other := next((d for d in DELIMITERS if d in names[0]), "")):
        said = f'"text": {{"delimiter": {json.dumps(other)}}}'
        return f"; if {other!r} separates its columns, say so in the schema: {said}"
    if names and all(is_enclosed(name) for name in names):
        said = f'"text": {{"quote": {json.dumps(chr(34))}}}'
        return f"; if the quotes do not belong to the names, say so in the schema: {said}"
    return "; if the file has no header line, list its columns in text.columns of the schema"


def check_columns(
    path: str, columns: Sequence[str], names: Sequence[str], hint: str, directories: Sequence[str] = ()
) -> None:
    """Checks that a file or frame has the columns that a schema reads, each once.

    Args:
      path: the file or frame.
      columns: which it must have.
      names: which it has.
      hint: what to do if one is missing.
      directories: columns in the names of its directories.

    Raises:
      ValueError: a column is missing, or occurs several times.
    """
    missing = [name for name in columns if name not in names and name not in directories]
    if missing:
        shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
        raise ValueError(f"{path}: no column {', '.join(map(repr, missing))}; it has: {shown[:500]}{hint}")
    for name in columns:
        if names.count(name) > 1:
            raise ValueError(f"{path}: column {name!r} occurs {names.count(name)} times; give each column another name")
