"""The first raw rows of a prepared set, which check an export and serve as examples of requests."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfrs_dlrm.data.encoding.checksums import SAMPLES_FILE
from tfrs_dlrm.data.raw.parsing import MISSING_INT
from tfrs_dlrm.data.raw.typed_rows import TypedRows
from tfrs_dlrm.schema import Schema
from tfrs_dlrm.stores import local_copy
from tfrs_dlrm.stores.files import read_json_lines, whole_file

SAMPLES = 256


class SampleTaker:
    """Takes the first raw rows of each split, segment by segment, in whatever order the segments come.

    Several processes may work on segments, and none knows how many rows the others have found in earlier segments.
    So each process takes samples of a segment until its finished earlier segments hold enough. Put in order, the
    samples of all segments then begin with the first rows of the split.
    """

    def __init__(self, schema: Schema):
        self._schema = schema
        self._finished: dict[tuple[str, str], int] = {}  # by split and segment, how many samples were kept

    def wanted(self, split: str, segment: str) -> int:
        """Counts how many rows of a segment may be among the first rows of the split."""
        known = list(self._finished.items())  # another thread may add one
        return max(0, SAMPLES - sum(n for (s, name), n in known if s == split and name < segment))

    def take(self, rows: TypedRows, keep: np.ndarray, split: str, segment: str) -> list[dict[str, Any]]:
        """Returns the first of the rows where `keep`, bool [N], is true, as many as wanted."""
        first = np.flatnonzero(keep)[: self.wanted(split, segment)]
        if not len(first):
            return []
        mask = np.zeros(len(keep), bool)
        mask[first] = True
        return raw_values(rows.take(mask), self._schema)

    def finish(self, split: str, segment: str, samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Returns the samples to keep of all blocks of a finished segment."""
        samples = samples[: self.wanted(split, segment)]
        if samples:
            self._finished[split, segment] = len(samples)
        return samples


def raw_values(rows: TypedRows, schema: Schema) -> list[dict[str, Any]]:
    """Converts rows to JSON values by input; a missing number is null, also within a vector."""
    columns: dict[str, list[Any]] = {}
    for given in schema.inputs:
        values = rows.inputs[given.name].to_pylist()
        if given.size is not None:
            columns[given.name] = [[None if math.isnan(x) else x for x in vector] for vector in values]
        else:
            is_number = given.dtype == "float32" and not given.is_list
            columns[given.name] = [None if math.isnan(x) else x for x in values] if is_number else values
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def write_samples(directory: str, samples: Sequence[Mapping[str, Any]]) -> None:
    """Writes DIRECTORY/samples.jsonl, one row per line."""
    path = os.path.join(directory, SAMPLES_FILE)
    with whole_file(path) as f:
        f.writelines(json.dumps(s) + "\n" for s in samples)


def read_samples(directory: str) -> list[dict[str, Any]]:
    """Reads the first raw rows of the evaluation set, or of the training set without one.

    Raises:
      FileNotFoundError: there are none.
      ValueError: a line is damaged, or there is no row.
    """
    path = os.path.join(local_copy(directory), SAMPLES_FILE)
    found = list(read_json_lines(path, "prepare the data again, or copy the file from the prepared directory"))
    if not found:
        raise ValueError(f"{path}: the file is empty; prepare the data again, or copy it from the prepared directory")
    return found


def to_tensors(samples: Sequence[Mapping[str, Any]], signature: Mapping[str, tf.TensorSpec]) -> dict[str, tf.Tensor]:
    """Converts raw rows to inputs of a signature: NaN for a missing number, lists padded with "" or -1."""
    return {name: _tensor([s[name] for s in samples], spec) for name, spec in signature.items()}


def _tensor(values: list[Any], spec: tf.TensorSpec) -> tf.Tensor:
    if spec.shape.rank == 2 and spec.shape[1] is not None:
        vectors = [[np.nan if v is None else v for v in row or [None] * spec.shape[1]] for row in values]
        return tf.constant(vectors, spec.dtype, [len(vectors), spec.shape[1]])
    if spec.shape.rank == 2:
        fill: Any = "" if spec.dtype == tf.string else MISSING_INT if spec.dtype == tf.int64 else 0.0
        rows = [[fill if v is None else v for v in row or []] for row in values]
        width = max(map(len, rows), default=0)
        return tf.constant([row + [fill] * (width - len(row)) for row in rows], spec.dtype, [len(rows), width])
    missing = {tf.string: "", tf.int64: MISSING_INT}.get(spec.dtype, np.nan)
    return tf.constant([missing if v is None else v for v in values], spec.dtype)
