"""A sample of the training rows of a preparation, with what encoded rows lack: raw numbers, and what was missing.

Whether a row is drawn depends on the seed, its file and its number alone, so engines and resumed runs draw the same.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfrs_dlrm.data.encoding.encoder import Encoder
from tfrs_dlrm.data.encoding.tokenizer import MISSING_TEXT
from tfrs_dlrm.data.preparing.block_values import BlockValues, distinct_values
from tfrs_dlrm.data.preparing.job import PrepareJob
from tfrs_dlrm.data.preparing.row_splitter import uniform
from tfrs_dlrm.data.preparing.workspace import COUNTED, ENCODED, Workspace
from tfrs_dlrm.data.raw.parsing import MISSING_INT
from tfrs_dlrm.data.raw.typed_rows import TypedRows
from tfrs_dlrm.schema import CategoricalFeature, DenseFeature, Schema
from tfrs_dlrm.stores.files import read_json, write_json

SAMPLE_ROWS = 200_000
DRAW = "sample/draw"  # the column with the number in [0, 1) that decided; the first label is `label`
_DRAW = 2  # of the draws of a row; see `row_splitter`
_BYTES_PER_ROW = 128  # if no pass has counted rows


def number_column(feature: str) -> str:
    """The column of a sample with the raw numbers of a feature; of vectors their norms."""
    return f"number/{feature}"


def missing_column(feature: str) -> str:
    """The column of a sample that says whether a value is missing."""
    return f"missing/{feature}"


def number_features(schema: Schema) -> list[DenseFeature | CategoricalFeature]:
    """The features whose raw values are numbers; buckets only if no dense feature reads their value."""
    read = {f.input_name for f in schema.dense}
    buckets = [f for f in schema.categorical if f.encoding == "buckets" and f.input_name not in read]
    return [*schema.dense, *buckets]


def value_features(schema: Schema) -> list[CategoricalFeature]:
    """The features whose rows of tables stand for values."""
    return [f for f in schema.categorical if f.encoding != "buckets"]


class RowSampler:
    """Takes the sampled rows of blocks.

    Args:
      encoder: of the rows.
      seed: of the draws.
      share: how many rows to draw.
    """

    def __init__(self, encoder: Encoder, seed: int, share: float):
        self._encoder, self._seed, self._share = encoder, seed, share
        self._schema = schema = encoder.schema
        self._numbers, self._values = number_features(schema), value_features(schema)
        self._inputs = {f.input_name for f in self._numbers}
        for f in self._values:
            self._inputs |= {given.name for given in schema.inputs_of(f.name)} if not f.multi_valued else set()

    def drawn(self, file: int, rows: TypedRows) -> np.ndarray:
        """Returns which rows of a file, given by its number, are drawn, bool [N]."""
        return self._is_drawn(rows, self._draw(file, rows))

    def _draw(self, file: int, rows: TypedRows) -> np.ndarray:
        return uniform(self._seed, file, rows.numbers, _DRAW)

    def _is_drawn(self, rows: TypedRows, draw: np.ndarray) -> np.ndarray:
        keep: np.ndarray = draw < self._share
        return keep if rows.weight is None else keep & (rows.weight > 0)

    def __call__(self, file: int, rows: TypedRows, encoded: pa.Table, train: np.ndarray) -> pa.Table:
        """Returns the drawn rows.

        Args:
          file: the number of their file.
          rows: of a block.
          encoded: the same rows, encoded.
          train: bool [N], which of them are training rows.
        """
        draw = self._draw(file, rows)
        keep = train & self._is_drawn(rows, draw)
        inputs = {name: rows.inputs[name] for name in self._inputs}
        rows = dataclasses.replace(rows, inputs=inputs).take(keep)
        return self.columns(rows, encoded.filter(keep), draw[keep])

    def columns(self, rows: TypedRows, encoded: pa.Table, draw: np.ndarray) -> pa.Table:
        """Returns the columns of a sample for rows, all of which are drawn."""
        found: dict[str, pa.Array] = {DRAW: pa.array(draw), "label": encoded["label"]}
        values = BlockValues(self._schema, self._encoder.reader, rows)
        for f in self._numbers:
            numbers = values.sketched(f)
            found[number_column(f.name)] = pa.array(_norms(numbers) if numbers.ndim == 2 else numbers)
        for f in self._values:
            found[f.name] = encoded[f.name]
            if not f.multi_valued:
                found[missing_column(f.name)] = pa.array(self._missing(f, rows))
        return pa.table(found)

    def _missing(self, feature: CategoricalFeature, rows: TypedRows) -> np.ndarray:
        arrays = [rows.inputs[given.name] for given in self._schema.inputs_of(feature.name)]
        return np.any([self._missing_values(array) for array in arrays], axis=0)

    def _missing_values(self, array: pa.Array) -> np.ndarray:
        if pa.types.is_floating(array.type):
            return np.isnan(array.to_numpy(zero_copy_only=False))
        if pa.types.is_integer(array.type):
            return np.asarray(array.to_numpy(zero_copy_only=False)) == MISSING_INT
        values, indices = distinct_values(array)
        missing = pc.equal(self._encoder.tokenizer.texts(values), MISSING_TEXT)
        return np.asarray(missing.to_numpy(zero_copy_only=False)[indices])


def _norms(vectors: np.ndarray) -> np.ndarray:
    """Returns the Euclidean norm of each vector, float32 [N], without its missing numbers; NaN if it has no others."""
    squares = np.nansum(vectors.astype(np.float64) ** 2, axis=1)
    norms: np.ndarray = np.where(np.isnan(vectors).all(axis=1), np.nan, np.sqrt(squares)).astype(np.float32)
    return norms


def plan_sample(job: PrepareJob, workspace: Workspace) -> None:
    """Decides, once for a preparation, which share of the training rows to draw: about `SAMPLE_ROWS` of them."""
    path = _plan(workspace)
    if os.path.exists(path):
        return
    marks = workspace.marks(COUNTED)
    rows = sum(mark["sets"]["train"] if "sets" in mark else mark["rows"] for mark in marks)  # with dropped negatives
    if not rows:
        stamps = job.fingerprint()["files"]
        rows = sum(stamp["rows"] if "rows" in stamp else stamp["bytes"] // _BYTES_PER_ROW for stamp in stamps)
    begun = bool(workspace.marked(ENCODED))  # by an earlier version, which drew none
    write_json(path, {"share": 0.0 if begun else min(1.0, 1.02 * SAMPLE_ROWS / max(1, rows))})


def planned_share(workspace: Workspace) -> float:
    """Returns the share that `plan_sample` decided; 0 without a plan."""
    path = _plan(workspace)
    return float(read_json(path)["share"]) if os.path.exists(path) else 0.0


def sample_path(workspace: Workspace, name: str) -> str:
    """The path of the sampled rows of a segment."""
    return os.path.join(workspace.work, "sampled", f"{name}.arrow")


def write_sample(path: str, parts: Sequence[pa.Table]) -> None:
    """Writes sampled rows to a file."""
    table = pa.concat_tables(parts)
    with pa.OSFile(path, "wb") as f, pa.ipc.new_file(f, table.schema) as writer:
        writer.write_table(table)


def read_sample(paths: Iterable[str]) -> pa.Table | None:
    """Reads the sampled rows of segments: `SAMPLE_ROWS` of them if there are more; None if there are none."""
    parts = []
    for path in paths:
        if os.path.exists(path):
            with pa.OSFile(path) as source:
                parts.append(pa.ipc.open_file(source).read_all())
    table = pa.concat_tables(parts) if parts else None
    if table is None or table.num_rows <= SAMPLE_ROWS:
        return table
    first = np.argsort(table[DRAW].to_numpy(), kind="stable")[:SAMPLE_ROWS]
    return table.take(pa.array(np.sort(first)))


def _plan(workspace: Workspace) -> str:
    return os.path.join(workspace.work, "sample.json")
