"""Splits a block of text into columns of bytes, and names every line that is no row."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from tfrs_dlrm.data.raw.sources import RawBlock
from tfrs_dlrm.schema import Schema

# How much of a block the parser splits at a time: pieces that fit the caches of a core take less than half the time.
_PIECE_BYTES = 1 << 20
UNCLOSED = "a quote that is never closed; a value cannot hold a line break"


def read_text(block: RawBlock, schema: Schema) -> tuple[dict[str, pa.Array], np.ndarray, dict[int, tuple[str, str]]]:
    """Splits a block of text into columns.

    Returns:
      The columns that the schema reads, as bytes; int64 [N], the line number of each row; and by number the lines that
      are no rows, as (column, reason).
    """
    data, columns, delimiter, quote = bytes(block.data), block.columns, block.delimiter.encode(), block.quote.encode()
    lines = np.arange(block.first_row, block.first_row + block.rows)
    broken: dict[int, tuple[str, str]] = {}
    parsed = _parse(data, block, schema) if _is_plain(data, delimiter, quote) else None
    if parsed is None or parsed.count != len(lines):
        data, lines, broken = _whole_lines(data, lines, delimiter, quote, len(columns))
        parsed = _parse(data, block, schema)
    if parsed.count != len(lines):
        raise ValueError(
            f"{block.path}: lines {lines[0]} to {lines[-1]}: they cannot be split into rows; look for stray quotes"
        )
    for position, count in parsed.wrong.items():
        broken[int(lines[position])] = ("", f"{count} fields, {len(columns)} are expected")
    good = np.ones(len(lines), bool)
    good[list(parsed.wrong)] = False
    lines = lines[good]
    found = {
        name: pa.repeat(pa.scalar((block.constants[name] or "").encode()), len(lines))
        if name in block.constants
        else parsed.table.column(name).combine_chunks()
        for name in schema.columns
    }
    return found, lines, broken


def _is_plain(data: bytes, delimiter: bytes, quote: bytes) -> bool:
    """Whether the parser can do no worse with these lines than to join some or drop blank ones.

    It ends a line at a lone carriage return, and takes quotes wherever they are. It cannot report a row of the wrong
    length that is no UTF-8. Lines with any of these must be checked one by one.
    """
    if b"\r" in data and data.count(b"\r") != data.count(b"\r\n"):
        return False
    if quote and quote in data and not _well_quoted(data, delimiter, quote):
        return False
    whole = pa.Array.from_buffers(
        pa.binary(), 1, [None, pa.py_buffer(np.array([0, len(data)], np.int32)), pa.py_buffer(data)]
    )
    try:
        whole.cast(pa.string())
    except pa.ArrowInvalid:
        return False
    return True


def _well_quoted(data: bytes, delimiter: bytes, quote: bytes) -> bool:
    """Whether no line is refused because of its quotes; looks at few lines one by one."""
    array = np.frombuffer(b"\n" + data + b"\n", np.uint8)
    at, breaks = np.flatnonzero(array == quote[0]), np.flatnonzero(array == ord("\n"))
    before, after = array[at - 1], array[at + 1]
    begins = (before == delimiter[0]) | (before == ord("\n"))
    ends = (after == delimiter[0]) | (after == ord("\n")) | (after == ord("\r"))
    doubles = np.r_[False, at[1:] == at[:-1] + 1]  # whether it stands right behind another
    opens, closes = begins | doubles, ends | np.r_[doubles[1:], False]
    if opens[::2].all() and closes[1::2].all() and (np.searchsorted(at, breaks) % 2 == 0).all():
        return True
    line = np.searchsorted(breaks, at) - 1
    first = np.flatnonzero(np.r_[True, line[1:] != line[:-1]])  # quote of each line
    counts = np.diff(np.r_[first, len(at)])
    even = (np.arange(len(at)) - np.repeat(first, counts)) % 2 == 0
    odd = (counts % 2 == 1) | ~np.logical_and.reduceat(np.where(even, opens, closes), first)
    # Quotes within fields that do not begin with one are ordinary characters.
    odd &= np.logical_or.reduceat(begins | (before == ord(" ")), first)
    lines = (data[breaks[i] : breaks[i + 1] - 1].removesuffix(b"\r") for i in line[first[odd]])
    return not any(_field_count(text, delimiter, quote)[1] for text in lines)


@dataclasses.dataclass(frozen=True)
class _Parsed:
    """The rows with the right number of fields; by position from 0, how many fields the other rows have."""

    table: pa.Table
    wrong: dict[int, int]

    @property
    def count(self) -> int:
        return self.table.num_rows + len(self.wrong)


def _parse(data: bytes, block: RawBlock, schema: Schema) -> _Parsed:
    try:
        return _parse_pieces(data, block, schema, min(_PIECE_BYTES, len(data) + 1))
    except pa.ArrowInvalid:  # a line is longer than a piece
        return _parse_pieces(data, block, schema, len(data) + 1)


def _parse_pieces(data: bytes, block: RawBlock, schema: Schema, size: int) -> _Parsed:
    wrong: dict[int, int] = {}

    def skip(row: Any) -> str:
        wrong[row.number - 1] = row.actual_columns
        return "skip"

    # One thread, or rows have no numbers; several blocks are read in parallel instead.
    read = pa_csv.ReadOptions(use_threads=False, column_names=list(block.columns), block_size=size)
    wanted = [name for name in schema.columns if name not in block.constants] or [block.columns[0]]
    parse = pa_csv.ParseOptions(delimiter=block.delimiter, quote_char=block.quote or False, invalid_row_handler=skip)
    convert = pa_csv.ConvertOptions(
        include_columns=wanted,
        column_types=dict.fromkeys(wanted, pa.binary()),
        strings_can_be_null=False,
    )
    return _Parsed(pa_csv.read_csv(pa.BufferReader(data), read, parse, convert), wrong)


def _whole_lines(
    data: bytes, lines: np.ndarray, delimiter: bytes, quote: bytes, want: int
) -> tuple[bytes, np.ndarray, dict[int, tuple[str, str]]]:
    """Removes blank lines, and lines that the parser would split, join or not report; returns the latter by number."""
    kept, numbers, broken = [], [], {}
    for number, line in zip(lines, data.split(b"\n"), strict=False):
        line = line.removesuffix(b"\r")
        if not line:
            continue
        count, wrong = _field_count(line, delimiter, quote)
        if b"\r" in line:
            broken[int(number)] = ("", "a carriage return in the middle of the line")
        elif wrong:
            broken[int(number)] = ("", wrong)
        elif count != want and not is_utf8(line):
            broken[int(number)] = ("", f"{count} fields, {want} are expected")
        else:
            kept.append(line)
            numbers.append(number)
    return b"\n".join(kept) + b"\n", np.array(numbers, np.int64), broken


def _field_count(line: bytes, delimiter: bytes, quote: bytes) -> tuple[int, str]:
    """Counts the fields of a line, and says what is wrong with its quotes."""
    if not quote or quote not in line:
        return line.count(delimiter) + 1, ""
    begin = count = 0
    while begin >= 0:
        count += 1
        if line[begin : begin + 1] == quote:
            end = line.find(quote, begin + 1)
            while end >= 0 and line[end + 1 : end + 2] == quote:  # a doubled quote stands for one
                end = line.find(quote, end + 2)
            if end < 0:
                return 0, UNCLOSED
            begin = end
            follows = line[end + 1 :].partition(delimiter)[0]
            if follows.strip():
                return 0, f"text after a closing quote: {follows[:40].decode('utf-8', 'backslashreplace')!r}"
        elif (field := line[begin:].partition(delimiter)[0].strip()).startswith(quote) and field.endswith(quote):
            return 0, "a blank before a quote"
        begin = line.find(delimiter, begin) + 1 or -1
    return count, ""


def is_utf8(value: bytes) -> bool:
    """Whether the bytes are UTF-8."""
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
