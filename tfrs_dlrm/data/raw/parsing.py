"""Converts columns of a block to typed arrays, and names every row that cannot be converted."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfrs_dlrm.data.raw.sources import RawBlock
from tfrs_dlrm.data.raw.text import is_utf8, read_text
from tfrs_dlrm.schema import Schema

# Stands for a missing value in a column of integers.
MISSING_INT = -1
MAX_FLOAT = float(np.finfo(np.float32).max)


@dataclasses.dataclass(frozen=True)
class BadRow:
    """A row that cannot be used: its place, the reason, its content, and whether `row` counts lines or rows."""

    path: str
    row: int
    column: str
    reason: str
    text: str
    unit: str = "line"

    def __str__(self) -> str:
        column = f", column {self.column!r}" if self.column else ""
        return f"{self.path}: {self.unit} {self.row}{column}: {self.reason}"


class BadRowError(ValueError):
    """A malformed row was found, and none may be.

    Args:
      bad: the row.
      mend: what to do, other than to correct it.
    """

    def __init__(self, bad: BadRow, mend: str = "set such rows aside with bad_rows='quarantine'"):
        super().__init__(f"{bad}. Correct it, or {mend}")
        self.bad = bad


def fields(block: RawBlock, schema: Schema) -> tuple[dict[str, pa.Array], np.ndarray, dict[int, tuple[str, str]]]:
    """Returns the columns of a block before any conversion, as bytes for text.

    Returns:
      The columns that the schema reads; int64 [N], the line or row number of each element; and by number the lines
      that are no rows, as (column, reason).
    """
    if isinstance(block.data, bytes):
        return read_text(block, schema)
    columns = {name: _flat(block.data.column(name)) for name in block.columns}
    return columns, block.first_row + np.arange(block.data.num_rows), {}


def _flat(column: pa.ChunkedArray) -> pa.Array:
    """Joins chunks, decodes a dictionary, and turns NaN into null."""
    array = column.combine_chunks()
    array = array.chunk(0) if isinstance(array, pa.ChunkedArray) else array
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    return pc.if_else(pc.is_nan(array), None, array) if pa.types.is_floating(array.type) else array


def is_text(array: pa.Array) -> bool:
    """Whether the elements are strings or bytes."""
    t, types = array.type, pa.types
    kinds = (types.is_string, types.is_large_string, types.is_string_view, types.is_binary, types.is_large_binary)
    return any(kind(t) for kind in (*kinds, types.is_binary_view, types.is_fixed_size_binary))


def is_list(array: pa.Array) -> bool:
    """Whether the elements are lists."""
    t, types = array.type, pa.types
    return any(kind(t) for kind in (types.is_list, types.is_large_list, types.is_fixed_size_list))


class ColumnParser:
    """Converts the columns of one block to arrays, and collects the rows that cannot be converted.

    Attributes:
      path: the file.
      arrays: the columns that the schema reads, as in the file.
      missing: the texts that stand for a missing value.
      lines: int64 [N], the line or row number of each element.
      good: bool [N], which rows have not been refused.
    """

    def __init__(self, block: RawBlock, schema: Schema):
        self.path, self._block, self._schema = block.path, block, schema
        self.arrays, self.lines, self._bad_lines = fields(block, schema)
        self.good = np.ones(len(self.lines), bool)
        self.missing = pa.array(["", *schema.text.missing], pa.string())

    def refuse(self, wrong: np.ndarray, column: str, reason: Callable[[int], str]) -> None:
        """Marks rows as bad; the first reason found for a row is reported."""
        for i in np.flatnonzero(wrong & self.good):
            self._bad_lines[int(self.lines[i])] = (column, reason(int(i)))
        self.good &= ~wrong

    def strings(self, column: str) -> pa.Array:
        """Converts to strings. Bytes that are no UTF-8 are refused and become empty."""
        # From bytes even where Parquet says string: only this cast checks them.
        array = pc.fill_null(self.arrays[column].cast(pa.binary()), b"")
        try:
            array = array.cast(pa.string())
        except pa.ArrowInvalid:
            values = array.to_pylist()
            wrong = np.array([not is_utf8(v) for v in values])
            self.refuse(wrong, column, lambda i: f"invalid UTF-8: {values[i][:40]!r}")
            array = pa.array([b"" if w else v for v, w in zip(values, wrong, strict=True)], pa.binary()).cast(
                pa.string()
            )
        return array

    def stripped(self, column: str) -> pa.Array:
        """Converts to strings, stripped if the schema says so; features are stripped by the encoder."""
        array = self.strings(column)
        return pc.ascii_trim_whitespace(array) if self._schema.text.strip else array

    def number(self, column: str) -> np.ndarray:
        """Converts to float64 [N], NaN where missing. Infinities, and text that is no number, are refused."""
        array = self.arrays[column]
        if not is_text(array):
            values = self.cast(array, pa.float64(), column)
            values = pc.fill_null(values, np.nan).to_numpy(zero_copy_only=False)
            self.refuse(np.abs(values) > MAX_FLOAT, column, lambda i: f"{values[i]} is not a finite float32 number")
            return values
        text = self.stripped(column)
        text = pc.if_else(pc.is_in(text, self.missing), pa.scalar(None, pa.string()), text)
        try:
            numbers = text.cast(pa.float64())
        except pa.ArrowInvalid:
            numbers = pa.array([as_number(t) for t in text.to_pylist()], pa.float64())
        values = pc.fill_null(numbers, np.nan).to_numpy(zero_copy_only=False)
        wrong = ~(np.abs(values) <= MAX_FLOAT) & pc.is_valid(text).to_numpy(zero_copy_only=False)
        self.refuse(wrong, column, lambda i: f"{text[i].as_py()[:40]!r} is not a finite float32 number")
        return values

    def cast(self, array: pa.Array, target: pa.DataType, column: str) -> pa.Array:
        """Casts a column that holds no text.

        Raises:
          ValueError: the type cannot be cast, or a value does not fit.
        """
        try:
            return array.cast(target, safe=not pa.types.is_floating(target))
        except pa.ArrowException as e:
            what = f"a column of type {array.type} cannot be read as {target}"
            if pa.types.is_temporal(array.type):
                what += "; make numbers or texts of it, such as the hour or the weekday"
            raise ValueError(f"{self.path}: column {column!r}: {what}: {e}") from e

    def integers(self, column: str) -> pa.Array:
        """Converts to int64 [N], MISSING_INT where missing. Values that are no whole numbers are refused."""
        array = self.arrays[column]
        if pa.types.is_floating(array.type):  # how pandas writes integers where some are missing
            numbers = self.number(column)
            odd = np.isfinite(numbers) & ((numbers != np.round(numbers)) | (np.abs(numbers) > 2**53))
            self.refuse(odd, column, lambda i: f"{numbers[i]} is not a whole number")
            return pa.array(np.where(np.isfinite(numbers) & ~odd, numbers, MISSING_INT).astype(np.int64))
        if not is_text(array):
            return pc.fill_null(self.cast(array, pa.int64(), column), MISSING_INT)
        text = self.stripped(column)
        text = pc.if_else(pc.is_in(text, self.missing), pa.scalar(str(MISSING_INT)), text)
        whole = pc.match_substring_regex(text, r"^-?[0-9]{1,18}$").to_numpy(zero_copy_only=False)
        if not whole.all():
            reason = "is not a whole number of at most 18 digits"
            self.refuse(~whole, column, lambda i: f"{text[i].as_py()[:40]!r} {reason}")
            text = pc.if_else(pa.array(whole), text, pa.scalar(str(MISSING_INT)))
        return text.cast(pa.int64())

    def bad_rows(self) -> list[BadRow]:
        """Returns the refused rows, in order."""
        if not self._bad_lines:
            return []
        lines = sorted(self._bad_lines)
        texts = self._block.texts(lines)
        unit = self._block.unit
        return [BadRow(self.path, n, *self._bad_lines[n], text, unit) for n, text in zip(lines, texts, strict=True)]


def as_number(text: str | None) -> float | None:
    """Parses a number; None if the text is none. Unlike Python, it refuses `1_000` and digits of other scripts."""
    try:
        return float(text) if text and text.isascii() and "_" not in text else None
    except ValueError:
        return None
