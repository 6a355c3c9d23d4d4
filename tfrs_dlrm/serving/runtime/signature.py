"""Signatures of a model: names, types and shapes of inputs and outputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from tfrs_dlrm.serving.runtime.tensors import numpy_type, type_name


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """One input or output of a signature.

    Attributes:
      tensor: its name in the graph, as `serving_default_price:0`.
      dtype: object for strings.
      shape: None for a size that may vary; None as a whole if the rank may vary.
    """

    tensor: str
    dtype: np.dtype[Any]
    shape: tuple[int | None, ...] | None

    def __str__(self) -> str:
        return f"{type_name(self.dtype)} {shape_text(self.shape)}"


@dataclasses.dataclass(frozen=True)
class Signature:
    """One question that a model answers.

    Attributes:
      method: `tensorflow/serving/predict`, `.../regress` or `.../classify`.
      inputs: by name.
      outputs: by name.
    """

    method: str
    inputs: Mapping[str, TensorInfo]
    outputs: Mapping[str, TensorInfo]


def shape_text(shape: tuple[int | None, ...] | None) -> str:
    """Returns a shape as `[?, 13]`."""
    return "of any shape" if shape is None else f"[{', '.join('?' if n is None else str(n) for n in shape)}]"


def read_signatures(definitions: Mapping[str, Any]) -> dict[str, Signature]:
    """Reads SignatureDefs by name, without the ones that save, restore and initialize."""
    return {name: _signature(proto) for name, proto in definitions.items() if not name.startswith("__")}


def _signature(proto: Any) -> Signature:
    return Signature(proto.method_name, _tensors(proto.inputs), _tensors(proto.outputs))


def _tensors(protos: Mapping[str, Any]) -> dict[str, TensorInfo]:
    return {name: TensorInfo(t.name, numpy_type(t.dtype), _shape(t.tensor_shape)) for name, t in sorted(protos.items())}


def _shape(proto: Any) -> tuple[int | None, ...] | None:
    return None if proto.unknown_rank else tuple(None if d.size < 0 else d.size for d in proto.dim)
