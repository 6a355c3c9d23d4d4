"""Converts between TF Serving's JSON and tensors: row format (`instances`) and column format (`inputs`).

https://www.tensorflow.org/tfx/serving/api_rest; messages begin as those of tensorflow_serving/util/json_tensor.cc.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np

from tfrs_dlrm.messages import did_you_mean
from tfrs_dlrm.serving.protocol import InvalidRequest
from tfrs_dlrm.serving.runtime.signature import Signature, TensorInfo
from tfrs_dlrm.serving.server.json_bodies import shown
from tfrs_dlrm.serving.server.json_values import is_b64, leaves
from tfrs_dlrm.serving.server.request_checks import unknown

_MOST_AXES = 16  # less than NumPy's limit, and more than any model needs


def predict_inputs(body: Mapping[str, Any], signature: Signature) -> tuple[dict[str, np.ndarray], bool]:
    """Returns the tensors, and whether they came as rows.

    Raises:
      InvalidRequest: the body has not exactly one of `instances` and `inputs`, or a value is no tensor.
    """
    if "instances" in body and "inputs" in body:
        raise InvalidRequest(
            "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist: columns or rows"
        )
    if "inputs" in body:
        return _columns(body["inputs"], signature), False
    if "instances" not in body:
        raise InvalidRequest("Missing 'inputs' or 'instances' key: columns or rows")
    instances = body["instances"]
    if not isinstance(instances, list):
        raise InvalidRequest(f"Excepting 'instances' to be an list/array; {shown(instances)} is given")
    if not instances:
        raise InvalidRequest(
            f"No values in 'instances' array: an empty batch; rows with {', '.join(signature.inputs)} are expected"
        )
    if not isinstance(instances[0], dict) or is_b64(instances[0]):
        name = _only(signature, "instances is a plain list, but expecting list of objects")
        return {name: _column(name, signature.inputs[name], instances)}, True
    return _rows(instances, signature), True


def _columns(columns: Any, signature: Signature) -> dict[str, np.ndarray]:
    """Returns the tensors of the signature; other columns are ignored, as in TF Serving."""
    if not isinstance(columns, dict) or is_b64(columns):
        columns = {_only(signature, "inputs is a plain value/list, but expecting an object"): columns}
    for name in signature.inputs:
        if name not in columns:
            hint = did_you_mean(name, list(columns), 1)
            raise InvalidRequest(f"Missing named input: {name} in 'inputs' object.{' ' if hint else ''}{hint}")
    return {name: _column(name, info, columns[name]) for name, info in signature.inputs.items()}


def _rows(instances: list[Any], signature: Signature) -> dict[str, np.ndarray]:
    names = signature.inputs.keys()
    for number, row in enumerate(instances):
        if not isinstance(row, dict) or is_b64(row):
            raise InvalidRequest(
                f"Expecting object but got list at item {number} of input list: instances[{number}] is {shown(row)},"
                " and instances[0] an object"
            )
        if row.keys() != names:
            raise _wrong_keys(number, row, signature)
    return {name: _column(name, info, [row[name] for row in instances]) for name, info in signature.inputs.items()}


def _wrong_keys(number: int, row: dict[str, Any], signature: Signature) -> InvalidRequest:
    where = f"Failed to process element: {number}"
    for name in row:
        if name not in signature.inputs:
            return InvalidRequest(
                f"{where} key: {name[:200]} of 'instances' list. Error: INVALID_ARGUMENT: JSON object: does not have"
                f" named input: {name[:200]}; {unknown('input', name, 'the signature', signature.inputs)}"
            )
    missing = [name for name in signature.inputs if name not in row]
    return InvalidRequest(
        f"{where} of 'instances' list. JSON object: {shown(row)} keys must be equal to:"
        f" {','.join(sorted(signature.inputs))}; input {missing[0]!r} is missing in instances[{number}]"
    )


def _only(signature: Signature, fact: str) -> str:
    if len(signature.inputs) != 1:
        raise InvalidRequest(
            f"{fact} as multiple input tensors required as per tensorinfo_map: the signature has several inputs,"
            f" {', '.join(signature.inputs)}"
        )
    return next(iter(signature.inputs))


def _column(name: str, info: TensorInfo, value: Any) -> np.ndarray:
    shape: list[int] = []
    level = [value]
    while level and isinstance(level[0], list):
        sizes = {len(item) if isinstance(item, list) else None for item in level}
        if len(sizes) != 1:
            raise InvalidRequest(f"input {name!r}: lists of different lengths; rectangular ones are expected, {info}")
        shape.append(len(level[0]))
        if info.shape is not None and len(shape) > len(info.shape):  # before millions of values are looked at
            raise InvalidRequest(
                f"input {name!r} has rank {len(shape)} or more; rank {len(info.shape)} is expected, {info}"
            )
        if len(shape) > _MOST_AXES:
            raise InvalidRequest(f"input {name!r}: more than {_MOST_AXES} lists in each other; {info} is expected")
        level = [item for items in level for item in items]
    return leaves(name, info, level).reshape(shape)


def predict_answer(outputs: Mapping[str, np.ndarray], by_rows: bool) -> dict[str, Any]:
    """Returns an object with `predictions` or `outputs`; a single output has no name.

    Raises:
      InvalidRequest: rows were asked for, and the outputs have unequal numbers of them.
    """
    values = {name: _listed(name, array) for name, array in outputs.items()}
    if not by_rows:
        return {"outputs": values if len(values) > 1 else next(iter(values.values()))}
    sizes = {array.shape[0] if array.ndim else None for array in outputs.values()}
    if len(sizes) != 1 or None in sizes:
        most = max((array.shape[0] for array in outputs.values() if array.ndim), default=0)
        name, array = next((n, a) for n, a in outputs.items() if not a.ndim or a.shape[0] != most)
        fact = f"inconsistent batch size: {array.shape[0]}" if array.ndim else "no shape information"
        raise InvalidRequest(f"Tensor name: {name} has {fact}; ask in column format ('inputs')")
    if len(values) == 1:
        return {"predictions": next(iter(values.values()))}
    return {"predictions": [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]}


def _listed(name: str, array: np.ndarray) -> Any:
    if array.dtype.kind != "O":
        return array.tolist()

    def text(value: Any) -> Any:
        if isinstance(value, list):
            return [text(item) for item in value]
        if name.endswith("_bytes"):
            return {"b64": base64.b64encode(value).decode()}
        return value.decode(errors="replace")

    return text(array.tolist())
