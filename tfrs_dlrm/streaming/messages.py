"""Turns messages into encoded rows, by the parser and the encoder that `prepare` runs on files."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from tfrs_dlrm.data.encoding.encoder import Encoder
from tfrs_dlrm.data.preparing.blocks import BlockEncoder
from tfrs_dlrm.data.raw.notations import in_notation
from tfrs_dlrm.data.raw.number_lists import number_lists
from tfrs_dlrm.data.raw.sources import RawBlock
from tfrs_dlrm.data.raw.typed_rows import TypedRows, parse
from tfrs_dlrm.data.raw.values import as_number, as_whole, number_text
from tfrs_dlrm.data.reading.columns import Columns
from tfrs_dlrm.schema import Notation, Schema
from tfrs_dlrm.streaming.address import StreamAddress
from tfrs_dlrm.streaming.reader import MAX_BYTES, Message

# Characters of a malformed message in the quarantine file.
_SHOWN = 1000
_ITEMS = {"string": pa.binary(), "int64": pa.int64(), "float32": pa.float32()}
_DELIMITERS = {"tsv": "\t", "csv": ","}


@dataclasses.dataclass(frozen=True)
class Malformed:
    """A message that is no row: its place, the reason, and its first bytes."""

    message: Message
    column: str
    reason: str

    @property
    def text(self) -> str:
        """The begin of the message; bytes that are no UTF-8 appear as escapes."""
        return self.message.value[:_SHOWN].decode("utf-8", "backslashreplace")

    def __str__(self) -> str:
        column = f", column {self.column!r}" if self.column else ""
        return f"partition {self.message.partition}, offset {self.message.offset}{column}: {self.reason}"


@dataclasses.dataclass(frozen=True)
class Decoded:
    """The rows of some messages.

    Attributes:
      columns: the encoded rows, in the order of the messages; None without rows.
      out_of_range: by feature, how many values have no row in their table.
      malformed: the messages that are no rows, in order.
      rows: the same rows before they were encoded; None without rows.
      block: the messages that they are of; None without one.
    """

    columns: Columns | None
    out_of_range: dict[str, int]
    malformed: list[Malformed]
    rows: TypedRows | None = None
    block: RawBlock | None = None

    def __len__(self) -> int:
        return 0 if self.columns is None else len(self.columns)


class Decoder:
    """Turns messages of a stream into encoded rows.

    Args:
      encoder: of a prepared directory.
      address: says how a message is laid out.

    Raises:
      ValueError: lines without known columns, or without columns that the schema reads.
    """

    def __init__(self, encoder: Encoder, address: StreamAddress):
        self._schema, self._address = encoder.schema, address
        self._encode = BlockEncoder(encoder)
        self._fields = _fields(encoder.schema)
        text = encoder.schema.text
        self._columns = address.columns or text.columns
        self._delimiter = text.delimiter or _DELIMITERS.get(address.format, "")
        if address.format == "json":
            return
        if not self._columns:
            raise ValueError(
                f"{address}: lines of a stream have no header; list their columns in text.columns of the schema, or in"
                " the address: columns=NAME,NAME,..."
            )
        missing = [name for name in encoder.schema.columns if name not in self._columns]
        if missing:
            raise ValueError(f"{address}: no column {', '.join(map(repr, missing))} among {', '.join(self._columns)}")

    def __call__(self, messages: Sequence[Message]) -> Decoded:
        """The rows of some messages."""
        malformed: dict[int, Malformed] = {}
        for i, message in enumerate(messages):
            if message.size > MAX_BYTES:
                malformed[i] = Malformed(message, "", f"{message.size:,} bytes; a row may have {MAX_BYTES:,}")
            elif not message.value:
                malformed[i] = Malformed(message, "", "the message is empty")
        numbers = [i for i in range(len(messages)) if i not in malformed]
        block, numbers = (self._objects if self._address.format == "json" else self._lines)(
            messages, numbers, malformed
        )
        if block is None:
            return Decoded(None, {}, [malformed[i] for i in sorted(malformed)])
        rows = parse(block, self._schema)
        encoded = self._encode(block, rows)
        for bad in encoded.bad:
            i = numbers[bad.row - block.first_row]
            malformed[i] = Malformed(messages[i], bad.column, bad.reason)
        in_order = [malformed[i] for i in sorted(malformed)]
        if not len(encoded.table):
            return Decoded(None, encoded.out_of_range, in_order)
        good = rows if len(rows) == len(encoded.table) else rows.take(np.isin(rows.numbers, encoded.numbers))
        return Decoded(Columns.of(encoded.table, self._schema), encoded.out_of_range, in_order, good, block)

    def again(self, decoded: Decoded) -> Columns:
        """Encodes the rows once more, of which there are some, after the encoder's vocabularies changed."""
        if decoded.block is None or decoded.rows is None:
            raise ValueError("there are no rows to encode")
        return Columns.of(self._encode(decoded.block, decoded.rows).table, self._schema)

    def _lines(
        self, messages: Sequence[Message], numbers: list[int], malformed: dict[int, Malformed]
    ) -> tuple[RawBlock | None, list[int]]:
        """Returns a block of the messages in `numbers` that are one line each, and their numbers."""
        lines, kept = [], []
        for i in numbers:
            line = messages[i].value.removesuffix(b"\n").removesuffix(b"\r")
            if b"\n" in line or not line:
                what = "the message is empty" if not line else "a line break in the middle of the message"
                malformed[i] = Malformed(messages[i], "", what)
            else:
                lines.append(line)
                kept.append(i)
        if not lines:
            return None, kept
        data = b"\n".join(lines) + b"\n"
        quote = self._schema.text.quote
        return RawBlock(str(self._address), 0, 1, len(lines), data, self._columns, self._delimiter, quote), kept

    def _objects(
        self, messages: Sequence[Message], numbers: list[int], malformed: dict[int, Malformed]
    ) -> tuple[RawBlock | None, list[int]]:
        """Returns a block of the messages in `numbers` that are JSON objects of the schema, and their numbers."""
        columns: dict[str, list[Any]] = {field.column: [] for field in self._fields}
        kept, missing = [], object()
        absent = None if self._address.absent == "missing" else missing
        for i in numbers:
            try:
                row = _parse(messages[i].value)
                values = []
                for field in self._fields:
                    value = row.get(field.column, absent)
                    if value is missing:
                        raise _FieldError(field.column, "the object has no such field")
                    values.append(field.value(value))
            except _FieldError as e:
                malformed[i] = Malformed(messages[i], e.column, e.reason)
                continue
            for column, value in zip(columns.values(), values, strict=True):
                column.append(value)
            kept.append(i)
        if not kept:
            return None, kept
        table = pa.table({f.column: pa.array(columns[f.column], f.type) for f in self._fields})
        return RawBlock(str(self._address), 0, 1, len(kept), table, self._schema.columns), kept


class _FieldError(Exception):
    """A message is no row."""

    def __init__(self, column: str, reason: str):
        super().__init__(reason)
        self.column, self.reason = column, reason


def _parse(value: bytes) -> dict[str, Any]:
    try:
        # Numbers stay the text that they are, so that none is rounded on the way to a float or an id.
        row = json.loads(value, parse_int=_Number, parse_float=_Number, parse_constant=_constant)
    except UnicodeDecodeError as e:
        raise _FieldError("", f"invalid UTF-8: {e}") from e
    except (ValueError, RecursionError) as e:
        raise _FieldError("", f"not valid JSON: {e}"[:200]) from e
    if not isinstance(row, dict):
        raise _FieldError("", f"JSON, but no object: {str(row)[:40]!r}")
    return row


class _Number(str):
    """The text of a JSON number."""


def _constant(text: str) -> _Number | None:
    """Reads NaN as a missing value, as in a column of floats."""
    return None if text == "NaN" else _Number(text)


@dataclasses.dataclass(frozen=True)
class _Field:
    """A column that the schema reads, and the JSON values that it may have.

    Attributes:
      column: its name.
      type: of the Arrow column made of it.
      is_text: whether it is read as text, so that a number needs one.
      notation: how numbers in text are written.
      separator: of a list of values that the schema wants in one text, or of a vector in one; empty where it wants one
        value.
      missing: the texts that stand for no vector.
    """

    column: str
    type: pa.DataType
    is_text: bool
    notation: Notation
    separator: str
    missing: tuple[str, ...]

    @property
    def is_vector(self) -> bool:
        """Whether it is a list of numbers, of which some may be missing, or a text of them."""
        return pa.types.is_list(self.type) and bool(self.separator)

    def value(self, value: Any) -> Any:
        """Converts a JSON value for the Arrow column."""
        if pa.types.is_list(self.type):
            return None if value is None else self._list(value)
        if isinstance(value, list) and self.separator:
            items = [self._text(v) or b"" for v in value]
            if any(self.separator.encode() in item for item in items):
                raise _FieldError(self.column, f"a value with the separator {self.separator!r} in it")
            return self.separator.encode().join(items)
        return self._text(value)

    def _list(self, values: Any) -> list[Any] | None:
        if self.is_vector and isinstance(values, str) and not isinstance(values, _Number):
            if values in self.missing:
                return None
            values = number_lists(pa.array([values], pa.string()), self.separator)[0].as_py()
            if values is None:
                return None
        if not isinstance(values, list):
            raise _FieldError(self.column, f"a list is needed, this is {str(values)[:40]!r}")
        if pa.types.is_binary(self.type.value_type):
            return [self._text(v) or b"" for v in values]
        whole = pa.types.is_integer(self.type.value_type)
        return [self._number(v, whole) for v in values]

    def _number(self, value: Any, whole: bool) -> float | int:
        text = str(int(value)) if isinstance(value, bool) else str(value)
        scalar = isinstance(value, str | bool)
        number = (as_whole(text) if whole else as_number(text)) if scalar else None
        if number is None or not math.isfinite(number):
            kind = "whole number in the range of int64" if whole else "finite number"
            raise _FieldError(self.column, f"{text[:40]!r} in the list is no {kind}")
        return number

    def _text(self, value: Any) -> bytes | None:
        if isinstance(value, bool):
            return str(value).lower().encode()
        if value is None:
            return None
        if not isinstance(value, str):
            raise _FieldError(self.column, f"one value is needed, this is a {type(value).__name__}")
        if isinstance(value, _Number):
            value = number_text(value) if self.is_text else in_notation(value, self.notation)
        try:
            return value.encode()
        except UnicodeEncodeError as e:  # half of a surrogate pair
            raise _FieldError(self.column, f"text that is no Unicode: {e}") from e


def _fields(schema: Schema) -> list[_Field]:
    """Returns the fields by column, in the order of `schema.columns`."""
    texts = {given.column for given in schema.inputs if given.dtype == "string"}
    texts |= {x.column for x in schema.labels if x.positive}
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
        fields.append(_Field(name, kind, name in texts, notation, separator, schema.text.missing))
    return fields
