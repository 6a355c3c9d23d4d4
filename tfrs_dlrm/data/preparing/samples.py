"""A few raw rows kept beside the encoded ones: what an export is checked with, and examples of requests."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfrs_dlrm.data.raw.parsing import MISSING_INT, TypedRows
from tfrs_dlrm.schema import Schema
from tfrs_dlrm.stores import local_copy

SAMPLES_FILE = "samples.jsonl"
SAMPLES = 256


def raw_values(rows: TypedRows, schema: Schema, count: int) -> list[dict[str, Any]]:
    """The first `count` rows as JSON values by feature name; null is a missing number."""
    columns: dict[str, list[Any]] = {}
    for i, dense in enumerate(schema.dense):
        columns[dense.name] = [None if math.isnan(x) else x for x in rows.dense[:count, i].tolist()]
    for f in schema.categorical:
        columns[f.name] = rows.categorical[f.name].slice(0, count).to_pylist()
        if f.weights:
            columns[f.weights_name] = rows.value_weights[f.name].slice(0, count).to_pylist()
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def write_samples(directory: str, samples: Sequence[Mapping[str, Any]]) -> None:
    """Writes DIRECTORY/samples.jsonl, one row a line."""
    path = os.path.join(directory, SAMPLES_FILE)
    with open(path + ".tmp", "w", encoding="utf-8") as f:
        f.writelines(json.dumps(s) + "\n" for s in samples)
    os.replace(path + ".tmp", path)


def read_samples(directory: str) -> list[dict[str, Any]]:
    """Reads what `write_samples` wrote: the first rows of the evaluation set, or of the training set without one."""
    with open(os.path.join(local_copy(directory), SAMPLES_FILE), encoding="utf-8") as f:
        return [json.loads(line) for line in f]


def to_tensors(samples: Sequence[Mapping[str, Any]], signature: Mapping[str, tf.TensorSpec]) -> dict[str, tf.Tensor]:
    """Raw rows as the inputs of a signature: NaN for a missing number, lists padded with "" or -1."""
    return {name: _tensor([s[name] for s in samples], spec) for name, spec in signature.items()}


def _tensor(values: list[Any], spec: tf.TensorSpec) -> tf.Tensor:
    if spec.shape.rank == 2:
        fill: Any = "" if spec.dtype == tf.string else MISSING_INT if spec.dtype == tf.int64 else 0.0
        rows = [[fill if v is None else v for v in row or []] for row in values]
        width = max(map(len, rows), default=0)
        return tf.constant([row + [fill] * (width - len(row)) for row in rows], spec.dtype, [len(rows), width])
    missing = {tf.string: "", tf.int64: MISSING_INT}.get(spec.dtype, np.nan)
    return tf.constant([missing if v is None else v for v in values], spec.dtype)
