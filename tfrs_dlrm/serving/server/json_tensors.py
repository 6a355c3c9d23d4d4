"""Converts between TF Serving's JSON and tensors: row format (`instances`), column format (`inputs`), and Examples.

https://www.tensorflow.org/tfx/serving/api_rest
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

import numpy as np

from tfrs_dlrm.serving.protocol import InvalidRequest
from tfrs_dlrm.serving.runtime import protos
from tfrs_dlrm.serving.runtime.signature import Signature, TensorInfo
from tfrs_dlrm.serving.runtime.tensors import fill, type_name
from tfrs_dlrm.serving.server.json_bodies import shown

# Python types of JSON values by kind of NumPy type.
_NUMBERS: dict[str, set[type]] = {"f": {int, float}, "i": {int}, "u": {int}, "b": {bool}}

_MOST_AXES = 16  # less than NumPy's limit, and more than any model needs


def predict_inputs(body: Mapping[str, Any], signature: Signature) -> tuple[dict[str, np.ndarray], bool]:
    """Returns the tensors, and whether they came as rows.

    Raises:
      InvalidRequest: the body has not exactly one of `instances` and `inputs`, or a value is no tensor.
    """
    if ("instances" in body) == ("inputs" in body):
        raise InvalidRequest("the body must have either 'instances' (rows) or 'inputs' (columns)")
    if "inputs" in body:
        columns = body["inputs"]
        if not isinstance(columns, dict) or _is_b64(columns):
            columns = {_only(signature, "inputs"): columns}
        return {name: _column(name, signature.inputs.get(name), value) for name, value in columns.items()}, False
    instances = body["instances"]
    if not isinstance(instances, list):
        raise InvalidRequest("'instances' must be a list of rows")
    if not instances:
        raise InvalidRequest(f"'instances' is an empty batch; rows with {', '.join(signature.inputs)} are expected")
    if not isinstance(instances[0], dict) or _is_b64(instances[0]):
        name = _only(signature, "instances")
        return {name: _column(name, signature.inputs[name], instances)}, True
    return _rows(instances, signature), True


def _rows(instances: list[Any], signature: Signature) -> dict[str, np.ndarray]:
    names = list(instances[0])
    for number, row in enumerate(instances):
        if not isinstance(row, dict):
            raise InvalidRequest(f"instances[{number}] is no object, as instances[0] is")
        if row.keys() != instances[0].keys():
            wrong = next(iter(row.keys() ^ instances[0].keys()))
            lacks, has = (number, 0) if wrong not in row else (0, number)
            raise InvalidRequest(f"instances[{lacks}] lacks input {wrong!r}, which instances[{has}] has")
    return {name: _column(name, signature.inputs.get(name), [row[name] for row in instances]) for name in names}


def _only(signature: Signature, key: str) -> str:
    if len(signature.inputs) != 1:
        raise InvalidRequest(f"{key!r} has no names; the signature has several inputs: {', '.join(signature.inputs)}")
    return next(iter(signature.inputs))


def _column(name: str, info: TensorInfo | None, value: Any) -> np.ndarray:
    """Returns the tensor of one input; `request_checks` refuses inputs that the signature does not have."""
    if info is None:
        return np.zeros(0, np.float32)
    shape: list[int] = []
    level = [value]
    while level and isinstance(level[0], list):
        sizes = {len(item) if isinstance(item, list) else None for item in level}
        if len(sizes) != 1:
            raise InvalidRequest(f"input {name!r}: lists of different lengths; rectangular ones are expected, {info}")
        shape.append(len(level[0]))
        if len(shape) > _MOST_AXES:
            raise InvalidRequest(f"input {name!r}: more than {_MOST_AXES} lists in each other; {info} is expected")
        level = [item for items in level for item in items]
    return _leaves(name, info, level).reshape(shape)


def _leaves(name: str, info: TensorInfo, values: list[Any]) -> np.ndarray:
    array = np.empty(len(values), info.dtype)
    if info.dtype.kind == "O":
        fill(array, [_bytes(name, value) for value in values])
        return array
    allowed = _NUMBERS[info.dtype.kind]
    if not {type(value) for value in values} <= allowed:
        wrong = next(value for value in values if type(value) not in allowed)
        hint = "; a missing number is sent as NaN" if wrong is None and info.dtype.kind == "f" else ""
        raise InvalidRequest(f"input {name!r}: {shown(wrong)} is given; {type_name(info.dtype)} is expected{hint}")
    try:
        with np.errstate(over="raise"):
            fill(array, values)
    except (OverflowError, FloatingPointError) as e:
        raise InvalidRequest(f"input {name!r}: a number is outside the range of {type_name(info.dtype)}") from e
    return array


def _bytes(name: str, value: Any) -> bytes:
    if isinstance(value, str):
        try:
            return value.encode()
        except UnicodeEncodeError as e:
            raise InvalidRequest(f"input {name!r}: {shown(value)} is no Unicode text; send bytes as b64") from e
    if _is_b64(value):
        try:
            return base64.b64decode(value["b64"], validate=True)
        except (binascii.Error, ValueError, TypeError) as e:
            raise InvalidRequest(f"input {name!r}: {shown(value)} is no base64: {e}") from e
    raise InvalidRequest(f'input {name!r}: {shown(value)} is given; a string or {{"b64": ...}} is expected')


def _is_b64(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"b64"}


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
        raise InvalidRequest("the outputs have unequal numbers of rows; ask in column format ('inputs')")
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


def examples(body: Mapping[str, Any]) -> Any:
    """The Input of a `regress` or `classify` request: numbers with a point become floats, others integers.

    Raises:
      InvalidRequest: `examples` are missing, or a value fits no feature.
    """
    rows = body.get("examples")
    if not isinstance(rows, list) or not rows:
        raise InvalidRequest("the body must have 'examples', a list of at least one object of features")
    input_ = protos.input_.Input()
    if "context" in body:
        listed = input_.example_list_with_context
        _fill(listed.context, body["context"], "context")
        target = listed.examples
    else:
        target = input_.example_list.examples
    for number, row in enumerate(rows):
        _fill(target.add(), row, f"examples[{number}]")
    return input_


def _fill(example: Any, row: Any, where: str) -> None:
    if not isinstance(row, dict):
        raise InvalidRequest(f"{where} is no object of features")
    for name, value in row.items():
        values = value if isinstance(value, list) else [value]
        kinds = {type(item) for item in values}
        try:
            feature = example.features.feature[name]  # a UnicodeEncodeError for half a surrogate pair
            if not kinds:
                continue
            if kinds <= {int}:
                feature.int64_list.value.extend(values)
            elif kinds <= {int, float}:
                feature.float_list.value.extend(values)
            elif kinds <= {str, dict}:
                feature.bytes_list.value.extend([_bytes(name, item) for item in values])
            else:
                raise InvalidRequest(f"{where}: feature {name!r} is {shown(value)}; numbers or strings are expected")
        except (ValueError, OverflowError) as e:
            raise InvalidRequest(f"{where}: feature {name!r}: {e}") from e
