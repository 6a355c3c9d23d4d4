"""TensorFlow's C API through ctypes: the functions and structures that loading and running a SavedModel needs."""

from __future__ import annotations

import ctypes
import functools
import os
from typing import Any

import numpy as np

from tfrs_dlrm.serving.runtime import protos
from tfrs_dlrm.serving.runtime.tensors import numpy_type, type_number

Pointer = ctypes.c_void_p

_STRING_SIZE = 24  # of a TF_TString, tensorflow/core/platform/ctstring_internal.h
_VIEW = 3  # the lowest two bits of a TF_TString's first word: the second word points to bytes of somebody else

_WORTH_SHARING = 1 << 16  # bytes of strings, from which on equal objects are looked for


class Output(ctypes.Structure):
    """TF_Output."""

    _fields_ = [("operation", Pointer), ("index", ctypes.c_int)]


class Buffer(ctypes.Structure):
    """TF_Buffer."""

    _fields_ = [("data", Pointer), ("length", ctypes.c_size_t), ("deallocator", Pointer)]


@functools.cache
def library() -> Any:
    """Returns TensorFlow's C API, of which a process has one, whether Python's TensorFlow is loaded or not."""
    # Not RTLD_GLOBAL: extension modules that are loaded later would take some of their symbols from it, and crash.
    loaded = ctypes.CDLL(os.path.join(protos.tensorflow_directory(), "libtensorflow_cc.so.2"))
    p, text, integer, size = Pointer, ctypes.c_char_p, ctypes.c_int, ctypes.c_size_t
    outputs, pointers, buffer = ctypes.POINTER(Output), ctypes.POINTER(p), ctypes.POINTER(Buffer)
    sizes = ctypes.POINTER(ctypes.c_int64)
    functions: list[tuple[Any, ...]] = [
        ("TF_NewStatus", p),
        ("TF_DeleteStatus", None, p),
        ("TF_GetCode", integer, p),
        ("TF_Message", text, p),
        ("TF_NewGraph", p),
        ("TF_DeleteGraph", None, p),
        ("TF_NewSessionOptions", p),
        ("TF_DeleteSessionOptions", None, p),
        ("TF_SetConfig", None, p, text, size, p),
        ("TF_NewBuffer", buffer),
        ("TF_DeleteBuffer", None, buffer),
        ("TF_LoadSessionFromSavedModel", p, p, p, text, ctypes.POINTER(text), integer, p, buffer, p),
        ("TF_GraphOperationByName", p, p, text),
        ("TF_SessionRun", None, p, p, outputs, pointers, integer, outputs, pointers, integer, p, integer, p, p),
        ("TF_CloseSession", None, p, p),
        ("TF_DeleteSession", None, p, p),
        ("TF_AllocateTensor", p, integer, sizes, integer, size),
        ("TF_DeleteTensor", None, p),
        ("TF_TensorType", integer, p),
        ("TF_NumDims", integer, p),
        ("TF_Dim", ctypes.c_int64, p, integer),
        ("TF_TensorByteSize", size, p),
        ("TF_TensorData", p, p),
        ("TF_StringGetDataPointer", p, p),
        ("TF_StringGetSize", size, p),
        ("TF_Version", text),
    ]
    for name, result, *arguments in functions:
        function = getattr(loaded, name)
        function.restype, function.argtypes = result, arguments
    return loaded


def tensorflow_version() -> str:
    """Returns the version of the C++ runtime."""
    return library().TF_Version().decode()


def new_tensor(array: np.ndarray) -> tuple[int, Any]:
    """Makes a TF_Tensor; also returns what its strings point to, to be kept until its last reader is done."""
    buffer = None
    if array.dtype.kind == "O":
        array, buffer = _string_views(array)
        number, shape = protos.types_.DT_STRING, array.shape[:-1]
    else:
        number, shape = type_number(array.dtype), array.shape
        array = np.ascontiguousarray(array)  # makes [1] of a scalar
    sizes = (ctypes.c_int64 * len(shape))(*shape)
    pointer = library().TF_AllocateTensor(number, sizes, len(shape), array.nbytes)
    if array.nbytes:
        ctypes.memmove(library().TF_TensorData(pointer), array.ctypes.data, array.nbytes)
    return pointer, buffer


def to_array(pointer: int) -> np.ndarray:
    """Copies a TF_Tensor."""
    c = library()
    dtype = numpy_type(c.TF_TensorType(pointer))
    shape = tuple(c.TF_Dim(pointer, i) for i in range(c.TF_NumDims(pointer)))
    data, size = c.TF_TensorData(pointer), c.TF_TensorByteSize(pointer)
    if dtype.kind != "O":
        raw = (ctypes.c_char * size).from_address(data) if size else b""
        return np.frombuffer(raw, dtype).reshape(shape).copy()
    array = np.empty(int(np.prod(shape)), object)
    for i in range(len(array)):
        text = data + i * _STRING_SIZE
        array[i] = ctypes.string_at(c.TF_StringGetDataPointer(text), c.TF_StringGetSize(text))
    return array.reshape(shape)


def _string_views(strings: np.ndarray) -> tuple[np.ndarray, Any]:
    """Returns TF_TStrings [..., 3 words] that point into one buffer, and the buffer.

    An object that stands in several places, as a broadcast string does, is in the buffer once.
    """
    flat = strings.ravel().tolist()
    lengths = np.fromiter(map(len, flat), np.uint64, len(flat))
    sizes, place = lengths, np.arange(len(flat))
    if lengths.sum() > _WORTH_SHARING:
        objects = np.fromiter(map(id, flat), np.uint64, len(flat))
        _, first, place = np.unique(objects, return_index=True, return_inverse=True)
        flat, sizes = [flat[i] for i in first.tolist()], lengths[first]
    joined = b"".join(flat)
    # Not a copy: the tensor's strings point into the bytes object, which is kept as long as the tensor.
    begin = ctypes.cast(ctypes.c_char_p(joined), Pointer).value or 0
    starts = np.uint64(begin) + np.cumsum(sizes, dtype=np.uint64) - sizes
    words = np.zeros((len(lengths), 3), np.uint64)
    words[:, 0] = lengths << np.uint64(2) | np.uint64(_VIEW)
    words[:, 1] = starts[place]
    return words.reshape(*strings.shape, 3), joined
