"""Converts between NumPy arrays and the TensorProtos of requests.

Strings are arrays of dtype object that hold `bytes`: NumPy strings lose trailing zeros.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tfrs_dlrm.serving.runtime import protos

_T = protos.types_
# By number of TensorFlow's type: NumPy's type, and the field of a TensorProto that lists values.
_TYPES: dict[int, tuple[np.dtype[Any], str]] = {
    _T.DT_FLOAT: (np.dtype(np.float32), "float_val"),
    _T.DT_DOUBLE: (np.dtype(np.float64), "double_val"),
    _T.DT_INT32: (np.dtype(np.int32), "int_val"),
    _T.DT_INT64: (np.dtype(np.int64), "int64_val"),
    _T.DT_UINT8: (np.dtype(np.uint8), "int_val"),
    _T.DT_INT8: (np.dtype(np.int8), "int_val"),
    _T.DT_BOOL: (np.dtype(np.bool_), "bool_val"),
    _T.DT_STRING: (np.dtype(object), "string_val"),
}
_MOST_EQUAL = 1 << 20
_NUMBERS = {dtype: number for number, (dtype, _) in _TYPES.items()}


def numpy_type(number: int) -> np.dtype[Any]:
    """Returns NumPy's type for a DT_ number.

    Raises:
      ValueError: the type is not supported.
    """
    if number not in _TYPES:
        name = _T.DataType.Name(number) if number in _T.DataType.values() else str(number)
        raise ValueError(
            f"tensors of type {name} are not supported; the types are {', '.join(map(type_name, _NUMBERS))}"
        )
    return _TYPES[number][0]


def type_number(dtype: np.dtype[Any]) -> int:
    """Returns the DT_ number of a NumPy type.

    Raises:
      ValueError: the type is not supported.
    """
    if dtype not in _NUMBERS:
        raise ValueError(
            f"arrays of type {dtype} are not supported; the types are {', '.join(map(type_name, _NUMBERS))}"
        )
    return _NUMBERS[dtype]


def type_name(dtype: np.dtype[Any]) -> str:
    """Returns TensorFlow's name of a type: `float32`, `int64`, `string`."""
    return "string" if dtype.kind == "O" else dtype.name


def to_proto(array: np.ndarray) -> Any:
    """Makes a TensorProto."""
    number = type_number(array.dtype)
    proto = protos.tensor.TensorProto(dtype=number)
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    if number == _T.DT_STRING:
        proto.string_val.extend(array.ravel().tolist())
    else:
        proto.tensor_content = array.tobytes()
    return proto


def from_proto(proto: Any) -> np.ndarray:
    """Returns the array of a TensorProto.

    Raises:
      ValueError: the type is not supported, a size is unknown, the number of values does not fit the shape, or one
        value stands for too many.
    """
    dtype, field = numpy_type(proto.dtype), _TYPES[proto.dtype][1]
    shape = tuple(dim.size for dim in proto.tensor_shape.dim)
    if proto.tensor_shape.unknown_rank or any(size < 0 for size in shape):
        raise ValueError(f"its shape is {list(shape)}; the sizes must be known")
    count = 1
    for size in shape:  # Python's integers do not overflow
        count *= size
    if proto.tensor_content and dtype.kind != "O":
        values = np.frombuffer(proto.tensor_content, np.uint8)
        if len(values) != count * dtype.itemsize:
            raise ValueError(f"{len(values)} bytes do not fill {list(shape)} of {type_name(dtype)}")
        return values.view(dtype).reshape(shape)
    listed = getattr(proto, field)
    if len(listed) == 1 and count > 1:  # the short form of equal values, whose bytes do not limit their number
        if count > _MOST_EQUAL:
            raise ValueError(f"{list(shape)} is more than {_MOST_EQUAL} equal values; send each of them")
        return np.broadcast_to(np.array(listed[0], dtype), shape)  # takes no memory
    if len(listed) != count:
        raise ValueError(f"{len(listed)} values do not fill {list(shape)}")
    array = np.empty(count, dtype)
    array[:] = listed
    return array.reshape(shape)
