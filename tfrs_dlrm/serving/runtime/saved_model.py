"""A SavedModel in TensorFlow's C++ runtime, as TF Serving runs it, without TensorFlow's Python.

TF Serving loads a model with the function whose C name is `TF_LoadSessionFromSavedModel`. Unless Python's TensorFlow
was imported, operations that call Python do not exist, as in TF Serving. A call releases the interpreter's lock while
TensorFlow computes, and several threads may call at once.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from tfrs_dlrm.serving.runtime import c_api, protos
from tfrs_dlrm.serving.runtime.signature import Signature, TensorInfo, read_signatures
from tfrs_dlrm.serving.runtime.tensors import type_name


class RunError(Exception):
    """TensorFlow's message, with its code (tensorflow/core/protobuf/error_codes.proto): 3 is INVALID_ARGUMENT."""

    def __init__(self, code: int, message: str):
        super().__init__(message)
        self.code = code

    @property
    def code_name(self) -> str:
        """The code as `INVALID_ARGUMENT`."""
        return protos.error_codes.Code.Name(self.code)


@dataclasses.dataclass(frozen=True)
class _Call:
    """The arguments of TF_SessionRun for a signature."""

    inputs: list[tuple[str, TensorInfo]]
    outputs: list[str]
    feeds: Any
    fetches: Any


class SavedModel:
    """A loaded SavedModel.

        model = SavedModel("exports/clicks/1")
        model.run("serving_default", {"price": np.float32([1.5]), "site": np.array([b"a"], object)})

    Args:
      path: the directory with saved_model.pb.
      threads: the size of each of TensorFlow's pools; by default one thread per core.

    Attributes:
      signatures: by name.
      meta_graph: the MetaGraphDef, without the values of variables.

    Raises:
      RunError: TensorFlow cannot load it; its memory is freed.
      ValueError: a signature has tensors of a type that is not supported; its memory is freed.
    """

    def __init__(self, path: str, threads: int | None = None):
        self.path = path
        self._c = c_api.library()
        self._graph = self._c.TF_NewGraph()
        self._session: int | None = None
        try:
            self.meta_graph = self._load(threads)
            self.signatures = read_signatures(self.meta_graph.signature_def)
            self._calls = {name: self._call(signature) for name, signature in self.signatures.items()}
        except BaseException:
            self.close()
            raise

    def run(self, signature: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the outputs for inputs of the signature's names and types; strings are objects of type bytes.

        Raises:
          KeyError: the signature does not exist, or an input is missing.
          ValueError: an input has another type.
          RunError: TensorFlow refuses the values.
        """
        with self.prepared(signature, inputs) as call:
            return call()

    @contextlib.contextmanager
    def prepared(
        self, signature: str, inputs: Mapping[str, np.ndarray]
    ) -> Iterator[Callable[[], dict[str, np.ndarray]]]:
        """Makes tensors of the inputs once, and yields the function that runs them: for measuring.

        Raises:
          KeyError, ValueError: as `run`.
        """
        call = self._calls[signature]
        for name, info in call.inputs:
            if inputs[name].dtype != info.dtype:
                raise ValueError(
                    f"input {name!r} is of type {type_name(inputs[name].dtype)}; {type_name(info.dtype)} is needed"
                )
        feeds = (c_api.Pointer * len(call.inputs))()
        try:
            kept = c_api.fill_tensors(feeds, [inputs[name] for name, _ in call.inputs])
            yield lambda: self._run(call, feeds)
            del kept  # the bytes of strings, to which outputs may have pointed
        finally:
            for pointer in feeds:
                if pointer:
                    self._c.TF_DeleteTensor(pointer)

    def close(self) -> None:
        """Frees the memory. No thread may be running the model."""
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

    def _load(self, threads: int | None) -> Any:
        """Makes the session; returns the MetaGraphDef."""
        c = self._c
        status, options, buffer = c.TF_NewStatus(), c.TF_NewSessionOptions(), c.TF_NewBuffer()
        try:
            if threads is not None:
                config = protos.config.ConfigProto(
                    intra_op_parallelism_threads=threads, inter_op_parallelism_threads=threads
                ).SerializeToString()
                c.TF_SetConfig(options, config, len(config), status)
            tags = (ctypes.c_char_p * 1)(b"serve")
            self._session = c.TF_LoadSessionFromSavedModel(
                options, None, os.fsencode(self.path), tags, 1, self._graph, buffer, status
            )
            self._check(status)
            contents = buffer.contents
            return protos.meta_graph.MetaGraphDef.FromString(ctypes.string_at(contents.data, contents.length))
        finally:
            c.TF_DeleteBuffer(buffer)
            c.TF_DeleteSessionOptions(options)
            c.TF_DeleteStatus(status)

    def _run(self, call: _Call, feeds: Any) -> dict[str, np.ndarray]:
        c, fetched, status = self._c, (c_api.Pointer * len(call.outputs))(), self._c.TF_NewStatus()
        try:
            c.TF_SessionRun(
                self._session, None, call.feeds, feeds, len(feeds), call.fetches, fetched, len(fetched), None, 0, None,
                status,
            )  # fmt: skip
            self._check(status)
            return {name: c_api.to_array(fetched[i] or 0) for i, name in enumerate(call.outputs)}
        finally:
            for pointer in fetched:
                if pointer:
                    c.TF_DeleteTensor(pointer)
            c.TF_DeleteStatus(status)

    def _check(self, status: int) -> None:
        code = self._c.TF_GetCode(status)
        if code:
            raise RunError(code, self._c.TF_Message(status).decode(errors="replace"))

    def _call(self, signature: Signature) -> _Call:
        feeds, fetches = self._operations(signature.inputs), self._operations(signature.outputs)
        return _Call(list(signature.inputs.items()), list(signature.outputs), feeds, fetches)

    def _operations(self, tensors: Mapping[str, TensorInfo]) -> Any:
        """Returns an array of TF_Output."""
        found = (c_api.Output * len(tensors))()
        for i, info in enumerate(tensors.values()):
            name, _, index = info.tensor.partition(":")
            found[i] = c_api.Output(self._c.TF_GraphOperationByName(self._graph, name.encode()), int(index or 0))
            if not found[i].operation:
                raise RunError(9, f"{self.path}: the signature names {info.tensor!r}, which the graph does not have")
        return found
