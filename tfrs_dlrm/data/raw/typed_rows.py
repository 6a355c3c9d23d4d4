"""Parses a block into what its schema describes: typed labels, weights, numbers and categorical values."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfrs_dlrm.data.raw.parsing import MAX_FLOAT, BadRow, BadRowError, ColumnParser, is_list
from tfrs_dlrm.data.raw.sources import RawBlock
from tfrs_dlrm.data.raw.typed_values import is_text
from tfrs_dlrm.data.raw.values import as_number, spelled_alike
from tfrs_dlrm.schema import FeatureInput, Label, Schema


@dataclasses.dataclass
class TypedRows:
    """The readable rows of a block, typed but not encoded.

    Attributes:
      numbers: int64 [N], the line (text) or row (Parquet) of each, from 1.
      label: float32 [N], 0 or 1; in a regression any finite number.
      weight: float32 [N], or None if the schema names no weight column.
      inputs: by name of `schema.inputs`, an Arrow array of N floats (float32, NaN where missing), strings or int64, or
        of lists of strings or int64 for a list column; for vectors fixed-size lists of floats; and for weights of
        strings or lists of floats.
      bad: the rows that cannot be used, in order.
      more_labels: by name, float32 [N] as `label`, NaN where missing.
      group: strings [N], or None if the schema names no group column.
    """

    numbers: np.ndarray
    label: np.ndarray
    weight: np.ndarray | None
    inputs: dict[str, pa.Array]
    bad: list[BadRow]
    more_labels: dict[str, np.ndarray]
    group: pa.Array | None = None

    @property
    def labels(self) -> np.ndarray:
        """Returns all labels, float32 [N, len(schema.labels)]."""
        return np.stack([self.label, *self.more_labels.values()], axis=1)

    def __len__(self) -> int:
        return len(self.numbers)

    def take(self, keep: np.ndarray) -> TypedRows:
        """Selects the rows where `keep`, bool [N], is true."""
        mask = pa.array(keep)
        return TypedRows(
            self.numbers[keep],
            self.label[keep],
            None if self.weight is None else self.weight[keep],
            {k: v.filter(mask) for k, v in self.inputs.items()},
            self.bad,
            {k: v[keep] for k, v in self.more_labels.items()},
            None if self.group is None else self.group.filter(mask),
        )


def parse(block: RawBlock, schema: Schema) -> TypedRows:
    """Parses a block.

    Raises:
      ValueError: naming file and column, if the type of a whole Parquet column cannot hold what the schema says.
    """
    columns = ColumnParser(block, schema)
    label, *others = _labels(columns, schema)
    more_labels = {x.name: values for x, values in zip(schema.more_labels, others, strict=True)}
    weight = _weight(columns, schema.weight) if schema.weight else None
    group = _group(columns, schema.group) if schema.group else None
    inputs = _parsed(columns, schema.inputs)
    rows = TypedRows(columns.lines, label, weight, inputs, columns.bad_rows(), more_labels, group)
    return rows if columns.good.all() else rows.take(columns.good)


def parse_inputs(block: RawBlock, schema: Schema, inputs: Sequence[FeatureInput]) -> dict[str, pa.Array]:
    """Parses a block that has only the columns of some inputs of a schema. Returns them as `TypedRows.inputs`.

    Raises:
      BadRowError: a row cannot be used.
      ValueError: see `parse`.
    """
    columns = ColumnParser(block, schema)
    found = _parsed(columns, inputs)
    for bad in columns.bad_rows():
        raise BadRowError(bad, "leave the row out")
    return found


def _parsed(columns: ColumnParser, inputs: Sequence[FeatureInput]) -> dict[str, pa.Array]:
    found: dict[str, pa.Array] = {}
    for given in inputs:
        found[given.name] = _weights(columns, given, found) if given.weights_of else _values(columns, given)
    for given in inputs:
        if given.parallel_to in found:
            main = next(x for x in inputs if x.name == given.parallel_to)
            _check_parallel(columns, (given, main), [_lengths(columns, x, found[x.name]) for x in (given, main)])
    return found


def _lengths(columns: ColumnParser, given: FeatureInput, values: pa.Array) -> np.ndarray:
    """Returns how many values each row of a multi-valued input has, int [N]."""
    if given.separator is None:
        return np.asarray(pc.fill_null(pc.list_value_length(values), 0).to_numpy(zero_copy_only=False))
    counts = pc.add(pc.count_substring(values, given.separator), 1).to_numpy(zero_copy_only=False)
    return np.where(columns.are_missing(values), 0, counts)


def _check_parallel(columns: ColumnParser, inputs: tuple[FeatureInput, FeatureInput], counts: list[np.ndarray]) -> None:
    given, main = inputs
    several = f"{{}} values for the {{}} of column {main.column!r}"
    columns.refuse(counts[0] != counts[1], given.column, lambda i: several.format(counts[0][i], counts[1][i]))


def _values(columns: ColumnParser, given: FeatureInput) -> pa.Array:
    array = columns.arrays[given.column]
    if given.size is not None:
        return _vectors(columns, given, given.size)
    if given.is_list:
        if not is_list(array) and not pa.types.is_null(array.type):
            raise _wrong(
                columns, given, "its values are no lists; give the separator between them, or drop multi_valued"
            )
        return columns.lists(given.column, of_text=given.dtype == "string")
    if is_list(array):
        number = given.dtype == "float32" and not given.time
        fix = 'give the dense feature their length, as in "size": 256' if number else "set multi_valued=true"
        raise _wrong(columns, given, f"its values are lists; {fix}")
    if given.dtype == "float32":
        with np.errstate(over="ignore"):  # those rows are refused
            values = pa.array(columns.number(given.column).astype(np.float32))
    elif given.time is not None:
        values = columns.times(given.column, given.time)
    elif given.dtype == "int64":
        values = columns.integers(given.column)
    else:
        values = columns.texts(given.column)
    if given.needed:
        columns.refuse(columns.are_missing(values), given.column, lambda _: "missing, and fill_value is null")
    return values


def _vectors(columns: ColumnParser, given: FeatureInput, size: int) -> pa.Array:
    values = columns.vectors(given.column, size, given.separator)
    if given.needed:
        missing = np.isnan(values.values.to_numpy()).reshape(-1, size).any(axis=1)
        columns.refuse(missing, given.column, lambda _: "a number is missing, and fill_value is null")
    return values


def _wrong(columns: ColumnParser, given: FeatureInput, what: str) -> ValueError:
    return ValueError(f"{columns.path}: column {given.column!r} of feature {given.features[0]!r}: {what}")


def _labels(columns: ColumnParser, schema: Schema) -> list[np.ndarray]:
    """Parses all labels. One that comes after another is 0 where that one is, and may be missing there."""
    found = [_label(columns, label, optional=i > 0) for i, label in enumerate(schema.labels)]
    for i, earlier in enumerate(schema.earlier_labels):
        if earlier is None:
            continue
        label, without = schema.labels[i], found[earlier] == 0
        reason = f"1, and {label.after} is 0; correct the log, or leave out after"
        columns.refuse(without & (found[i] == 1), label.column, lambda _, text=reason: text)  # type: ignore[misc]
        found[i] = np.where(without, np.float32(0), found[i])
    return found


def _label(columns: ColumnParser, label: Label, optional: bool = False) -> np.ndarray:
    """Parses a label to float32 [N]. A missing value is NaN if `optional`, and refused otherwise."""
    if label.positive:
        return _text_label(columns, label, optional)
    values = columns.number(label.column)
    if not optional:
        columns.refuse(np.isnan(values), label.column, lambda _: "the label is missing")
    if label.task == "regression":
        with np.errstate(over="ignore"):  # those rows are refused
            return values.astype(np.float32)
    if label.threshold is not None:
        return np.where(np.isnan(values), np.nan, values >= label.threshold).astype(np.float32)
    wrong = (values != 0) & (values != 1) & ~np.isnan(values)
    columns.refuse(wrong, label.column, lambda i: f"label {values[i]:g} is neither 0 nor 1")
    return values.astype(np.float32)


def _text_label(columns: ColumnParser, label: Label, optional: bool) -> np.ndarray:
    array = columns.arrays[label.column]
    text = columns.stripped(label.column) if is_text(array) else columns.texts(label.column)
    positive, negative = _among(text, label.positive, label.negative), _among(text, label.negative, label.positive)
    known = ", ".join(map(repr, [*label.positive, *label.negative]))
    wrong, values = ~(positive | negative), positive.astype(np.float32)
    if optional:
        missing = pc.is_in(text, columns.missing).to_numpy(zero_copy_only=False)
        values[wrong & missing] = np.nan
        wrong &= ~missing
    columns.refuse(wrong, label.column, lambda i: f"label {text[i].as_py()!r} is none of {known}")
    return values


def _among(text: pa.Array, words: tuple[str, ...], others: tuple[str, ...]) -> np.ndarray:
    """Whether strings are some words, or other spellings of them: `True` also stands for true, TRUE, 1 and 1.0."""
    same = {spelling for word in words for spelling in spelled_alike(word)} - set(others)
    return np.asarray(pc.is_in(text, pa.array(sorted({*words, *same}), pa.string())).to_numpy(zero_copy_only=False))


def _weight(columns: ColumnParser, column: str) -> np.ndarray:
    values = columns.number(column)
    columns.refuse(np.isnan(values), column, lambda _: "the weight is missing")
    columns.refuse(values < 0, column, lambda i: f"weight {values[i]:g} is negative")
    return values.astype(np.float32)


def _group(columns: ColumnParser, column: str) -> pa.Array:
    if is_list(columns.arrays[column]):
        raise ValueError(
            f"{columns.path}: column {column!r} of the group: its values are lists; name a column of single values"
        )
    values = columns.texts(column)
    columns.refuse(columns.are_missing(values), column, lambda _: "the group is missing")
    return values


def _weights(columns: ColumnParser, given: FeatureInput, inputs: dict[str, pa.Array]) -> pa.Array:
    """Parses the weights of the values of a feature: as many as values, all finite."""
    column, separator = given.column, given.separator
    values = inputs[given.weights_of]
    if separator is None:
        weights = columns.cast(columns.arrays[column], pa.list_(pa.float32()), column)
        items, numbers = values.to_pylist(), weights.to_pylist()
    else:
        weights = columns.strings(column)
        items = [v.split(separator) if v else [] for v in values.to_pylist()]
        numbers = [[as_number(w) for w in v.split(separator)] if v else [] for v in weights.to_pylist()]
    counts = [(len(i or ()), len(n or ())) for i, n in zip(items, numbers, strict=True)]
    unequal = np.array([a != b for a, b in counts], bool)
    columns.refuse(unequal, column, lambda i: f"{counts[i][1]} weights for {counts[i][0]} values")
    wrong = np.array([any(w is None or not abs(w) <= MAX_FLOAT for w in n or ()) for n in numbers], bool)
    columns.refuse(wrong, column, lambda i: f"the weights {numbers[i]!r} are not all finite float32 numbers")
    return weights
