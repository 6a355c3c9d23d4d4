"""Values of JSON as values of tensors: what TF Serving takes, and its messages (util/json_tensor.cc)."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import numpy as np

from tfrs_dlrm.serving.protocol import InvalidRequest
from tfrs_dlrm.serving.runtime.signature import TensorInfo
from tfrs_dlrm.serving.runtime.tensors import fill, type_name
from tfrs_dlrm.serving.server.json_bodies import shown

# Python types of JSON values by kind of NumPy type.
_NUMBERS: dict[str, set[type]] = {"f": {int, float}, "i": {int}, "u": {int}, "b": {bool}}

_KINDS: dict[type, str] = {dict: "Object", list: "Array", str: "String"}
_DTYPES = {"float32": "float", "float64": "double"}  # as TensorFlow's messages name them; others are NumPy's names
_B64 = '{"b64": ...}'


def leaves(name: str, info: TensorInfo, values: list[Any]) -> np.ndarray:
    """Returns the values of an input as an array of its type.

    Raises:
      InvalidRequest: a value is of another type, or outside the range.
    """
    array = np.empty(len(values), info.dtype)
    if info.dtype.kind == "O":
        fill(array, [to_bytes(name, value) for value in values])
        return array
    allowed, kinds = _NUMBERS[info.dtype.kind], {type(value) for value in values}
    if not kinds <= allowed:
        wrong = next(value for value in values if type(value) not in allowed)
        hint = "; a missing number is sent as NaN" if wrong is None and info.dtype.kind == "f" else ""
        raise InvalidRequest(f"input {name!r}: {_wrong_type(wrong, info.dtype)}{hint}")
    if info.dtype.kind == "f" and int in kinds:
        _check_whole_numbers(name, info.dtype, values)
    try:
        with np.errstate(over="raise"):
            fill(array, values)
    except (OverflowError, FloatingPointError) as e:
        wrong = next(value for value in values if not _fits(value, info.dtype))
        raise InvalidRequest(
            f"input {name!r}: {_wrong_type(wrong, info.dtype)}; it is outside the range of {type_name(info.dtype)}"
        ) from e
    return array


def _check_whole_numbers(name: str, dtype: np.dtype[Any], values: list[Any]) -> None:
    """Refuses whole numbers that a float does not hold, as TF Serving does."""
    largest = 2 ** (np.finfo(dtype).nmant + 1) - 1
    for value in values:
        if type(value) is int and not -largest <= value <= largest:
            raise InvalidRequest(
                f"input {name!r}: Cannot convert JSON value: {shown(value)} to {_DTYPES[dtype.name]} without loss of"
                f" precision. Whole numbers up to {largest} fit, or send it with a point: {shown(value)}.0"
            )


def _fits(value: Any, dtype: np.dtype[Any]) -> bool:
    try:
        with np.errstate(over="raise"):
            np.empty(1, dtype)[:] = value
    except (OverflowError, FloatingPointError):
        return False
    return True


def kind(value: Any) -> str:
    """Returns RapidJSON's name of a value's type."""
    return "Null" if value is None else str(value) if isinstance(value, bool) else _KINDS.get(type(value), "Number")


def _wrong_type(value: Any, dtype: np.dtype[Any]) -> str:
    given = kind(value)
    if dtype.kind == "f" and given == "Number":
        return f"Cannot convert JSON value: {shown(value)} to {_DTYPES[dtype.name]} without loss of precision."
    expected = "string" if dtype.kind == "O" else _DTYPES.get(dtype.name, dtype.name)
    return f"JSON Value: {shown(value)} Type: {given} is not of expected type: {expected}"


def to_bytes(name: str, value: Any) -> bytes:
    """Returns the bytes of a JSON string or of `{"b64": ...}`; raises InvalidRequest for others."""
    if isinstance(value, str):
        try:
            return value.encode()
        except UnicodeEncodeError as e:
            raise InvalidRequest(f"input {name!r}: {shown(value)} is no Unicode text; send bytes as b64") from e
    if is_b64(value):
        try:
            return base64.b64decode(value["b64"], validate=True)
        except (binascii.Error, ValueError, TypeError) as e:
            raise InvalidRequest(f"input {name!r}: {shown(value)} is no base64: {e}") from e
    raise InvalidRequest(f"input {name!r}: {_wrong_type(value, np.dtype(object))}; a string or {_B64} is expected")


def is_b64(value: Any) -> bool:
    """Returns whether a JSON value stands for bytes."""
    return isinstance(value, dict) and value.keys() == {"b64"}
