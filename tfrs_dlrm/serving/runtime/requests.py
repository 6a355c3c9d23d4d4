"""Converts TF Serving's requests to the inputs of a signature, and rows to tf.Examples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np

from tfrs_dlrm.serving.protocol import InvalidRequest
from tfrs_dlrm.serving.runtime import protos
from tfrs_dlrm.serving.runtime.signature import Signature
from tfrs_dlrm.serving.runtime.tensors import from_proto, memory_of_proto

_Result = TypeVar("_Result")
_EXAMPLE_BYTES = 64  # of an Example beside its content: as Python's object, and in a list
_NOUNS = {"regress": "regression", "classify": "classification"}


def predict_inputs(request: Any) -> dict[str, np.ndarray]:
    """Reads the tensors of a PredictRequest.

    Raises:
      InvalidRequest: a tensor cannot be read.
    """
    return {name: _named(name, from_proto, proto) for name, proto in request.inputs.items()}


def memory_of_inputs(request: Any) -> int:
    """Returns the bytes that the tensors of a PredictRequest take at most, without making them.

    Raises:
      InvalidRequest: a tensor cannot be read.
    """
    return sum(_named(name, memory_of_proto, proto) for name, proto in request.inputs.items())


def _named(name: str, function: Callable[[Any], _Result], proto: Any) -> _Result:
    try:
        return function(proto)
    except ValueError as e:
        raise InvalidRequest(f"input {name!r}: {e}") from e


def number_of_examples(input_: Any) -> int:
    """Returns how many Examples an Input has."""
    kind = input_.WhichOneof("kind")
    return len(getattr(input_, kind).examples) if kind else 0


def memory_of_examples(input_: Any) -> int:
    """Returns the bytes of what `serialized_examples` returns, in which each example has a copy of the context."""
    context = input_.example_list_with_context.context.ByteSize() if input_.HasField("example_list_with_context") else 0
    return input_.ByteSize() + number_of_examples(input_) * (context + _EXAMPLE_BYTES)


def serialized_examples(input_: Any) -> np.ndarray:
    """Returns the serialized Examples of an Input, string [B]; features of an example override features of the context.

    Raises:
      InvalidRequest: the Input has no Example.
    """
    kind = input_.WhichOneof("kind")
    if kind == "example_list":
        parts = [example.SerializeToString() for example in input_.example_list.examples]
    elif kind == "example_list_with_context":
        listed = input_.example_list_with_context
        context = listed.context.SerializeToString()
        # The concatenation of two serialized messages is their merger.
        parts = [context + example.SerializeToString() for example in listed.examples]
    else:
        parts = []
    if not parts:
        raise InvalidRequest("input 'examples' is an empty batch; at least one tf.Example is expected")
    array = np.empty(len(parts), object)
    array[:] = parts
    return array


def example_inputs(method: str, name: str, signature: Signature, examples: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the inputs of a `regress` or `classify` signature.

    Raises:
      InvalidRequest: the signature has another method.
    """
    if signature.method != f"tensorflow/serving/{method}":
        raise InvalidRequest(
            f"Expected {_NOUNS[method]} signature method_name to be tensorflow/serving/{method}. Was:"
            f" {signature.method}: signature {name!r}; name one by signature_name, as {method!r}"
        )
    return {next(iter(signature.inputs)): examples}


def to_examples(raw: Mapping[str, np.ndarray]) -> list[Any]:
    """Makes a tf.Example of each row."""
    rows = len(next(iter(raw.values())))
    return [to_example({name: values[row] for name, values in raw.items()}) for row in range(rows)]


def to_example(row: Mapping[str, Any]) -> Any:
    """Makes a tf.Example of the values of one row, by name."""
    example = protos.example.Example()
    for name, value in row.items():
        values = np.atleast_1d(np.asarray(value, object if isinstance(value, bytes) else None))
        feature = example.features.feature[name]
        kind = {"O": feature.bytes_list, "f": feature.float_list}.get(values.dtype.kind, feature.int64_list)
        kind.value.extend(values.ravel().tolist())
    return example
