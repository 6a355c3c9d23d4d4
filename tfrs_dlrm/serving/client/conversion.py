"""From the values that a caller has to tensors of the types that a model takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfrs_dlrm.serving.client.errors import InvalidRequest
from tfrs_dlrm.serving.runtime import protos
from tfrs_dlrm.serving.runtime.runtime import TensorInfo
from tfrs_dlrm.serving.runtime.tensors import type_name

# What a missing value is in a feature of each kind.
_MISSING: dict[str, Any] = {"f": float("nan"), "i": -1, "u": 0, "b": False, "O": b""}


def to_arrays(features: Mapping[str, Any], inputs: Mapping[str, TensorInfo]) -> dict[str, np.ndarray]:
    """Arrays of the types of `inputs`.

    What the model has no input for keeps a type of its own: the server is the one to say that it is unknown.

    Raises:
      InvalidRequest: naming the feature, where its values do not fit the type.
    """
    return {
        name: _array(name, value, inputs[name].dtype if name in inputs else None) for name, value in features.items()
    }


def to_rows(rows: Sequence[Mapping[str, Any]], inputs: Mapping[str, TensorInfo]) -> list[dict[str, np.ndarray]]:
    """Likewise of rows with one value (or list) a feature; those that are None are left out, as an Example does.

    Raises:
      InvalidRequest: naming the feature, where its value does not fit the type.
    """
    return [to_arrays({name: v for name, v in row.items() if v is not None}, inputs) for row in rows]


def to_example(row: Mapping[str, np.ndarray]) -> Any:
    """A tf.Example of one row."""
    example = protos.example.Example()
    for name, array in row.items():
        feature = example.features.feature[name]
        kind = {"O": feature.bytes_list, "f": feature.float_list}.get(array.dtype.kind, feature.int64_list)
        kind.value.extend(array.ravel().tolist())
    return example


def _array(name: str, value: Any, dtype: np.dtype[Any] | None) -> np.ndarray:
    ragged = f"feature {name!r}: its lists are of unequal lengths; pad them at the end"
    try:
        # As objects: NumPy has one type for the texts and bytes of a list, and its texts lose trailing zeros.
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
    """The type of values that the model does not say a type of."""
    values = array.ravel().tolist()
    if any(isinstance(v, str | bytes) for v in values):
        return np.dtype(object)
    return np.dtype(np.float32) if any(v is None or isinstance(v, float) for v in values) else np.dtype(np.int64)


def _strings(array: np.ndarray) -> np.ndarray:
    """Bytes."""
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
