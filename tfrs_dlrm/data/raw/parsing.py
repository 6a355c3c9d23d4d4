"""Converts columns of a block to typed arrays, and names every row that cannot be converted."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfrs_dlrm.data.raw.notations import plain_numbers
from tfrs_dlrm.data.raw.number_lists import number_lists
from tfrs_dlrm.data.raw.sources import RawBlock
from tfrs_dlrm.data.raw.text import is_utf8, read_text
from tfrs_dlrm.data.raw.time_values import is_temporal, no_times, written_as
from tfrs_dlrm.data.raw.typed_values import is_text, not_whole, texts, whole_numbers
from tfrs_dlrm.data.raw.values import as_number, as_whole
from tfrs_dlrm.schema import Notation, Schema, Time

# Stands for a missing value in a column of integers.
MISSING_INT = -1
MAX_FLOAT = float(np.finfo(np.float32).max)

Converter = Callable[[pa.Array], tuple[pa.Array, np.ndarray]]


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
    """Joins chunks, and makes the array plain."""
    array = column.combine_chunks()
    return _plain(array.chunk(0) if isinstance(array, pa.ChunkedArray) else array)


def _plain(array: pa.Array) -> pa.Array:
    """Decodes a dictionary, and turns NaN into null."""
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    return pc.if_else(pc.is_nan(array), None, array) if pa.types.is_floating(array.type) else array


def is_list(array: pa.Array) -> bool:
    """Whether the elements are lists."""
    t, types = array.type, pa.types
    return any(kind(t) for kind in (types.is_list, types.is_large_list, types.is_fixed_size_list))


def _large_lists(array: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """Returns lists as those of one type, and the length of each, 0 where missing."""
    array = array.cast(pa.large_list(array.type.value_type))
    return array, pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)


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
        numbers = map(as_number, schema.text.missing)
        self._missing_numbers = [n for n in numbers if n is not None and np.isfinite(n)]
        whole = [n for n in map(as_whole, schema.text.missing) if n is not None]
        self._missing_whole = pa.array(whole, pa.int64())

    def refuse(self, wrong: np.ndarray, column: str, reason: Callable[[int], str]) -> None:
        """Marks rows as bad; the first reason found for a row is reported."""
        for i in np.flatnonzero(wrong & self.good):
            self._bad_lines[int(self.lines[i])] = (column, reason(int(i)))
        self.good &= ~wrong

    def strings(self, column: str) -> pa.Array:
        """Converts text to strings, empty where missing. Bytes that are no UTF-8 are refused and become empty."""
        return self._decoded(self.arrays[column], column)

    def _decoded(self, array: pa.Array, column: str, rows: np.ndarray | None = None) -> pa.Array:
        # From bytes even where Parquet says string: only this cast checks them.
        array = pc.fill_null(array.cast(pa.binary()), b"")
        try:
            return array.cast(pa.string())
        except pa.ArrowInvalid:
            values = array.to_pylist()
            wrong = np.array([not is_utf8(v) for v in values])
            self._refuse_items(wrong, column, lambda i: f"invalid UTF-8: {values[i][:40]!r}", rows)
            good = [b"" if w else v for v, w in zip(values, wrong, strict=True)]
            return pa.array(good, pa.binary()).cast(pa.string())

    def stripped(self, column: str) -> pa.Array:
        """Converts to strings, stripped if the schema says so; features are stripped by the encoder."""
        array = self.strings(column)
        return pc.ascii_trim_whitespace(array) if self._schema.text.strip else array

    def number(self, column: str) -> np.ndarray:
        """Converts to float64 [N], NaN where missing. Infinities, and text that is no number, are refused."""
        array = self.arrays[column]
        return self._numbers(self.stripped(column) if is_text(array) else array, column)

    def _numbers(self, array: pa.Array, column: str, rows: np.ndarray | None = None) -> np.ndarray:
        """Converts as `number` does; `rows` are those of the items of lists."""
        if not is_text(array):
            values = self.cast(array, pa.float64(), column)
            values = self._present(pc.fill_null(values, np.nan).to_numpy(zero_copy_only=False))
            wrong = np.abs(values) > MAX_FLOAT
            self._refuse_items(wrong, column, lambda i: f"{values[i]} is not a finite float32 number", rows)
            return values
        text = self._without_missing(array)
        notation = self._schema.notations.get(column, Notation())
        plain = plain_numbers(text, notation)
        try:
            numbers = plain.cast(pa.float64())
        except pa.ArrowInvalid:
            numbers = pa.array([as_number(t) for t in plain.to_pylist()], pa.float64())
        values = pc.fill_null(numbers, np.nan).to_numpy(zero_copy_only=False)
        wrong = ~(np.abs(values) <= MAX_FLOAT) & pc.is_valid(text).to_numpy(zero_copy_only=False)
        written = "" if notation == Notation() else f" with {dataclasses.asdict(notation)}"

        def reason(i: int) -> str:
            return f"{text[i].as_py()[:40]!r} is not a finite float32 number{written}"

        self._refuse_items(wrong, column, reason, rows)
        return self._present(values)

    def vectors(self, column: str, size: int, separator: str | None) -> pa.Array:
        """Converts lists of numbers, or their text, to fixed-size lists of float32, NaN where missing.

        Lists of another length are refused. No list, or an empty one, is a vector of NaN.
        """
        array = self.arrays[column]
        values = np.full((len(array), size), np.nan, np.float32)
        if is_text(array):
            array = number_lists(self._without_missing(self.strings(column)), separator or ",")
        elif pa.types.is_null(array.type):
            array = array.cast(pa.list_(pa.float32()))
        elif not is_list(array):
            what = f"a column of type {array.type} has no vectors of {size} numbers; drop size, or give a list column"
            raise ValueError(f"{self.path}: column {column!r}: {what}")
        array, counts = _large_lists(array)
        wrong = (counts != size) & (counts != 0)
        self.refuse(wrong, column, lambda i: f"a vector of {counts[i]} numbers; by the schema its size is {size}")
        items, rows = _plain(array.flatten()), np.repeat(np.arange(len(array)), counts)
        if is_text(items):
            items = pc.utf8_trim_whitespace(self._decoded(items, column, rows))
        with np.errstate(over="ignore"):  # those rows are refused
            numbers = self._numbers(items, column, rows).astype(np.float32)
        values[counts == size] = numbers[(counts == size)[rows]].reshape(-1, size)
        return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), size)

    def _without_missing(self, text: pa.Array) -> pa.Array:
        return pc.if_else(pc.is_in(text, self.missing), pa.scalar(None, pa.string()), text)

    def _present(self, values: np.ndarray) -> np.ndarray:
        """Turns numbers that stand for a missing value into NaN: a typed column has 999 where text has `999`."""
        return np.where(np.isin(values, self._missing_numbers), np.nan, values) if self._missing_numbers else values

    def cast(self, array: pa.Array, target: pa.DataType, column: str) -> pa.Array:
        """Casts a column that holds no text.

        Raises:
          ValueError: the type cannot be cast, or a value does not fit.
        """
        try:
            return array.cast(target, safe=not pa.types.is_floating(target))
        except pa.ArrowException as e:
            what = f"a column of type {array.type} cannot be read as {target}: {e}"
            raise self._wrong_type(column, array.type, what) from e

    def _wrong_type(self, column: str, kind: pa.DataType, what: str) -> ValueError:
        hint = (
            '; list it under categorical with its parts, such as "time": {"parts": ["hour", "weekday"]}'
            if pa.types.is_temporal(kind)
            else ""
        )
        return ValueError(f"{self.path}: column {column!r}: {what}{hint}")

    def integers(self, column: str) -> pa.Array:
        """Converts to int64 [N], MISSING_INT where missing. Values that are no whole numbers are refused."""
        array = self.arrays[column]
        array = self._without_missing(self.stripped(column)) if is_text(array) else array
        values = self._converted(whole_numbers, array, column)
        if len(self._missing_whole):
            values = pc.if_else(pc.is_in(values, self._missing_whole), MISSING_INT, values)
        return pc.fill_null(values, MISSING_INT)

    def times(self, column: str, time: Time) -> pa.Array:
        """Converts to times as the schema writes them: strings, empty where missing, or int64, MISSING_INT there.

        What is no time is refused. Dates and timestamps of any type become such a text or number.
        """
        array = self.arrays[column]
        if is_temporal(array.type):
            written = written_as(array, time)
            return pc.fill_null(written, MISSING_INT if time.is_epoch else "")
        if time.is_epoch:
            return self._epochs(column, array)
        text = self.strings(column) if is_text(array) else pc.fill_null(self._converted(texts, array, column), "")
        if pa.types.is_integer(array.type) and time.width:
            text = pc.if_else(pc.equal(text, ""), text, pc.utf8_lpad(text, time.width, "0"))
        stripped = pc.ascii_trim_whitespace(text) if self._schema.text.strip else text
        wrong = no_times(self._without_missing(stripped), time)
        self.refuse(wrong, column, lambda i: f"{text[i].as_py()[:40]!r} is no time in the format {time.format!r}")
        return text

    def _epochs(self, column: str, array: pa.Array) -> pa.Array:
        """Converts numbers to whole ones; a fraction of a second is dropped."""
        if pa.types.is_floating(array.type) or (is_text(array) and pc.any(pc.match_substring(array, ".")).as_py()):
            numbers = np.floor(self.number(column))
            too_large = np.abs(numbers) >= 2.0**63
            self.refuse(too_large, column, lambda i: f"{numbers[i]:g} is no time")
            present = np.isfinite(numbers) & ~too_large
            return pa.array(np.where(present, np.where(present, numbers, 0).astype(np.int64), MISSING_INT))
        return self.integers(column)

    def texts(self, column: str) -> pa.Array:
        """Converts to strings, empty where missing, as `strings` does; numbers and booleans as `values.texts` does."""
        array = self.arrays[column]
        return self.strings(column) if is_text(array) else pc.fill_null(self._converted(texts, array, column), "")

    def lists(self, column: str, of_text: bool) -> pa.Array:
        """Converts lists to lists of strings or int64, with null for missing lists. A wrong value refuses its row."""
        array = self.arrays[column]
        if pa.types.is_null(array.type):
            return array.cast(pa.list_(pa.string() if of_text else pa.int64()))
        array, counts = _large_lists(array)
        # Not `list_parent_indices`, which counts the values behind a missing list of a fixed size.
        items, rows = _plain(array.flatten()), np.repeat(np.arange(len(array)), counts)
        if is_text(items):
            items = self._decoded(items, column, rows)
        if not (of_text and is_text(items)):
            items = self._converted(texts if of_text else whole_numbers, items, column, rows)
        offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32())
        return pa.ListArray.from_arrays(offsets, items, mask=pc.is_null(array))

    def _converted(self, convert: Converter, array: pa.Array, column: str, rows: np.ndarray | None = None) -> pa.Array:
        """Converts an array, and refuses the rows with values that cannot be; `rows` are those of list items."""
        try:
            values, wrong = convert(array)
        except ValueError as e:
            raise self._wrong_type(column, array.type, str(e)) from e
        self._refuse_items(wrong, column, lambda i: not_whole(array[i].as_py(), array.type), rows)
        return values

    def _refuse_items(
        self, wrong: np.ndarray, column: str, reason: Callable[[int], str], rows: np.ndarray | None
    ) -> None:
        if rows is None:
            self.refuse(wrong, column, reason)
            return
        first = {int(rows[i]): int(i) for i in np.flatnonzero(wrong)[::-1]}
        flags = np.zeros(len(self.lines), bool)
        flags[list(first)] = True
        self.refuse(flags, column, lambda row: reason(first[row]))

    def are_missing(self, values: pa.Array) -> np.ndarray:
        """Returns which floats, int64 or strings, as converted here, stand for a missing value, bool [N]."""
        if pa.types.is_string(values.type):
            text = pc.ascii_trim_whitespace(values) if self._schema.text.strip else values
            return np.asarray(pc.is_in(text, self.missing).to_numpy(zero_copy_only=False))
        numbers = values.to_numpy(zero_copy_only=False)
        return np.isnan(numbers) if pa.types.is_floating(values.type) else numbers == MISSING_INT

    def bad_rows(self) -> list[BadRow]:
        """Returns the refused rows, in order."""
        if not self._bad_lines:
            return []
        lines = sorted(self._bad_lines)
        texts = self._block.texts(lines)
        unit = self._block.unit
        return [BadRow(self.path, n, *self._bad_lines[n], text, unit) for n, text in zip(lines, texts, strict=True)]
