"""A block of raw text or Parquet as typed columns, with every row that cannot be read named and set aside."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from tfrs_dlrm.data.sources import Block
from tfrs_dlrm.schema import CategoricalFeature, Label, Schema

# What a missing value is in a column of integers.
MISSING_INT = -1


@dataclasses.dataclass(frozen=True)
class BadRow:
    """A row that cannot be used: where it is, what is wrong, and what it holds."""

    path: str
    row: int
    column: str
    reason: str
    text: str

    def __str__(self) -> str:
        column = f", column {self.column!r}" if self.column else ""
        return f"{self.path}: line {self.row}{column}: {self.reason}"


class BadRowError(ValueError):
    """A malformed row where malformed rows are errors."""

    def __init__(self, bad: BadRow):
        super().__init__(f"{bad}. Mend it, or set such rows aside with bad_rows='quarantine'")
        self.bad = bad


@dataclasses.dataclass
class Rows:
    """The readable rows of a block, raw but typed.

    Attributes:
      numbers: int64 [N], the line (text) or row (Parquet) of each, from 1.
      label: float32 [N], 0 or 1.
      weight: float32 [N], or None where the schema names no weight column.
      dense: float32 [N, len(schema.dense)], NaN where missing.
      categorical: by feature name: Arrow string or int64 arrays, or lists of them for list columns.
      value_weights: by feature name, for weighted multi-valued features: strings, or lists of floats.
      bad: the rows left out, by position in the block.
    """

    numbers: np.ndarray
    label: np.ndarray
    weight: np.ndarray | None
    dense: np.ndarray
    categorical: dict[str, pa.Array]
    value_weights: dict[str, pa.Array]
    bad: list[BadRow]

    def __len__(self) -> int:
        return len(self.numbers)

    def take(self, keep: np.ndarray) -> Rows:
        """The rows where `keep`, bool [N], is true."""
        mask = pa.array(keep)
        return Rows(
            self.numbers[keep],
            self.label[keep],
            None if self.weight is None else self.weight[keep],
            self.dense[keep],
            {k: v.filter(mask) for k, v in self.categorical.items()},
            {k: v.filter(mask) for k, v in self.value_weights.items()},
            self.bad,
        )


def parse(block: Block, schema: Schema) -> Rows:
    """Reads a block.

    Raises:
      ValueError: naming file and column, where a whole Parquet column has a type that cannot hold what the schema says.
    """
    if isinstance(block.data, bytes):
        columns, lines, bad = _read_text(block, schema)
    else:
        columns = {name: _flat(block.data.column(name)) for name in schema.columns}
        lines, bad = block.first_row + np.arange(block.data.num_rows), {}
    return _Reader(block, schema, columns, lines, bad).rows()


# ---- text into columns of strings ------------------------------------------------------------------------------------


def _read_text(block: Block, schema: Schema) -> tuple[dict[str, pa.Array], np.ndarray, dict[int, tuple[str, str]]]:
    """Columns of bytes, the line number of each row, and the lines that are no rows: {line: (column, reason)}."""
    data = block.data
    lines = np.arange(block.first_row, block.first_row + data.count(b"\n"))
    table, wrong = _read_csv(data, block, schema)
    if table.num_rows + len(wrong) != len(lines):
        data, lines, broken = _whole_lines(data, lines, block.delimiter)
        table, wrong = _read_csv(data, block, schema)
    else:
        broken = {}
    if table.num_rows + len(wrong) != len(lines):
        raise ValueError(f"{block.path}: lines {lines[0]} to {lines[-1]}: a line break inside a field")
    want = len(block.columns)
    bad = {int(lines[i - 1]): ("", f"{n} fields, {want} are expected") for i, n in wrong.items()}
    good = np.ones(len(lines), bool)
    good[[i - 1 for i in wrong]] = False
    return {name: _flat(table.column(name)) for name in schema.columns}, lines[good], {**broken, **bad}


def _read_csv(data: bytes, block: Block, schema: Schema) -> tuple[pa.Table, dict[int, int]]:
    """The rows with the right number of fields, and the number of fields of the others by position from 1."""
    wrong: dict[int, int] = {}

    def skip(row: Any) -> str:
        wrong[row.number] = row.actual_columns
        return "skip"

    table = pa_csv.read_csv(
        pa.BufferReader(data),
        # One thread, or rows have no numbers; blocks are read side by side instead.
        pa_csv.ReadOptions(use_threads=False, column_names=list(block.columns), block_size=len(data) + 1),
        pa_csv.ParseOptions(
            delimiter=block.delimiter,
            quote_char='"' if block.delimiter == "," else False,
            invalid_row_handler=skip,
        ),
        pa_csv.ConvertOptions(
            include_columns=list(schema.columns),
            column_types={name: pa.binary() for name in schema.columns},
            strings_can_be_null=False,
        ),
    )
    return table, wrong


def _whole_lines(
    data: bytes, lines: np.ndarray, delimiter: str
) -> tuple[bytes, np.ndarray, dict[int, tuple[str, str]]]:
    """Without blank lines, and without those that a parser would split or join: {line: (column, reason)}."""
    kept, numbers, broken = [], [], {}
    for number, line in zip(lines, data.split(b"\n"), strict=False):
        line = line.removesuffix(b"\r")
        if not line:
            continue
        if b"\r" in line:
            broken[int(number)] = ("", "a carriage return in the middle of the line")
        elif delimiter == "," and line.count(b'"') % 2 and _is_unclosed(line, delimiter):
            broken[int(number)] = ("", "a quote that is never closed")
        else:
            kept.append(line)
            numbers.append(number)
    return b"\n".join(kept) + b"\n" if kept else b"", np.array(numbers, np.int64), broken


def _is_unclosed(line: bytes, delimiter: str) -> bool:
    try:
        next(csv.reader([line.decode("latin-1")], delimiter=delimiter, strict=True))
    except csv.Error:
        return True
    return False


# ---- columns of strings into typed columns ---------------------------------------------------------------------------


def _flat(column: pa.ChunkedArray) -> pa.Array:
    array = column.combine_chunks()
    array = array.chunk(0) if isinstance(array, pa.ChunkedArray) else array
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def _is_text(array: pa.Array) -> bool:
    t = array.type
    return pa.types.is_binary(t) or pa.types.is_string(t) or pa.types.is_large_string(t) or pa.types.is_large_binary(t)


def _is_list(array: pa.Array) -> bool:
    return pa.types.is_list(array.type) or pa.types.is_large_list(array.type)


class _Reader:
    """Converts the columns of one block, collecting the rows that do not convert."""

    def __init__(
        self,
        block: Block,
        schema: Schema,
        columns: Mapping[str, pa.Array],
        lines: np.ndarray,
        bad_lines: Mapping[int, tuple[str, str]],
    ):
        self.block, self.schema, self.columns, self.lines = block, schema, columns, lines
        self.bad_lines = dict(bad_lines)
        self.good = np.ones(len(lines), bool)
        self.missing = pa.array(["", *schema.text.missing], pa.string())

    def rows(self) -> Rows:
        schema = self.schema
        label = self._label(schema.label)
        weight = self._weight() if schema.weight else None
        dense = np.empty((len(self.lines), len(schema.dense)), np.float32)
        for i, f in enumerate(schema.dense):
            dense[:, i] = self._number(f.column)
            if f.fill_value is None:
                self._refuse(np.isnan(dense[:, i]), f.column, lambda _: "missing, and fill_value is null")
        categorical = {f.name: self._values(f) for f in schema.categorical}
        weights = {f.name: self._value_weights(f, categorical[f.name]) for f in schema.multi_hot if f.weights}
        rows = Rows(self.lines, label, weight, dense, categorical, weights, self._bad_rows())
        return rows if self.good.all() else rows.take(self.good)

    def _refuse(self, wrong: np.ndarray, column: str, reason: Callable[[int], str]) -> None:
        """Marks rows as bad; the first reason found for a row is the one reported."""
        for i in np.flatnonzero(wrong & self.good):
            self.bad_lines[int(self.lines[i])] = (column, reason(int(i)))
        self.good &= ~wrong

    def _strings(self, column: str) -> pa.Array:
        """UTF-8 strings; what is no UTF-8 is refused and becomes empty."""
        array = pc.fill_null(self.columns[column], b"" if pa.types.is_binary(self.columns[column].type) else "")
        try:
            array = array.cast(pa.string())
        except pa.ArrowInvalid:
            values = array.to_pylist()
            wrong = np.array([not _is_utf8(v) for v in values])
            self._refuse(wrong, column, lambda i: f"invalid UTF-8: {values[i][:40]!r}")
            array = pa.array([b"" if w else v for v, w in zip(values, wrong, strict=True)], pa.binary()).cast(
                pa.string()
            )
        return array

    def _stripped(self, column: str) -> pa.Array:
        """Strings without blanks around them where the schema says so; features are stripped by the encoder."""
        array = self._strings(column)
        return pc.ascii_trim_whitespace(array) if self.schema.text.strip else array

    def _number(self, column: str) -> np.ndarray:
        """float64 [N], NaN where missing. Text that is no number and infinities are refused."""
        array = self.columns[column]
        if not _is_text(array):
            values = self._cast(array, pa.float64(), column)
            values = pc.fill_null(values, np.nan).to_numpy(zero_copy_only=False)
            self._refuse(np.isinf(values), column, lambda i: f"{values[i]} is not a finite number")
            return values
        text = self._stripped(column)
        text = pc.if_else(pc.is_in(text, self.missing), pa.scalar(None, pa.string()), text)
        try:
            numbers = text.cast(pa.float64())
        except pa.ArrowInvalid:
            numbers = pa.array([_as_float(t) for t in text.to_pylist()], pa.float64())
        values = pc.fill_null(numbers, np.nan).to_numpy(zero_copy_only=False)
        wrong = ~np.isfinite(values) & pc.is_valid(text).to_numpy(zero_copy_only=False)
        self._refuse(wrong, column, lambda i: f"{text[i].as_py()[:40]!r} is not a finite number")
        return values

    def _cast(self, array: pa.Array, target: pa.DataType, column: str) -> pa.Array:
        try:
            return array.cast(target, safe=not pa.types.is_floating(target))
        except pa.ArrowException as e:
            what = f"a column of type {array.type} cannot be read as {target}"
            raise ValueError(f"{self.block.path}: column {column!r}: {what}: {e}") from e

    def _label(self, label: Label) -> np.ndarray:
        if label.positive:
            column = self.columns[label.column]
            text = self._stripped(label.column) if _is_text(column) else self._cast(column, pa.string(), label.column)
            positive = pc.is_in(text, pa.array(label.positive, pa.string())).to_numpy(zero_copy_only=False)
            negative = pc.is_in(text, pa.array(label.negative, pa.string())).to_numpy(zero_copy_only=False)
            known = ", ".join(map(repr, [*label.positive, *label.negative]))
            wrong = ~(positive | negative)
            self._refuse(wrong, label.column, lambda i: f"label {text[i].as_py()!r} is none of {known}")
            return positive.astype(np.float32)
        values = self._number(label.column)
        self._refuse(np.isnan(values), label.column, lambda _: "the label is missing")
        if label.threshold is not None:
            return (values >= label.threshold).astype(np.float32)
        self._refuse((values != 0) & (values != 1), label.column, lambda i: f"label {values[i]:g} is neither 0 nor 1")
        return values.astype(np.float32)

    def _weight(self) -> np.ndarray:
        column = str(self.schema.weight)
        values = self._number(column)
        self._refuse(np.isnan(values), column, lambda _: "the weight is missing")
        self._refuse(values < 0, column, lambda i: f"weight {values[i]:g} is negative")
        return values.astype(np.float32)

    def _values(self, f: CategoricalFeature) -> pa.Array:
        array = self.columns[f.column]
        if f.multi_valued and f.separator is None:
            if not _is_list(array):
                what = "its values are no lists; give the separator between them, or drop multi_valued"
                raise ValueError(f"{self.block.path}: column {f.column!r} of feature {f.name!r}: {what}")
            item = pa.int64() if f.dtype == "int64" else pa.string()
            return self._cast(array, pa.list_(item), f.column)
        if _is_list(array):
            what = "its values are lists; set multi_valued=true"
            raise ValueError(f"{self.block.path}: column {f.column!r} of feature {f.name!r}: {what}")
        if f.dtype == "int64" and f.separator is None:
            return self._integers(f.column)
        return (
            self._strings(f.column) if _is_text(array) else pc.fill_null(self._cast(array, pa.string(), f.column), "")
        )

    def _integers(self, column: str) -> pa.Array:
        array = self.columns[column]
        if not _is_text(array):
            return pc.fill_null(self._cast(array, pa.int64(), column), MISSING_INT)
        text = self._stripped(column)
        text = pc.if_else(pc.is_in(text, self.missing), pa.scalar(str(MISSING_INT)), text)
        whole = pc.match_substring_regex(text, r"^-?[0-9]{1,18}$").to_numpy(zero_copy_only=False)
        if not whole.all():
            self._refuse(~whole, column, lambda i: f"{text[i].as_py()[:40]!r} is not a whole number")
            text = pc.if_else(pa.array(whole), text, pa.scalar(str(MISSING_INT)))
        return text.cast(pa.int64())

    def _value_weights(self, f: CategoricalFeature, values: pa.Array) -> pa.Array:
        """One finite weight per value, as text where the values are text."""
        column = str(f.weights)
        if f.separator is None:
            weights = self._cast(self.columns[column], pa.list_(pa.float32()), column)
            items, numbers = values.to_pylist(), weights.to_pylist()
        else:
            weights = self._strings(column)
            items = [v.split(f.separator) if v else [] for v in values.to_pylist()]
            numbers = [[_as_float(w) for w in v.split(f.separator)] if v else [] for v in weights.to_pylist()]
        counts = [(len(i or ()), len(n or ())) for i, n in zip(items, numbers, strict=True)]
        unequal = np.array([a != b for a, b in counts], bool)
        self._refuse(unequal, column, lambda i: f"{counts[i][1]} weights for {counts[i][0]} values")
        wrong = np.array([any(w is None or not np.isfinite(w) for w in n or ()) for n in numbers], bool)
        self._refuse(wrong, column, lambda i: f"the weights {numbers[i]!r} are not all finite numbers")
        return weights

    def _bad_rows(self) -> list[BadRow]:
        if not self.bad_lines:
            return []
        lines = sorted(self.bad_lines)
        texts = self.block.texts(lines)
        return [BadRow(self.block.path, n, *self.bad_lines[n], text) for n, text in zip(lines, texts, strict=True)]


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _as_float(text: str | None) -> float | None:
    try:
        return float(text or "")
    except ValueError:
        return None
