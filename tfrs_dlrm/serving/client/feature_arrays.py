"""Converts a caller's values to arrays of the types that a model takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfrs_dlrm.data.raw.values import as_number, as_whole, exact_up_to, number_text
from tfrs_dlrm.serving.protocol import InvalidRequest
from tfrs_dlrm.serving.runtime.signature import TensorInfo
from tfrs_dlrm.serving.runtime.tensors import type_name

# The missing value by kind of type.
_MISSING: dict[str, Any] = {"f": float("nan"), "i": -1, "u": 0, "b": False, "O": b""}


def to_arrays(features: Mapping[str, Any], inputs: Mapping[str, TensorInfo]) -> dict[str, np.ndarray]:
    """Converts features to arrays of the types of `inputs`.

    Features that the model does not have are sent as well: the server tells that they are unknown.

    Raises:
      InvalidRequest: the values of a feature do not fit the type.
    """
    return {
        name: _array(name, value, inputs[name].dtype if name in inputs else None) for name, value in features.items()
    }


def to_rows(rows: Sequence[Mapping[str, Any]], inputs: Mapping[str, TensorInfo]) -> list[dict[str, np.ndarray]]:
    """Converts rows with one value (or list) per feature; features of None are left out, as in an Example.

    Raises:
      InvalidRequest: the value of a feature does not fit the type.
    """
    return [to_arrays({name: v for name, v in row.items() if v is not None}, inputs) for row in rows]


def _array(name: str, value: Any, dtype: np.dtype[Any] | None) -> np.ndarray:
    ragged = f"feature {name!r}: its lists are of unequal lengths; pad them at the end"
    try:
        # As objects: NumPy would give texts and bytes one type, and its texts lose trailing zeros.
        given = value if isinstance(value, np.ndarray) else np.asarray(value, object)
    except ValueError as e:
        raise InvalidRequest(ragged) from e
    if given.dtype.kind == "O" and any(isinstance(v, list | tuple | np.ndarray) for v in given.flat):
        raise InvalidRequest(ragged)
    dtype = dtype or _natural(given)
    try:
        return _strings(given) if dtype.kind == "O" else _numbers(given, dtype)
    except (TypeError, ValueError, OverflowError) as e:
        raise InvalidRequest(f"feature {name!r}: {type_name(dtype)} is needed, {e}") from e


def _natural(array: np.ndarray) -> np.dtype[Any]:
    """Returns the type of values for which the model has no input."""
    values = array.ravel().tolist()
    if any(isinstance(v, str | bytes) for v in values):
        return np.dtype(object)
    return np.dtype(np.float32) if any(v is None or isinstance(v, float) for v in values) else np.dtype(np.int64)


def _strings(array: np.ndarray) -> np.ndarray:
    out = np.empty(array.size, object)
    for i, element in enumerate(array.ravel().tolist()):
        out[i] = _MISSING["O"] if element is None else _text(element)
    return out.reshape(array.shape)


def _text(value: Any) -> bytes:
    """Returns a text, or that of a number or boolean, as for a column of them."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bool):
        return str(value).lower().encode()
    if not isinstance(value, int | float):
        raise TypeError(f"{value!r} is of type {type(value).__name__}")
    if value != value:
        return _MISSING["O"]  # type: ignore[no-any-return]
    if isinstance(value, float) and value.is_integer() and abs(value) > exact_up_to(64):
        raise ValueError(f"{value!r} may be another whole number, rounded; give an int or a text")
    return number_text(repr(value)).encode()


def _numbers(array: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    if array.dtype.kind in "OUS":
        values = [_number(v, dtype) for v in array.ravel().tolist()]
        array = np.asarray(values, np.float64 if dtype.kind == "f" else None).reshape(array.shape)
        if array.dtype.kind == "O":
            raise ValueError(f"{max(values, key=abs)} is out of range")
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{array.ravel()[0]!r} is no number")
    if dtype.kind != "f" and array.dtype.kind == "f":
        if (np.abs(array) > exact_up_to(8 * array.dtype.itemsize)).any():
            raise ValueError(f"{np.abs(array).max():.0f} may be another whole number, rounded; give integers")
        array = np.where(np.isnan(array), _MISSING[dtype.kind], array)
    with np.errstate(invalid="ignore", over="ignore"):
        converted = array.astype(dtype)
    if dtype.kind != "f" and (converted != array).any():
        strange = array[converted != array].ravel()[0]
        raise ValueError(f"{strange} is {'out of range' if strange == np.floor(strange) else 'no whole number'}")
    return converted


def _number(value: Any, dtype: np.dtype[Any]) -> Any:
    """Returns a number, or that of a text, as for a column of texts."""
    if value is None:
        return _MISSING[dtype.kind]
    if isinstance(value, int | float | np.integer | np.floating | np.bool_):
        return value
    if not isinstance(value, str | bytes):
        raise TypeError(f"{value!r} is no number")
    text = value.decode(errors="replace") if isinstance(value, bytes) else value
    number = _MISSING[dtype.kind] if not text else as_number(text) if dtype.kind == "f" else as_whole(text)
    if number is None:
        raise TypeError(f"{value!r} is no number")
    return number
