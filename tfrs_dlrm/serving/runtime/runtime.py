"""A SavedModel in TensorFlow's C++ runtime, through its C API: what TF Serving runs, and no Python of TensorFlow's.

`TF_LoadSessionFromSavedModel` is the C name of the function with which TF Serving loads a model. Where Python's
TensorFlow was not imported, operations that call back into Python do not exist, as in TF Serving. A call releases the
interpreter's lock while TensorFlow computes, and several threads may call at once.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from tfrs_dlrm.serving.runtime import protos
from tfrs_dlrm.serving.runtime.tensors import numpy_type, type_name, type_number


class RunError(Exception):
    """What TensorFlow said, with its code (tensorflow/core/protobuf/error_codes.proto): 3 is INVALID_ARGUMENT."""

    def __init__(self, code: int, message: str):
        super().__init__(message)
        self.code = code

    @property
    def code_name(self) -> str:
        """As `INVALID_ARGUMENT`."""
        return protos.error_codes.Code.Name(self.code)


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """One input or output of a signature.

    Attributes:
      tensor: its name in the graph, as `serving_default_price:0`.
      dtype: object for strings.
      shape: None for a size that may vary; None as a whole where the rank may.
    """

    tensor: str
    dtype: np.dtype[Any]
    shape: tuple[int | None, ...] | None

    def __str__(self) -> str:
        return f"{type_name(self.dtype)} {shape_text(self.shape)}"


@dataclasses.dataclass(frozen=True)
class Signature:
    """What can be asked of a model.

    Attributes:
      method: `tensorflow/serving/predict`, `.../regress` or `.../classify`.
      inputs: by name.
      outputs: by name.
    """

    method: str
    inputs: Mapping[str, TensorInfo]
    outputs: Mapping[str, TensorInfo]


class SavedModel:
    """A loaded SavedModel.

        model = SavedModel("exports/clicks/1")
        model.run("serving_default", {"price": np.float32([1.5]), "site": np.array([b"a"], object)})

    Args:
      path: the directory with saved_model.pb.
      threads: of TensorFlow's pools, each; by default one for each core.

    Attributes:
      signatures: by name.
      meta_graph: the MetaGraphDef, without its variables' values.

    Raises:
      RunError: it cannot be loaded; nothing of it stays in memory.
      ValueError: likewise: a signature has tensors of a type that is not supported.
    """

    def __init__(self, path: str, threads: int | None = None):
        self.path = path
        self._c = _library()
        self._graph = self._c.TF_NewGraph()
        self._session: int | None = None
        status, options, buffer = self._c.TF_NewStatus(), self._c.TF_NewSessionOptions(), self._c.TF_NewBuffer()
        try:
            if threads is not None:
                config = protos.config.ConfigProto(
                    intra_op_parallelism_threads=threads, inter_op_parallelism_threads=threads
                ).SerializeToString()
                self._c.TF_SetConfig(options, config, len(config), status)
            tags = (ctypes.c_char_p * 1)(b"serve")
            self._session = self._c.TF_LoadSessionFromSavedModel(
                options, None, os.fsencode(path), tags, 1, self._graph, buffer, status
            )
            self._check(status)
            contents = buffer.contents
            self.meta_graph = protos.meta_graph.MetaGraphDef.FromString(
                ctypes.string_at(contents.data, contents.length)
            )
            # Restoring is no question that could be asked of a model, and its output is no tensor.
            definitions = self.meta_graph.signature_def.items()
            self.signatures = {name: read_signature(s) for name, s in definitions if not name.startswith("__")}
            self._calls = {name: self._call(signature) for name, signature in self.signatures.items()}
        except BaseException:
            self.close()
            raise
        finally:
            self._c.TF_DeleteBuffer(buffer)
            self._c.TF_DeleteSessionOptions(options)
            self._c.TF_DeleteStatus(status)

    def run(self, signature: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The outputs for inputs of the signature's names and types; strings are objects of type bytes.

        Raises:
          KeyError: there is no such signature, or an input is missing.
          ValueError: an input is of another type.
          RunError: TensorFlow refuses the values.
        """
        with self.prepared(signature, inputs) as call:
            return call()

    @contextlib.contextmanager
    def prepared(
        self, signature: str, inputs: Mapping[str, np.ndarray]
    ) -> Iterator[Callable[[], dict[str, np.ndarray]]]:
        """Makes tensors of the inputs, once, and gives what runs them: to measure without what Python takes for that.

        Raises:
          KeyError, ValueError: as `run`.
        """
        call = self._calls[signature]
        feeds, keep = (_Pointer * len(call.inputs))(), []
        try:
            for i, (name, info) in enumerate(call.inputs):
                array = inputs[name]
                if array.dtype != info.dtype:
                    raise ValueError(
                        f"input {name!r} is of type {type_name(array.dtype)}; {type_name(info.dtype)} is needed"
                    )
                feeds[i], kept = self._tensor(array)
                keep.append(kept)  # strings are read in place, by the outputs too
            yield lambda: self._run(call, feeds)
        finally:
            for pointer in feeds:
                if pointer:
                    self._c.TF_DeleteTensor(pointer)

    def _run(self, call: _Call, feeds: Any) -> dict[str, np.ndarray]:
        c, fetched, status = self._c, (_Pointer * len(call.outputs))(), self._c.TF_NewStatus()
        try:
            c.TF_SessionRun(
                self._session, None, call.feeds, feeds, len(feeds), call.fetches, fetched, len(fetched), None, 0, None,
                status,
            )  # fmt: skip
            self._check(status)
            return {name: self._array(fetched[i] or 0) for i, (name, _) in enumerate(call.outputs)}
        finally:
            for pointer in fetched:
                if pointer:
                    c.TF_DeleteTensor(pointer)
            c.TF_DeleteStatus(status)

    def operations(self) -> Iterator[str]:
        """The types of all operations, those of functions included, as often as they occur."""
        graph = self.meta_graph.graph_def
        yield from (node.op for node in graph.node)
        for function in graph.library.function:
            yield from (node.op for node in function.node_def)

    def close(self) -> None:
        """Frees its memory. No thread may be running it."""
        if self._session:
            status = self._c.TF_NewStatus()
            self._c.TF_CloseSession(self._session, status)
            self._c.TF_DeleteSession(self._session, status)
            self._c.TF_DeleteStatus(status)
            self._session = None
        if self._graph:
            self._c.TF_DeleteGraph(self._graph)
            self._graph = None

    def __enter__(self) -> SavedModel:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _check(self, status: int) -> None:
        code = self._c.TF_GetCode(status)
        if code:
            raise RunError(code, self._c.TF_Message(status).decode(errors="replace"))

    def _call(self, signature: Signature) -> _Call:
        inputs, outputs = list(signature.inputs.items()), list(signature.outputs.items())

        def places(items: list[tuple[str, TensorInfo]]) -> Any:
            found = (_Output * len(items))()
            for i, (_, info) in enumerate(items):
                operation, _, index = info.tensor.partition(":")
                found[i] = _Output(self._c.TF_GraphOperationByName(self._graph, operation.encode()), int(index or 0))
                if not found[i].operation:
                    raise RunError(
                        9, f"{self.path}: the signature names {info.tensor!r}, which the graph does not have"
                    )
            return found

        return _Call(inputs, outputs, places(inputs), places(outputs))

    def _tensor(self, array: np.ndarray) -> tuple[int, Any]:
        """A TF_Tensor, and what must not go away before its last reader."""
        keep = None
        if array.dtype.kind == "O":
            array, keep = _views(array)
            number, shape = protos.types_.DT_STRING, array.shape[:-1]
        else:
            number, shape = type_number(array.dtype), array.shape
            array = np.ascontiguousarray(array)  # of a scalar, [1]
        sizes = (ctypes.c_int64 * len(shape))(*shape)
        pointer = self._c.TF_AllocateTensor(number, sizes, len(shape), array.nbytes)
        if array.nbytes:
            ctypes.memmove(self._c.TF_TensorData(pointer), array.ctypes.data, array.nbytes)
        return pointer, keep

    def _array(self, pointer: int) -> np.ndarray:
        c = self._c
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


@dataclasses.dataclass(frozen=True)
class _Call:
    """A signature, ready for TF_SessionRun."""

    inputs: list[tuple[str, TensorInfo]]
    outputs: list[tuple[str, TensorInfo]]
    feeds: Any
    fetches: Any


def shape_text(shape: tuple[int | None, ...] | None) -> str:
    """As `[?, 13]`."""
    return "of any shape" if shape is None else f"[{', '.join('?' if n is None else str(n) for n in shape)}]"


def read_signature(definition: Any) -> Signature:
    """Of a SignatureDef."""

    def infos(tensors: Mapping[str, Any]) -> dict[str, TensorInfo]:
        return {
            name: TensorInfo(t.name, numpy_type(t.dtype), _shape(t.tensor_shape)) for name, t in sorted(tensors.items())
        }

    return Signature(definition.method_name, infos(definition.inputs), infos(definition.outputs))


def _shape(proto: Any) -> tuple[int | None, ...] | None:
    return None if proto.unknown_rank else tuple(None if d.size < 0 else d.size for d in proto.dim)


_STRING_SIZE = 24  # of a TF_TString, tensorflow/core/platform/ctstring_internal.h
_VIEW = 3  # the lowest two bits of its first word: what follows is a pointer to bytes that others own


def _views(strings: np.ndarray) -> tuple[np.ndarray, Any]:
    """TF_TStrings [..., 3 words] that point into the one buffer that is returned as well."""
    flat = strings.ravel().tolist()
    joined = b"".join(flat)
    lengths = np.fromiter(map(len, flat), np.uint64, len(flat))
    words = np.zeros((len(flat), 3), np.uint64)
    buffer = ctypes.create_string_buffer(joined, len(joined) + 1)
    words[:, 0] = lengths << np.uint64(2) | np.uint64(_VIEW)
    words[:, 1] = ctypes.addressof(buffer) + np.cumsum(lengths, dtype=np.uint64) - lengths
    return words.reshape(*strings.shape, 3), buffer


_Pointer = ctypes.c_void_p


class _Output(ctypes.Structure):
    """TF_Output."""

    _fields_ = [("operation", _Pointer), ("index", ctypes.c_int)]


class _Buffer(ctypes.Structure):
    """TF_Buffer."""

    _fields_ = [("data", _Pointer), ("length", ctypes.c_size_t), ("deallocator", _Pointer)]


_loaded: Any = None


def _library() -> Any:
    """TensorFlow's C API; the process has one, whether Python's TensorFlow is there or not."""
    global _loaded
    if _loaded is None:
        # Not RTLD_GLOBAL: extension modules that are loaded later would take some of their symbols from it, and crash.
        library = ctypes.CDLL(os.path.join(protos.tensorflow_directory(), "libtensorflow_cc.so.2"))
        p, text, integer, size = _Pointer, ctypes.c_char_p, ctypes.c_int, ctypes.c_size_t
        outputs, pointers, buffer = ctypes.POINTER(_Output), ctypes.POINTER(p), ctypes.POINTER(_Buffer)
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
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
        _loaded = library
    return _loaded


def tensorflow_version() -> str:
    """Of the C++ runtime."""
    return _library().TF_Version().decode()
