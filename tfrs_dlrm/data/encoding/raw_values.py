"""Raw values in the forms that users have, as the tensors that the encoder takes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import tensorflow as tf

from tfrs_dlrm.data.encoding.arrow_tensors import to_tensor
from tfrs_dlrm.data.raw.frames import ArrowStream, Frame, is_frame
from tfrs_dlrm.data.raw.parsing import MISSING_INT
from tfrs_dlrm.data.raw.sources import frame_blocks
from tfrs_dlrm.data.raw.typed_rows import parse_inputs
from tfrs_dlrm.embeddings.value_lists import ragged_rows
from tfrs_dlrm.schema import CategoricalFeature, Schema

Specs = Mapping[str, tf.TensorSpec]
RawValues = ArrowStream | Mapping[str, Any]


def is_tensors(data: object) -> bool:
    """Whether the data are tensors by name, symbolic ones included."""
    return isinstance(data, Mapping) and not any(map(_is_array, data.values()))


def to_tensors(data: RawValues, schema: Schema, specs: Specs) -> dict[str, tf.Tensor]:
    """Converts a frame, or arrays by feature name, to the tensors of `Encoder.signature`.

    Inputs that are `training_only` may be absent, and then are absent in the result.

    Raises:
      BadRowError: a value cannot be read.
      ValueError: the data are something else, a column is missing, or its type cannot hold what the schema says.
    """
    if isinstance(data, Mapping):
        schema = _by_feature_name(schema)
        frame = Frame(_table(data, schema, specs))
    elif is_frame(data):
        frame = Frame(data)
    else:
        raise ValueError(
            f"the encoder takes a DataFrame, or arrays or tensors by name ({', '.join(specs)}); this is a"
            f" {type(data).__name__}"
        )
    inputs = [given for given in schema.inputs if given.column in frame.columns or not given.training_only]
    parts: dict[str, list[Any]] = {given.name: [] for given in inputs}
    for block in frame_blocks(frame, list(dict.fromkeys(given.column for given in inputs))):
        for name, array in parse_inputs(block, schema, inputs).items():
            parts[name].append(to_tensor(array))
    return {name: _joined(parts[name], spec) for name, spec in specs.items() if name in parts}


def conformed(raw: Mapping[str, tf.Tensor], specs: Specs) -> dict[str, tf.Tensor]:
    """Converts tensors to the dtypes and ranks of specs; ragged and sparse ones may stand for padded ones.

    Raises:
      ValueError: an input is missing, or of another kind.
    """
    missing = [name for name in specs if name not in raw]
    if missing:
        raise ValueError(f"no input {', '.join(map(repr, missing))}; given are {', '.join(raw)}")
    return {name: _conformed(name, raw[name], spec) for name, spec in specs.items()}


def _conformed(name: str, value: Any, spec: tf.TensorSpec) -> tf.Tensor:
    if isinstance(value, tf.SparseTensor):
        value = _from_sparse(name, value, spec)
    if not hasattr(value, "dtype") or not isinstance(getattr(value, "shape", None), tf.TensorShape):
        raise ValueError(
            f"input {name!r} is a {type(value).__name__}; a tensor or an array of shape {spec.shape} is needed"
        )
    if value.shape.rank == 2 and spec.shape.rank == 1 and value.shape[1] == 1:
        value = tf.squeeze(value, axis=1)
    if spec.shape.rank == 2 and spec.shape[1] is not None and not value.shape.is_compatible_with(spec.shape):
        raise ValueError(
            f"input {name!r} has the shape {value.shape}; [B, {spec.shape[1]}] is needed, NaN where missing"
        )
    if value.shape.rank not in (None, spec.shape.rank):
        raise ValueError(f"input {name!r} has the shape {value.shape}; {spec.shape} is expected")
    if value.dtype == spec.dtype:
        return value
    if spec.dtype == tf.string and (value.dtype.is_integer or value.dtype.is_bool):
        return tf.where(value, "true", "false") if value.dtype.is_bool else tf.strings.as_string(value)
    whole = value.dtype.is_bool or (value.dtype.is_integer and value.dtype != tf.uint64)
    fits = whole or (spec.dtype.is_floating and (value.dtype.is_floating or value.dtype.is_integer))
    if not fits or spec.dtype == tf.string:  # a cast of uint64 would wrap
        raise ValueError(f"input {name!r} is {value.dtype.name}; {spec.dtype.name} is expected, as in the log")
    return tf.cast(value, spec.dtype)


def _from_sparse(name: str, value: tf.SparseTensor, spec: tf.TensorSpec) -> tf.RaggedTensor:
    """Returns the values of each row; columns without a value count for nothing."""
    if spec.shape.rank != 2 or value.shape.rank != 2:
        wanted = "a list column takes [B, L]" if spec.shape.rank == 2 else f"a tensor of shape {spec.shape} is needed"
        raise ValueError(f"input {name!r} is a SparseTensor of shape {value.shape}; {wanted}")
    return ragged_rows(name, value)


def _is_array(value: object) -> bool:
    """Whether a value is an array or list of Python, NumPy, pandas, polars or Arrow, and not a tensor."""
    return isinstance(value, (np.ndarray, list, tuple)) or hasattr(value, "to_numpy")


def _by_feature_name(schema: Schema) -> Schema:
    """Returns the schema of a log whose columns have the names of `Encoder.signature`."""

    def renamed(f: CategoricalFeature) -> CategoricalFeature:
        column = f.column and f.input_name
        return dataclasses.replace(f, column=column, weights=f.weights and f.weights_name)

    return dataclasses.replace(
        schema,
        dense=tuple(dataclasses.replace(f, column=f.input_name) for f in schema.dense),
        categorical=tuple(map(renamed, schema.categorical)),
        members=tuple(map(renamed, schema.members)),
    )


def _table(arrays: Mapping[str, Any], schema: Schema, specs: Specs) -> pa.Table:
    columns = {}
    for name, spec in specs.items():
        if name in arrays:
            value = ragged_rows(name, arrays[name])
            array = value.numpy() if tf.is_tensor(value) else value
            try:
                columns[name] = _array(array, spec)
            except (pa.ArrowException, TypeError, ValueError) as e:
                raise ValueError(f"input {name!r}: its values have no common type: {e}") from e
    if len(set(map(len, columns.values()))) > 1:
        raise ValueError(f"inputs of several lengths: { {name: len(c) for name, c in columns.items()} }")
    return pa.table(columns)


def _array(values: Any, spec: tf.TensorSpec) -> pa.Array:
    if isinstance(values, np.ndarray) and values.ndim == 2:
        if spec.shape.rank == 1 and values.shape[1] == 1:
            values = values[:, 0]
        elif spec.shape.rank == 2 and spec.shape[1] is not None and values.shape[1] and values.dtype.kind in "iuf":
            return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
        else:
            values = values.tolist()
    return pa.array(values, from_pandas=True)


def _joined(parts: list[Any], spec: tf.TensorSpec) -> tf.Tensor:
    joined = tf.concat(parts, axis=0) if len(parts) > 1 else parts[0]
    if not isinstance(joined, tf.RaggedTensor):
        return joined
    return joined.to_tensor({tf.string: "", tf.int64: MISSING_INT}.get(spec.dtype, 0.0))
