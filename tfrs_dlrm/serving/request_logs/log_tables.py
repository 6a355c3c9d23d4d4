"""Reads request logs as Arrow tables, with the columns of the raw log that the features came from."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from google.protobuf.message import DecodeError

from tfrs_dlrm.data.raw.parsing import MISSING_INT
from tfrs_dlrm.schema import Schema
from tfrs_dlrm.serving.request_logs.request_log import feature_name
from tfrs_dlrm.serving.runtime import protos
from tfrs_dlrm.serving.runtime.tfrecord import read_records

_BATCH = 10_000
_KINDS = {"float_list": pa.float32(), "int64_list": pa.int64(), "bytes_list": pa.binary()}
_LISTS = {"float32": "float_list", "int64": "int64_list", "string": "bytes_list"}
# The fields that `RequestLog` adds to the features, and their lists in an Example.
_LOG_FIELDS = {
    "request_id": "bytes_list",
    "row": "int64_list",
    "timestamp": "int64_list",
    "model_version": "int64_list",
    "probability": "float_list",
}


@dataclasses.dataclass(frozen=True)
class _Column:
    """A column of the table, and its field in the tf.Example.

    Attributes:
      name: of the column: as in the raw log, or `log/FIELD`.
      field: its name in the tf.Example.
      kind: of its list in the tf.Example.
      is_list: whether the column has lists.
      padded_as: for lists of weights, the field with their values, which are padded alike.
      is_vector: whether the lists have one length, and no padding.
    """

    name: str
    field: str
    kind: str
    is_list: bool = False
    padded_as: str = ""
    is_vector: bool = False

    @property
    def type(self) -> pa.DataType:
        item = _KINDS[self.kind]
        return pa.list_(item) if self.is_list else item


def read_log(path: str, schema: Schema) -> Iterator[pa.Table]:
    """Yields the rows of a file in tables: `request_id`, `row`, ... as `log/NAME`, then the columns of the features.

    Missing values are null; bytes are not changed, whether UTF-8 or not.

    Raises:
      ValueError: the file is broken, or does not have the features of this schema.
      OSError: the file cannot be read.
    """
    columns = [_Column(f"log/{name}", name, kind) for name, kind in _LOG_FIELDS.items()] + _feature_columns(schema)
    records = enumerate(read_records(path))
    while batch := list(itertools.islice(records, _BATCH)):
        values: dict[str, list[Any]] = {c.name: [] for c in columns}
        for number, data in batch:
            try:
                feature = protos.example.Example.FromString(data).features.feature
                for column in columns:
                    values[column.name].append(_value(column, feature))
            except (ValueError, DecodeError) as e:
                raise ValueError(f"{path}: record {number}: {e}") from e
        yield pa.table({c.name: pa.array(values[c.name], c.type) for c in columns})


def _feature_columns(schema: Schema) -> list[_Column]:
    columns: dict[str, _Column] = {}
    for given in schema.inputs:
        field = feature_name(given.name)
        padded_as = feature_name(given.weights_of) if given.weights_of and given.is_list else ""
        column = _Column(
            str(given.column), field, _LISTS[given.dtype], given.is_list, padded_as, given.size is not None
        )
        columns.setdefault(given.column, column)
    return list(columns.values())


def _value(column: _Column, feature: Any) -> Any:
    values = _values(column.field, column.kind, feature)
    if column.is_vector:
        return values or None
    if column.is_list:
        padded = values
        if column.padded_as:
            found = feature[column.padded_as].WhichOneof("kind")
            padded = list(getattr(feature[column.padded_as], found).value) if found else []
        return values[: _length(padded)]
    if len(values) > 1:
        raise ValueError(f"feature {column.field!r} has {len(values)} values, and one in the schema")
    if not values or _is_missing(values[0]):
        return None
    return values[0]


def _values(field: str, kind: str, feature: Any) -> list[Any]:
    if field not in feature:
        return []
    found = feature[field].WhichOneof("kind")
    if found not in (kind, None):
        raise ValueError(f"feature {field!r} is a {found}, and a {kind} in the schema")
    return list(getattr(feature[field], kind).value)


def _length(values: list[Any]) -> int:
    """Returns the length without the padding at the end."""
    length = len(values)
    while length and _is_missing(values[length - 1]):
        length -= 1
    return length


def _is_missing(value: Any) -> bool:
    """Returns whether a value is an empty text, -1, or NaN."""
    return (value in (b"", MISSING_INT) and not isinstance(value, float)) or value != value
