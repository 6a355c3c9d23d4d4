"""What TF Serving's requests hold, as tensors of a signature's inputs."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfrs_dlrm.serving.runtime.runtime import Signature
from tfrs_dlrm.serving.runtime.tensors import from_proto
from tfrs_dlrm.serving.server.errors import InvalidRequest

DEFAULT_SIGNATURE = "serving_default"
METHODS = ("predict", "regress", "classify")


def predict_inputs(request: Any) -> dict[str, np.ndarray]:
    """Of a PredictRequest.

    Raises:
      InvalidRequest: a tensor cannot be read.
    """
    inputs = {}
    for name, proto in request.inputs.items():
        try:
            inputs[name] = from_proto(proto)
        except ValueError as e:
            raise InvalidRequest(f"input {name!r}: {e}") from e
    return inputs


def serialized_examples(input_: Any) -> np.ndarray:
    """The Examples of an Input: string [B]; those of the context come first, so that an example's own win.

    Raises:
      InvalidRequest: it has none.
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
    """The inputs of a `regress` or `classify` signature.

    Raises:
      InvalidRequest: the signature is of another method.
    """
    if signature.method != f"tensorflow/serving/{method}":
        raise InvalidRequest(
            f"signature {name!r} is of method {signature.method}; {method} needs tensorflow/serving/{method}:"
            f" name one by signature_name, as {method!r}"
        )
    return {next(iter(signature.inputs)): examples}
