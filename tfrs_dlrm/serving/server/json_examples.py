"""Converts the `examples` of a REST request to tf.Examples; refuses what TF Serving does (json_tensor.cc)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tfrs_dlrm.serving.protocol import InvalidRequest
from tfrs_dlrm.serving.runtime import protos
from tfrs_dlrm.serving.server.json_bodies import shown
from tfrs_dlrm.serving.server.json_values import is_b64, kind, to_bytes

# By type of a JSON value: the list of a tf.Feature.
_LISTS: dict[type, str] = {bool: "int64", int: "int64", float: "float", str: "bytes", dict: "bytes"}
_LARGEST = 3.4028234663852886e38  # a float32


def examples(body: Mapping[str, Any]) -> Any:
    """Returns the Input of a `regress` or `classify` request.

    Numbers with a point become floats, whole numbers and booleans integers; the values of a feature have one kind.

    Raises:
      InvalidRequest: `examples` are missing, or a value fits no feature.
    """
    rows = body.get("examples")
    if "examples" not in body:
        raise InvalidRequest("When method is classify, key 'examples' is expected and was not found")
    if not isinstance(rows, list):
        raise InvalidRequest(f"Expecting 'examples' value to be an list/array; {shown(rows)} is given")
    if not rows:
        raise InvalidRequest("'examples' value is an empty array; at least one object of features is expected")
    input_ = protos.input_.Input()
    if "context" in body:
        listed = input_.example_list_with_context
        _fill(listed.context, body["context"], "context")
        target = listed.examples
    else:
        target = input_.example_list.examples
    for number, row in enumerate(rows):
        _fill(target.add(), row, f"examples[{number}]")
    return input_


def _fill(example: Any, row: Any, where: str) -> None:
    if not isinstance(row, dict):
        raise InvalidRequest(f"Example must be JSON object but got JSON {kind(row)}: {where}")
    for name, value in row.items():
        values = value if isinstance(value, list) else [value]
        kinds = {_LISTS.get(type(item), "") for item in values}
        if len(kinds) > 1 or "" in kinds or any(isinstance(item, dict) and not is_b64(item) for item in values):
            raise InvalidRequest(f"{where}: {_mixed(name, values)}")
        for item in values if kinds == {"float"} else ():
            if math.isfinite(item) and abs(item) > _LARGEST:
                raise InvalidRequest(
                    f"{where}: Cannot convert JSON value: {shown(item)} to float without loss of precision. feature"
                    f" {name[:200]!r}"
                )
        try:
            feature = example.features.feature[name]  # a UnicodeEncodeError for half a surrogate pair
            if kinds == {"bytes"}:
                feature.bytes_list.value.extend([to_bytes(name, item) for item in values])
            elif kinds == {"float"}:
                feature.float_list.value.extend(values)
            elif kinds:  # an empty list is a missing value
                feature.int64_list.value.extend(map(int, values))
        except (ValueError, OverflowError) as e:
            raise InvalidRequest(f"{where}: feature {name!r}: {e}") from e


def _mixed(name: str, values: list[Any]) -> str:
    """Says which value of a feature does not fit the ones before it."""
    for item in values:
        if type(item) not in _LISTS or (isinstance(item, dict) and not is_b64(item)):
            return f"Feature: {name[:200]!r} has element with unexpected JSON type: {kind(item)}: {shown(item)}"
    expected = _LISTS[type(values[0])]
    wrong = next(item for item in values if _LISTS[type(item)] != expected)
    return (
        f"Unexpected element type in feature: {name[:200]!r} expecting type: {expected}; {shown(wrong)} is of another,"
        " and the values of a feature have one type: whole numbers, numbers with a point, or strings"
    )
