"""Reads messages that are JSON objects by Arrow's parser, which makes columns at once and lets other threads run.

It reads objects whose fields have the types that were seen before, and declines the others: it can neither say what is
wrong with a message, nor tell 1 from "1". What it reads has the values that `JsonRows` gives to each message alone.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pa_json

from tfrs_dlrm.data.raw.parsing import MAX_FLOAT

_NOTHING = type(None)
# Objects and lists in each other up to this number are read; the parser would take any number of them.
_NESTED = 100
# A whole number that is not the text of its value.
_MINUS_ZERO = (b"-0,", b"-0}", b"-0]", b"-0 ", b"-0\t", b"-0\r")


class Field(Protocol):
    """A column that the schema reads; see `json_rows`."""

    @property
    def column(self) -> str:
        """Its name."""

    @property
    def type(self) -> pa.DataType:
        """The type of the Arrow column made of it, if its numbers are texts."""

    @property
    def is_number(self) -> bool:
        """Whether it is read as a number, and as nothing else."""

    @property
    def is_vector(self) -> bool:
        """Whether it is a list of numbers."""

    @property
    def separator(self) -> str:
        """The text between several values in one text; empty for one value."""


class UsualObjects:
    """Reads objects whose fields have the types of those that it has learned.

    Args:
      fields: the fields.
      has_field: whether an object has a field; None if an object may lack any.
    """

    def __init__(self, fields: Sequence[Field], has_field: Callable[[bytes, str], bool] | None):
        self._fields, self._has_field = fields, has_field
        self._types: list[pa.DataType | None] = [pa.string() if f.type == pa.binary() else f.type for f in fields]
        self._keys = [b'"%s":' % field.column.encode() for field in fields]
        self._learned = False

    def __bool__(self) -> bool:
        """Whether it reads any objects."""
        return self._learned and all(kind is not None for kind in self._types)

    def learn(self, columns: Sequence[Sequence[Any]]) -> None:
        """Learns the types of fields.

        Args:
          columns: by field, its values in some objects: None, str, bool, lists of these, or bytes for numbers.
        """
        for i, (field, values) in enumerate(zip(self._fields, columns, strict=True)):
            if any(value is not None for value in values):
                self._types[i] = _type_of(field, values)
        self._learned = True

    def __call__(self, messages: Sequence[bytes]) -> pa.Table | None:
        """Returns the columns of messages, of which there are some; None if a message may be of another kind."""
        data = b"\n".join(messages)
        if not self._is_plain(messages, data):
            return None
        schema = pa.schema(zip((f.column for f in self._fields), self._types, strict=True))
        read = pa_json.ReadOptions(use_threads=False, block_size=len(data) + 1)
        options = pa_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
        try:
            table = pa_json.read_json(pa.BufferReader(data), read, options)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            return None
        if len(table) != len(messages):
            return None
        found, flat = [], data.count(b"{") == len(messages)
        for field, key in zip(self._fields, self._keys, strict=True):
            array = table.column(field.column).combine_chunks()
            if array.null_count and self._has_field:
                those = [messages[i] for i in np.flatnonzero(pc.is_null(array).to_numpy(zero_copy_only=False)).tolist()]
                # Without inner objects, such bytes can only be a field: quotes within text stand behind a backslash.
                if not all((flat and key in text) or self._has_field(text, field.column) for text in those):
                    return None
            if _has_zero(array) and any(text in data for text in _MINUS_ZERO):
                return None
            if (array := _converted(field, array)) is None:
                return None
            found.append(array)
        return pa.table(found, names=[field.column for field in self._fields])

    def _is_plain(self, messages: Sequence[bytes], data: bytes) -> bool:
        """Whether each message is one line that begins an object, of valid text and not too deep."""
        if data.count(b"\n") >= len(messages) or not all(message.startswith(b"{") for message in messages):
            return False
        few = data.count(b"{") + data.count(b"[") <= len(messages) + _NESTED
        if not few and any(message.count(b"{") + message.count(b"[") > _NESTED for message in messages):
            return False
        try:
            data.decode()
        except UnicodeDecodeError:
            return False
        return True


def _type_of(field: Field, values: Sequence[Any]) -> pa.DataType | None:
    """Returns the type by which Arrow reads values of a field, of which some are not None; None if it cannot."""
    kinds = set(map(type, values)) - {_NOTHING}
    if len(kinds) > 1:
        return None
    (kind,) = kinds
    if kind is list:
        item = _item_type(field, list(itertools.chain.from_iterable(value for value in values if value)))
        return None if item is None else pa.list_(item)
    if pa.types.is_list(field.type) or kind not in (str, bool, bytes):
        return None
    if kind is bytes:
        return pa.float64() if field.is_number else pa.int64() if _are_whole(values) else None
    return pa.string() if kind is str else pa.bool_()


def _item_type(field: Field, items: Sequence[Any]) -> pa.DataType | None:
    kinds = set(map(type, items)) - {_NOTHING}
    if not pa.types.is_list(field.type):
        return pa.string() if field.separator and kinds <= {str} else None
    wanted = field.type.value_type
    if field.is_vector or pa.types.is_floating(wanted):
        return pa.float64() if kinds <= {bytes} else None
    if pa.types.is_integer(wanted):
        return pa.int64() if kinds <= {bytes} and _are_whole(items) else None
    return pa.string() if kinds <= {str} else None


def _are_whole(values: Sequence[bytes | None]) -> bool:
    return all(value is None or re.fullmatch(rb"-?[0-9]+", value) for value in values)


def _has_zero(array: pa.Array) -> bool:
    """Whether an array of whole numbers, or of lists of them, has a 0."""
    items = array.flatten() if pa.types.is_list(array.type) else array
    return pa.types.is_integer(items.type) and bool(pc.any(pc.equal(items, 0)).as_py())


def _converted(field: Field, array: pa.Array) -> pa.Array | None:
    """Returns an array as `JsonRows` gives it, except that numbers may be float64; None if it cannot."""
    if pa.types.is_list(array.type):
        return _converted_lists(field, array)
    if pa.types.is_floating(array.type):
        return array if _are_in_range(array) else None
    return array.cast(pa.string()).cast(pa.binary())


def _converted_lists(field: Field, array: pa.Array) -> pa.Array | None:
    items = array.flatten()
    if field.is_vector:
        return array if _are_in_range(items) else None
    if items.null_count:
        return None
    if pa.types.is_floating(items.type):
        finite = np.isfinite(items.to_numpy(zero_copy_only=False)).all()
        return array.cast(pa.list_(pa.float32())) if finite else None
    if pa.types.is_integer(items.type):
        return array
    if pa.types.is_list(field.type):
        return array.cast(pa.list_(pa.binary()))
    if pc.any(pc.match_substring(items, field.separator)).as_py():
        return None
    return pc.binary_join(array, field.separator).cast(pa.binary())


def _are_in_range(array: pa.Array) -> bool:
    """Whether no number is too large for a float32: these are refused by the text that they are."""
    return not (np.abs(array.to_numpy(zero_copy_only=False)) > MAX_FLOAT).any()
