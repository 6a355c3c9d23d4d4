"""TensorFlow's C API through ctypes: the functions and structures that loading and running a SavedModel needs."""

from __future__ import annotations

import ctypes
import functools
import os
import types
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfrs_dlrm.serving.runtime import protos
from tfrs_dlrm.serving.runtime.tensors import numpy_type, type_number

Pointer = ctypes.c_void_p

_STRING_SIZE = 24  # of a TF_TString, tensorflow/core/platform/ctstring_internal.h
_VIEW = 3  # the lowest two bits of a TF_TString's first word: the second word points to bytes of somebody else

_FEW = 4096  # bytes of an array
_WORTH_SHARING = 1 << 16  # bytes of strings, from which on equal objects are looked for
# What may take long, so that other threads run meanwhile. The others take less time than giving up the interpreter's
# lock and waiting for it again, which a request with 39 inputs would do 300 times.
_LONG = {
    "TF_LoadSessionFromSavedModel",
    "TF_SessionRun",
    "TF_CloseSession",
    "TF_DeleteSession",
    "TF_DeleteGraph",
}


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
    path = os.path.join(protos.tensorflow_directory(), "libtensorflow_cc.so.2")
    loaded, short = ctypes.CDLL(path), ctypes.PyDLL(path)
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
    api = types.SimpleNamespace()
    for name, result, *arguments in functions:
        function = getattr(loaded if name in _LONG else short, name)
        function.restype, function.argtypes = result, arguments
        setattr(api, name, function)
    return api


def tensorflow_version() -> str:
    """Returns the version of the C++ runtime."""
    return library().TF_Version().decode()


def fill_tensors(tensors: Any, arrays: Sequence[np.ndarray]) -> Any:
    """Makes TF_Tensors of arrays.

    Args:
      tensors: an array of pointers, of which each is set as soon as its tensor exists.
      arrays: what the tensors hold; strings are objects of type bytes.

    Returns:
      What the strings point to, to be kept until their last reader is done.
    """
    c, sizes = library(), dict[tuple[int, ...], Any]()
    strings = [array for array in arrays if array.dtype.kind == "O"]
    views, joined = _string_views(strings)
    place = views.ctypes.data
    for i, array in enumerate(arrays):
        shape = array.shape
        if shape not in sizes:
            sizes[shape] = (ctypes.c_int64 * len(shape))(*shape)
        if array.dtype.kind == "O":
            number, size = protos.types_.DT_STRING, array.size * _STRING_SIZE
            data: Any = place
            place += size
        else:
            number, size = type_number(array.dtype), array.nbytes
            # A copy of few bytes costs less than to ask NumPy for the address.
            data = array.tobytes() if size <= _FEW else np.ascontiguousarray(array).ctypes
        tensors[i] = tensor = c.TF_AllocateTensor(number, sizes[shape], len(shape), size)
        if size:
            ctypes.memmove(c.TF_TensorData(tensor), data, size)
    return joined


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


def _string_views(arrays: Sequence[np.ndarray]) -> tuple[np.ndarray, bytes]:
    """Returns TF_TStrings [N, 3 words], array after array, that point into one buffer, and the buffer.

    An object that stands in several places, as a broadcast string does, is in the buffer once.
    """
    flat = [text for array in arrays for text in array.ravel().tolist()]
    lengths = np.fromiter(map(len, flat), np.uint64, len(flat))
    sizes, place = lengths, None
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
    words[:, 1] = starts if place is None else starts[place]
    return words, joined
