"""Converts a caller's values to arrays of the types that a model takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

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
        if isinstance(element, str):
            out[i] = element.encode()
        elif isinstance(element, bytes) or element is None:
            out[i] = _MISSING["O"] if element is None else element
        else:
            raise TypeError(f"{element!r} is of type {type(element).__name__}")
    return out.reshape(array.shape)


def _numbers(array: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    if array.dtype.kind == "O":
        values = [_MISSING[dtype.kind] if v is None else v for v in array.ravel().tolist()]
        array = np.asarray(values).reshape(array.shape)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{array.ravel()[:1].tolist()[0]!r} is no number")
    with np.errstate(invalid="ignore", over="ignore"):
        converted = array.astype(dtype)
    if dtype.kind != "f" and (converted != array).any():
        raise ValueError(f"{array[converted != array].ravel()[0]} is no whole number of it")
    return converted
