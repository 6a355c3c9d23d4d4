"""A block of raw text or Parquet as typed columns, with every row that cannot be read named and set aside."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfrs_dlrm.data.raw.sources import RawBlock, is_parquet
from tfrs_dlrm.data.raw.text import is_utf8, read_text
from tfrs_dlrm.schema import CategoricalFeature, Label, Schema

# What a missing value is in a column of integers.
MISSING_INT = -1
_MAX_FLOAT = float(np.finfo(np.float32).max)


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
        return f"{self.path}: {'row' if is_parquet(self.path) else 'line'} {self.row}{column}: {self.reason}"


class BadRowError(ValueError):
    """A malformed row where malformed rows are errors."""

    def __init__(self, bad: BadRow):
        super().__init__(f"{bad}. Mend it, or set such rows aside with bad_rows='quarantine'")
        self.bad = bad


@dataclasses.dataclass
class TypedRows:
    """The readable rows of a block, raw but typed.

    Attributes:
      numbers: int64 [N], the line (text) or row (Parquet) of each, from 1.
      label: float32 [N], 0 or 1; of a regression any finite number.
      weight: float32 [N], or None where the schema names no weight column.
      dense: float32 [N, len(schema.dense)], NaN where missing.
      categorical: by feature name: Arrow string or int64 arrays, or lists of them for list columns.
      value_weights: by feature name, for weighted multi-valued features: strings, or lists of floats.
      bad: the rows left out, by position in the block.
      more_labels: by name, float32 [N] like `label`, NaN where missing.
    """

    numbers: np.ndarray
    label: np.ndarray
    weight: np.ndarray | None
    dense: np.ndarray
    categorical: dict[str, pa.Array]
    value_weights: dict[str, pa.Array]
    bad: list[BadRow]
    more_labels: dict[str, np.ndarray]

    @property
    def labels(self) -> np.ndarray:
        """Float32 [N, len(schema.labels)]."""
        return np.stack([self.label, *self.more_labels.values()], axis=1)

    def __len__(self) -> int:
        return len(self.numbers)

    def take(self, keep: np.ndarray) -> TypedRows:
        """The rows where `keep`, bool [N], is true."""
        mask = pa.array(keep)
        return TypedRows(
            self.numbers[keep],
            self.label[keep],
            None if self.weight is None else self.weight[keep],
            self.dense[keep],
            {k: v.filter(mask) for k, v in self.categorical.items()},
            {k: v.filter(mask) for k, v in self.value_weights.items()},
            self.bad,
            {k: v[keep] for k, v in self.more_labels.items()},
        )


def parse(block: RawBlock, schema: Schema) -> TypedRows:
    """Reads a block.

    Raises:
      ValueError: naming file and column, where a whole Parquet column has a type that cannot hold what the schema says.
    """
    return _Reader(block, schema, *fields(block, schema)).rows()


def fields(block: RawBlock, schema: Schema) -> tuple[dict[str, pa.Array], np.ndarray, dict[int, tuple[str, str]]]:
    """The columns of a block as they are, bytes for text, before any conversion.

    Returns:
      The columns that the schema reads; int64 [N], the line or row of each element; and the lines that are no rows, by
      their number, as (column, reason).
    """
    if isinstance(block.data, bytes):
        return read_text(block, schema)
    columns = {name: _flat(block.data.column(name)) for name in schema.columns}
    return columns, block.first_row + np.arange(block.data.num_rows), {}


def _flat(column: pa.ChunkedArray) -> pa.Array:
    """One array without dictionary, null where a float is NaN."""
    array = column.combine_chunks()
    array = array.chunk(0) if isinstance(array, pa.ChunkedArray) else array
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    return pc.if_else(pc.is_nan(array), None, array) if pa.types.is_floating(array.type) else array


def _is_text(array: pa.Array) -> bool:
    t, types = array.type, pa.types
    kinds = (types.is_string, types.is_large_string, types.is_string_view, types.is_binary, types.is_large_binary)
    return any(kind(t) for kind in (*kinds, types.is_binary_view, types.is_fixed_size_binary))


def _is_list(array: pa.Array) -> bool:
    t, types = array.type, pa.types
    return any(kind(t) for kind in (types.is_list, types.is_large_list, types.is_fixed_size_list))


class _Reader:
    """Converts the columns of one block, collecting the rows that do not convert."""

    def __init__(
        self,
        block: RawBlock,
        schema: Schema,
        columns: Mapping[str, pa.Array],
        lines: np.ndarray,
        bad_lines: Mapping[int, tuple[str, str]],
    ):
        self.block, self.schema, self.columns, self.lines = block, schema, columns, lines
        self.bad_lines = dict(bad_lines)
        self.good = np.ones(len(lines), bool)
        self.missing = pa.array(["", *schema.text.missing], pa.string())

    def rows(self) -> TypedRows:
        schema = self.schema
        label = self._label(schema.label)
        more_labels = {x.name: self._label(x, optional=True) for x in schema.more_labels}
        weight = self._weight() if schema.weight else None
        dense = np.empty((len(self.lines), len(schema.dense)), np.float32)
        for i, f in enumerate(schema.dense):
            with np.errstate(over="ignore"):  # those rows are refused
                dense[:, i] = self._number(f.column)
            if f.fill_value is None:
                self._refuse(np.isnan(dense[:, i]), f.column, lambda _: "missing, and fill_value is null")
        categorical = {f.name: self._values(f) for f in schema.categorical}
        weights = {f.name: self._value_weights(f, categorical[f.name]) for f in schema.multi_hot if f.weights}
        rows = TypedRows(self.lines, label, weight, dense, categorical, weights, self._bad_rows(), more_labels)
        return rows if self.good.all() else rows.take(self.good)

    def _refuse(self, wrong: np.ndarray, column: str, reason: Callable[[int], str]) -> None:
        """Marks rows as bad; the first reason found for a row is the one reported."""
        for i in np.flatnonzero(wrong & self.good):
            self.bad_lines[int(self.lines[i])] = (column, reason(int(i)))
        self.good &= ~wrong

    def _strings(self, column: str) -> pa.Array:
        """UTF-8 strings; what is no UTF-8 is refused and becomes empty."""
        # From bytes even where Parquet says string: only this cast checks them.
        array = pc.fill_null(self.columns[column].cast(pa.binary()), b"")
        try:
            array = array.cast(pa.string())
        except pa.ArrowInvalid:
            values = array.to_pylist()
            wrong = np.array([not is_utf8(v) for v in values])
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
            self._refuse(np.abs(values) > _MAX_FLOAT, column, lambda i: f"{values[i]} is not a finite float32 number")
            return values
        text = self._stripped(column)
        text = pc.if_else(pc.is_in(text, self.missing), pa.scalar(None, pa.string()), text)
        try:
            numbers = text.cast(pa.float64())
        except pa.ArrowInvalid:
            numbers = pa.array([as_number(t) for t in text.to_pylist()], pa.float64())
        values = pc.fill_null(numbers, np.nan).to_numpy(zero_copy_only=False)
        wrong = ~(np.abs(values) <= _MAX_FLOAT) & pc.is_valid(text).to_numpy(zero_copy_only=False)
        self._refuse(wrong, column, lambda i: f"{text[i].as_py()[:40]!r} is not a finite float32 number")
        return values

    def _cast(self, array: pa.Array, target: pa.DataType, column: str) -> pa.Array:
        try:
            return array.cast(target, safe=not pa.types.is_floating(target))
        except pa.ArrowException as e:
            what = f"a column of type {array.type} cannot be read as {target}"
            raise ValueError(f"{self.block.path}: column {column!r}: {what}: {e}") from e

    def _label(self, label: Label, optional: bool = False) -> np.ndarray:
        """Float32 [N]; NaN where it is missing and `optional`."""
        if label.positive:
            column = self.columns[label.column]
            text = self._stripped(label.column) if _is_text(column) else self._cast(column, pa.string(), label.column)
            positive = pc.is_in(text, pa.array(label.positive, pa.string())).to_numpy(zero_copy_only=False)
            negative = pc.is_in(text, pa.array(label.negative, pa.string())).to_numpy(zero_copy_only=False)
            known = ", ".join(map(repr, [*label.positive, *label.negative]))
            wrong, values = ~(positive | negative), positive.astype(np.float32)
            if optional:
                missing = pc.or_(pc.is_null(text), pc.is_in(text, self.missing)).to_numpy(zero_copy_only=False)
                values[wrong & missing] = np.nan
                wrong &= ~missing
            self._refuse(wrong, label.column, lambda i: f"label {text[i].as_py()!r} is none of {known}")
            return values
        values = self._number(label.column)
        if not optional:
            self._refuse(np.isnan(values), label.column, lambda _: "the label is missing")
        if label.task == "regression":
            with np.errstate(over="ignore"):  # those rows are refused
                return values.astype(np.float32)
        if label.threshold is not None:
            return np.where(np.isnan(values), np.nan, values >= label.threshold).astype(np.float32)
        wrong = (values != 0) & (values != 1) & ~np.isnan(values)
        self._refuse(wrong, label.column, lambda i: f"label {values[i]:g} is neither 0 nor 1")
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
            if not _is_list(array) and not pa.types.is_null(array.type):
                what = "its values are no lists; give the separator between them, or drop multi_valued"
                raise ValueError(f"{self.block.path}: column {f.column!r} of feature {f.name!r}: {what}")
            item = pa.int64()
            if f.dtype == "string":
                item = pa.string()
                if _is_text(array.values if not pa.types.is_null(array.type) else array):
                    array = array.cast(pa.list_(pa.binary()))  # casting from bytes checks that they are UTF-8
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
        if pa.types.is_floating(array.type):  # how pandas writes integers where some are missing
            numbers = self._number(column)
            odd = np.isfinite(numbers) & ((numbers != np.round(numbers)) | (np.abs(numbers) > 2**53))
            self._refuse(odd, column, lambda i: f"{numbers[i]} is not a whole number")
            return pa.array(np.where(np.isfinite(numbers) & ~odd, numbers, MISSING_INT).astype(np.int64))
        if not _is_text(array):
            return pc.fill_null(self._cast(array, pa.int64(), column), MISSING_INT)
        text = self._stripped(column)
        text = pc.if_else(pc.is_in(text, self.missing), pa.scalar(str(MISSING_INT)), text)
        whole = pc.match_substring_regex(text, r"^-?[0-9]{1,18}$").to_numpy(zero_copy_only=False)
        if not whole.all():
            reason = "is not a whole number of at most 18 digits"
            self._refuse(~whole, column, lambda i: f"{text[i].as_py()[:40]!r} {reason}")
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
            numbers = [[as_number(w) for w in v.split(f.separator)] if v else [] for v in weights.to_pylist()]
        counts = [(len(i or ()), len(n or ())) for i, n in zip(items, numbers, strict=True)]
        unequal = np.array([a != b for a, b in counts], bool)
        self._refuse(unequal, column, lambda i: f"{counts[i][1]} weights for {counts[i][0]} values")
        wrong = np.array([any(w is None or not abs(w) <= _MAX_FLOAT for w in n or ()) for n in numbers], bool)
        self._refuse(wrong, column, lambda i: f"the weights {numbers[i]!r} are not all finite float32 numbers")
        return weights

    def _bad_rows(self) -> list[BadRow]:
        if not self.bad_lines:
            return []
        lines = sorted(self.bad_lines)
        texts = self.block.texts(lines)
        return [BadRow(self.block.path, n, *self.bad_lines[n], text) for n, text in zip(lines, texts, strict=True)]


def as_number(text: str | None) -> float | None:
    """The number that a text is, or None. `1_000` and digits of other scripts are numbers to Python alone."""
    try:
        return float(text) if text and text.isascii() and "_" not in text else None
    except ValueError:
        return None
