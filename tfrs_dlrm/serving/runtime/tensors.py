"""Converts between NumPy arrays and the TensorProtos of requests.

Strings are arrays of dtype object that hold `bytes`: NumPy strings lose trailing zeros.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
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
_MOST_AXES = 32  # more than any model needs
_PART = 1 << 16  # values that are converted in one go, while other threads wait
STRING_BYTES = 80  # of a string beside its characters: as Python's object, in a list, and in TensorFlow
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


def to_proto(array: np.ndarray, as_bytes: bool = True) -> Any:
    """Makes a TensorProto.

    Args:
      array: to send.
      as_bytes: numbers in `tensor_content`, which is fast. Otherwise in `float_val` and its siblings, as TF Serving
        answers: several published clients read nothing else.
    """
    number = type_number(array.dtype)
    proto = protos.tensor.TensorProto(dtype=number)
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    if not as_bytes:
        _list_values(proto, _TYPES[number][1], array)
    elif number == _T.DT_STRING:
        proto.string_val.extend(array.ravel().tolist())
    else:
        proto.tensor_content = array.tobytes()
    return proto


def _list_values(proto: Any, field: str, array: np.ndarray) -> None:
    if array.dtype.kind != "f" or not array.size:
        getattr(proto, field).extend(array.ravel().tolist())
        return
    # On the wire a packed field of floats is its tag, its length and the same bytes: ten times as fast as a list.
    tag = proto.DESCRIPTOR.fields_by_name[field].number << 3 | 2
    proto.MergeFromString(_varint(tag) + _varint(array.nbytes) + array.tobytes())


def _varint(number: int) -> bytes:
    parts = bytearray()
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])


def from_proto(proto: Any) -> np.ndarray:
    """Returns the array of a TensorProto.

    As in TensorFlow (Tensor::FromProto), the last value is repeated if values are fewer than the shape has, and no
    values are zeros or empty strings. More values than the shape has are refused; TensorFlow drops them.

    Raises:
      ValueError: the type is not supported, a size is unknown, the values do not fit the shape, or one value stands
        for too many.
    """
    dtype, (shape, count) = numpy_type(proto.dtype), _checked_shape(proto)
    if proto.tensor_content:
        return _from_content(proto.tensor_content, dtype, count, shape)
    listed = _listed(proto)
    if len(listed) < count:
        return _repeated(listed, dtype, count, shape)
    array = np.empty(count, dtype)
    fill(array, listed)
    return array.reshape(shape)


def memory_of_proto(proto: Any) -> int:
    """Returns the bytes that the array of a TensorProto takes at most, without making it; as `memory` counts.

    A message of some bytes may stand for a tensor of megabytes, since its last value is repeated.

    Raises:
      ValueError: as `from_proto` says.
    """
    dtype, (_, count) = numpy_type(proto.dtype), _checked_shape(proto)
    if dtype.kind != "O":
        return count * dtype.itemsize
    size = count * STRING_BYTES + proto.ByteSize()
    if not proto.tensor_content and 0 < len(proto.string_val) < count:
        size += (count - len(proto.string_val)) * len(proto.string_val[-1])
    return size


def _listed(proto: Any) -> Any:
    return getattr(proto, _TYPES[proto.dtype][1])


def _checked_shape(proto: Any) -> tuple[tuple[int, ...], int]:
    """Returns the shape of a TensorProto and the number of its values, which its bytes can fill."""
    dtype = numpy_type(proto.dtype)
    if len(proto.tensor_shape.dim) > _MOST_AXES:
        raise ValueError(f"its shape has {len(proto.tensor_shape.dim)} axes; at most {_MOST_AXES} are allowed")
    shape = tuple(dim.size for dim in proto.tensor_shape.dim)
    if proto.tensor_shape.unknown_rank or any(size < 0 for size in shape):
        raise ValueError(f"its shape is {list(shape)}; the sizes must be known")
    count = math.prod(shape)  # Python's integers do not overflow
    if proto.tensor_content:
        size, strings = len(proto.tensor_content), dtype.kind == "O"
        if count > size if strings else count * dtype.itemsize != size:  # each string takes a byte or more
            raise ValueError(f"{size} bytes do not fill {list(shape)} of {type_name(dtype)}")
    elif len(_listed(proto)) > count:
        raise ValueError(f"{len(_listed(proto))} values do not fit {list(shape)}")
    elif len(_listed(proto)) < count and count > _MOST_EQUAL:
        raise ValueError(f"{list(shape)} is more than {_MOST_EQUAL} equal values; send each of them")
    return shape, count


def _from_content(content: bytes, dtype: np.dtype[Any], count: int, shape: tuple[int, ...]) -> np.ndarray:
    if dtype.kind != "O":
        return np.frombuffer(content, dtype).reshape(shape)
    array = np.empty(count, object)
    fill(array, _strings(content, count))
    return array.reshape(shape)


def _strings(content: bytes, count: int) -> list[bytes]:
    """Reads the lengths of all strings as varints, and then their bytes: TensorFlow's EncodeStringList."""
    sizes, place = [], 0
    for _ in range(count):
        size = shift = 0
        while True:
            if place == len(content) or shift > 28:
                raise ValueError(f"tensor_content does not hold the lengths of {count} strings")
            byte = content[place]
            size |= (byte & 127) << shift
            place, shift = place + 1, shift + 7
            if byte < 128:
                break
        sizes.append(size)
    if place + sum(sizes) != len(content):
        raise ValueError(f"tensor_content has {len(content) - place} bytes of strings; their lengths say {sum(sizes)}")
    strings = []
    for size in sizes:
        strings.append(content[place : place + size])
        place += size
    return strings


def _repeated(listed: Any, dtype: np.dtype[Any], count: int, shape: tuple[int, ...]) -> np.ndarray:
    """Fills a shape with fewer values, which its bytes do not limit."""
    last = listed[-1] if len(listed) else b"" if dtype.kind == "O" else 0
    if len(listed) <= 1:
        return np.broadcast_to(np.array(last, dtype), shape)  # takes no memory
    array = np.full(count, last, dtype)
    fill(array[: len(listed)], listed)
    return array.reshape(shape)


def fill(array: np.ndarray, values: Sequence[Any]) -> None:
    """Sets the values of an array with one axis, in parts: NumPy keeps all other threads waiting while it converts."""
    for start in range(0, len(array), _PART):
        array[start : start + _PART] = values[start : start + _PART]


def memory(array: np.ndarray) -> int:
    """Returns the bytes that a tensor takes at most once every value has its place: strings count wherever they stand.

    A value that was broadcast counts as often as it stands in the tensor, since operations of TensorFlow may copy it.
    """
    if array.dtype.kind != "O":
        return array.size * array.itemsize
    if array.size and not any(array.strides):  # one value that was broadcast
        return array.size * (STRING_BYTES + len(array.flat[0]))
    return array.size * STRING_BYTES + sum(map(len, array.flat))
