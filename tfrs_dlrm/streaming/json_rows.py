"""Turns messages that are JSON objects into Arrow columns, and names each message that is none.

Arrow's parser reads messages like those before them; see `usual_objects`. Others are read one by one. Of these a column
is converted at once as long as all its values are of the usual types. Only a column with another value, such as an
object where text is needed, is converted value by value, which finds the messages to refuse.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfrs_dlrm.data.raw.notations import in_notation
from tfrs_dlrm.data.raw.number_lists import number_lists
from tfrs_dlrm.data.raw.typed_values import whole_numbers
from tfrs_dlrm.data.raw.values import as_number, as_whole, number_text
from tfrs_dlrm.schema import Notation, Schema
from tfrs_dlrm.streaming.usual_objects import UsualObjects

_ITEMS = {"string": pa.binary(), "int64": pa.int64(), "float32": pa.float32()}
_NOTHING = type(None)
# How many messages Arrow's parser reads at a time. If one is malformed, the others here are parsed twice more.
_AT_A_TIME = 512
# Stands for a field that an object lacks.
_ABSENT = object()


class FieldError(Exception):
    """A message is no row: `column` names the field, or is empty."""

    def __init__(self, column: str, reason: str):
        super().__init__(reason)
        self.column, self.reason = column, reason


@dataclasses.dataclass(frozen=True)
class JsonTable:
    """The columns of some messages.

    Attributes:
      table: the columns of the schema, one row for each message that is not refused; bytes for texts and for numbers,
        which may also be float64 in columns that are read as numbers only.
      kept: the places of these messages among those that were given.
      refused: by place, why a message is no row; the first reason in the order of the columns.
    """

    table: pa.Table
    kept: list[int]
    refused: dict[int, FieldError]


class JsonRows:
    """Reads messages that are JSON objects.

    Args:
      schema: names the fields.
      absent_is_missing: whether an object may lack a field, which is then missing; else such an object is refused.
    """

    def __init__(self, schema: Schema, absent_is_missing: bool):
        self._fields = _fields(schema)
        self._names = [field.column for field in self._fields]
        self._absent = None if absent_is_missing else _ABSENT
        self._usual = UsualObjects(self._fields, None if absent_is_missing else _has_field)

    def __call__(self, messages: Sequence[bytes]) -> JsonTable:
        """Returns the columns of messages that are not empty."""
        found = self._all_usual(messages) if self._usual and messages else None
        return self._read(messages, learn=True) if found is None else found

    def _all_usual(self, messages: Sequence[bytes]) -> JsonTable | None:
        """Reads messages by Arrow's parser, once those that are no rows are found; None if others are unusual."""
        tables: list[pa.Table] = []
        kept: list[int] = []
        refused: dict[int, FieldError] = {}
        for begin in range(0, len(messages), _AT_A_TIME):
            part = messages[begin : begin + _AT_A_TIME]
            good, table = list(range(len(part))), self._usual(part)
            if table is None:
                read = self._read(part)
                refused |= {begin + place: error for place, error in read.refused.items()}
                good = read.kept
                table = self._usual([part[place] for place in good]) if read.refused and good else None
                if good and table is None:
                    return None
            tables += [] if table is None else [table]
            kept += [begin + place for place in good]
        return JsonTable(pa.concat_tables(tables), kept, refused) if tables else None

    def _read(self, messages: Sequence[bytes], learn: bool = False) -> JsonTable:
        """Parses messages one by one; learns what is usual if told so."""
        refused: dict[int, FieldError] = {}
        rows, places = [], []
        for i, message in enumerate(messages):
            try:
                rows.append(self._values(_parse(message)))
                places.append(i)
            except FieldError as e:
                refused[i] = e
        columns = list(zip(*rows, strict=True)) if rows else [() for _ in self._fields]
        if learn:
            self._usual.learn(columns)
        arrays, good = [], np.ones(len(rows), bool)
        for field, values in zip(self._fields, columns, strict=True):
            array, errors = field.array(values)
            arrays.append(array)
            good[list(errors)] = False
            for row, error in errors.items():
                refused.setdefault(places[row], error)
        table = pa.table(arrays, names=self._names)
        if good.all():
            return JsonTable(table, places, refused)
        return JsonTable(table.filter(pa.array(good)), [places[row] for row in np.flatnonzero(good)], refused)

    def _values(self, row: dict[str, Any]) -> list[Any]:
        try:
            return list(map(row.__getitem__, self._names))
        except KeyError:
            return [row.get(name, self._absent) for name in self._names]


def _constant(text: str) -> bytes | None:
    """Reads NaN as a missing value, as in a column of floats."""
    return None if text == "NaN" else text.encode()


# A number becomes bytes, the text that it is, so that it is not rounded on the way to a float or an id.
_HOOKS: dict[str, Any] = {"parse_int": str.encode, "parse_float": str.encode, "parse_constant": _constant}
_decode = json.JSONDecoder(**_HOOKS).decode


def _parse(message: bytes) -> dict[str, Any]:
    try:
        # As json.loads does, which looks for other encodings than UTF-8, and makes a decoder each time.
        usual = message.startswith(b'{"')
        row = _decode(message.decode("utf-8", "surrogatepass")) if usual else json.loads(message, **_HOOKS)
    except UnicodeDecodeError as e:
        raise FieldError("", f"invalid UTF-8: {e}") from e
    except (ValueError, RecursionError) as e:
        raise FieldError("", f"not valid JSON: {e}"[:200]) from e
    if not isinstance(row, dict):
        raise FieldError("", f"JSON, but no object: {_shown(row)}")
    return row


def _has_field(message: bytes, column: str) -> bool:
    try:
        return column in _parse(message)
    except FieldError:
        return False


def _shown(value: Any) -> str:
    """Returns the begin of a JSON value, for messages."""
    return repr(str(_readable(value))[:40])


def _readable(value: Any) -> Any:
    """Returns a JSON value in which numbers are texts."""
    if isinstance(value, list):
        return [_readable(item) for item in value]
    if isinstance(value, dict):
        return {name: _readable(item) for name, item in value.items()}
    return value.decode() if isinstance(value, bytes) else value


@dataclasses.dataclass(frozen=True)
class _Field:
    """A column that the schema reads, and the JSON values that it may have.

    Attributes:
      column: its name.
      type: of the Arrow column made of it.
      is_text: whether it is read as text, so that a number needs one.
      is_number: whether it is read as a number, and as nothing else.
      notation: how numbers in text are written.
      separator: of a list of values that the schema wants in one text, or of a vector in one; empty where it wants one
        value.
      missing: the texts that stand for no vector.
    """

    column: str
    type: pa.DataType
    is_text: bool
    is_number: bool
    notation: Notation
    separator: str
    missing: tuple[str, ...]

    @property
    def is_vector(self) -> bool:
        """Whether it is a list of numbers, of which some may be missing, or a text of them."""
        return pa.types.is_list(self.type) and bool(self.separator)

    def array(self, values: Sequence[Any]) -> tuple[pa.Array, dict[int, FieldError]]:
        """Converts the values of a column: its array, null where a value is refused, and by place the refused ones."""
        array = self._lists(values) if pa.types.is_list(self.type) else self._texts(values)
        return (array, {}) if array is not None else self._one_by_one(values)

    def _one_by_one(self, values: Sequence[Any]) -> tuple[pa.Array, dict[int, FieldError]]:
        found: list[Any] = []
        errors: dict[int, FieldError] = {}
        for i, value in enumerate(values):
            try:
                found.append(self._value(value))
            except FieldError as e:
                found.append(None)
                errors[i] = e
        return pa.array(found, self.type), errors

    def _texts(self, values: Sequence[Any]) -> pa.Array | None:
        """Converts a column of texts, numbers and null; None if it has other values."""
        kinds = set(map(type, values))
        if not kinds <= {str, bytes, _NOTHING}:
            return None
        if bytes in kinds and (self.is_text or self.notation.decimal != "."):
            values = [self._number_text(value) if isinstance(value, bytes) else value for value in values]
        try:
            return pa.array(values, pa.binary())
        except UnicodeEncodeError:
            return None

    def _lists(self, values: Sequence[Any]) -> pa.Array | None:
        """Converts a column of lists and null; None if it has other values, or lists of unusual items."""
        if not set(map(type, values)) <= {list, _NOTHING}:
            return None
        items = self._items(list(itertools.chain.from_iterable(value for value in values if value)))
        if items is None:
            return None
        ends = np.cumsum([len(value) if value else 0 for value in values], dtype=np.int64)
        offsets = pa.array(np.concatenate([[0], ends]), pa.int32())
        missing = pa.array([value is None for value in values], pa.bool_())
        return pa.ListArray.from_arrays(offsets, items, mask=missing)

    def _items(self, items: Sequence[Any]) -> pa.Array | None:
        """Converts the items of lists at once, or returns None."""
        if pa.types.is_binary(self.type.value_type):
            texts = self._texts(items)
            return None if texts is None else pc.fill_null(texts, b"")
        if not set(map(type, items)) <= {bytes}:
            return None
        texts = pa.array(items, pa.string())
        if pa.types.is_integer(self.type.value_type):
            numbers, wrong = whole_numbers(texts)
            return None if wrong.any() else numbers
        try:
            numbers = texts.cast(pa.float64())
        except pa.ArrowInvalid:
            return None
        finite = np.isfinite(numbers.to_numpy(zero_copy_only=False)).all()
        return numbers.cast(pa.float32()) if finite else None

    def _value(self, value: Any) -> Any:
        """Converts a JSON value for the Arrow column."""
        if value is _ABSENT:
            raise FieldError(self.column, "the object has no such field")
        if pa.types.is_list(self.type):
            return None if value is None else self._list(value)
        if isinstance(value, list) and self.separator:
            items = [self._text(v) or b"" for v in value]
            if any(self.separator.encode() in item for item in items):
                raise FieldError(self.column, f"a value with the separator {self.separator!r} in it")
            return self.separator.encode().join(items)
        return self._text(value)

    def _list(self, values: Any) -> list[Any] | None:
        if self.is_vector and isinstance(values, str):
            if values in self.missing:
                return None
            text = pa.array([self._text(values)], pa.string())
            values = number_lists(text, self.separator)[0].as_py()
            if values is None:
                return None
        if not isinstance(values, list):
            raise FieldError(self.column, f"a list is needed, this is {_shown(values)}")
        if pa.types.is_binary(self.type.value_type):
            return [self._text(v) or b"" for v in values]
        whole = pa.types.is_integer(self.type.value_type)
        return [self._number(v, whole) for v in values]

    def _number(self, value: Any, whole: bool) -> float | int:
        text = str(int(value)) if isinstance(value, bool) else str(_readable(value))
        scalar = isinstance(value, str | bytes | bool)
        number = (as_whole(text) if whole else as_number(text)) if scalar else None
        if number is None or not math.isfinite(number):
            kind = "whole number in the range of int64" if whole else "finite number"
            raise FieldError(self.column, f"{text[:40]!r} in the list is no {kind}")
        return number

    def _text(self, value: Any) -> bytes | None:
        if isinstance(value, bool):
            return str(value).lower().encode()
        if value is None:
            return None
        if isinstance(value, bytes):
            return self._number_text(value)
        if not isinstance(value, str):
            raise FieldError(self.column, f"one value is needed, this is a {type(value).__name__}")
        try:
            return value.encode()
        except UnicodeEncodeError as e:  # half of a surrogate pair
            raise FieldError(self.column, f"text that is no Unicode: {e}") from e

    def _number_text(self, number: bytes) -> bytes:
        """Rewrites a number of JSON as the column has it."""
        if not self.is_text:
            return in_notation(number.decode(), self.notation).encode()
        return number if number.isdigit() else number_text(number.decode()).encode()


def _fields(schema: Schema) -> list[_Field]:
    """Returns the fields by column, in the order of `schema.columns`."""
    texts = {given.column for given in schema.inputs if given.dtype == "string"}
    texts |= {x.column for x in schema.labels if x.positive}
    numbers = {x.column for x in schema.labels} | {given.column for given in schema.inputs} | {schema.weight}
    numbers -= texts | {schema.group}
    numbers -= {given.column for given in schema.inputs if given.dtype != "float32" or given.time or given.is_list}
    numbers -= {given.column for given in schema.inputs if given.separator is not None}
    kinds: dict[str, tuple[pa.DataType, str]] = {}
    for given in schema.inputs:
        if given.is_list:
            # The numbers of a vector stay texts until the parser reads them, as it does in a file.
            item, separator = (_ITEMS[given.dtype], "") if given.size is None else (pa.binary(), given.separator or ",")
            kinds[given.column] = (pa.list_(item), separator)
        elif given.separator is not None:
            kinds[given.column] = (pa.binary(), given.separator)
    fields = []
    for name in schema.columns:
        kind, separator = kinds.get(name, (pa.binary(), ""))
        notation = schema.notations.get(name, Notation())
        fields.append(_Field(name, kind, name in texts, name in numbers, notation, separator, schema.text.missing))
    return fields
