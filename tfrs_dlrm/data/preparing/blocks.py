"""Counts the values of one block of raw rows, and encodes it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import tensorflow as tf

from tfrs_dlrm.data.encoding.buckets import merged_edges
from tfrs_dlrm.data.encoding.encoder import Encoder
from tfrs_dlrm.data.encoding.statistics import (
    Moments,
    bucket_features,
    day_features,
    measured_numbers,
    needs_transformed,
)
from tfrs_dlrm.data.encoding.tokenizer import Tokenizer
from tfrs_dlrm.data.encoding.value_reader import ValueReader
from tfrs_dlrm.data.preparing.block_values import BlockValues, distinct, distinct_values, list_tensors
from tfrs_dlrm.data.preparing.manifest import encoded_schema
from tfrs_dlrm.data.preparing.number_sketch import NumberSketch
from tfrs_dlrm.data.raw.parsing import BadRow
from tfrs_dlrm.data.raw.sources import RawBlock
from tfrs_dlrm.data.raw.typed_rows import TypedRows, parse
from tfrs_dlrm.schema import GROUP, CategoricalFeature, DenseFeature, Schema


@dataclasses.dataclass
class EncodedBlock:
    """One encoded block.

    Attributes:
      table: one row per readable raw row; see `encoded_schema`.
      numbers: int64 [N], the line or row number of each in its file.
      out_of_range: by feature, how many values have no row.
      bad: the rows that cannot be used.
    """

    table: pa.Table
    numbers: np.ndarray
    out_of_range: dict[str, int]
    bad: list[BadRow]


@dataclasses.dataclass
class CountedBlock:
    """The counts of one block, for vocabularies and statistics.

    Attributes:
      values: (table, values as strings [N], counts [N]) per feature with a vocabulary.
      moments: moments of `measured_numbers`, then of `label_numbers`, then of logarithms; see `count_moments`.
      numbers: by input of `sketched_inputs`, its numbers.
      rows: how many rows were readable.
      kept: how many of them were counted.
      bad: the rows that cannot be used.
    """

    values: list[tuple[str, pa.Array, np.ndarray]]
    moments: Moments
    numbers: dict[str, NumberSketch]
    rows: int
    kept: int
    bad: list[BadRow]


def label_numbers(labels: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    """Returns the numbers whose means give those of labels: the labels, and with weights also their products and these.

    Args:
      labels: float [N, L]; NaN is missing.
      weights: float [N], or None.

    Returns:
      [N, L], or [N, 3 L] with weights; NaN where the label is missing.
    """
    labels = labels.astype(np.float64)
    if weights is None:
        return labels
    known = np.where(np.isnan(labels), np.nan, weights[:, np.newaxis])
    return np.concatenate([labels, labels * known, known], axis=1)


def count_moments(schema: Schema) -> int:
    """The number of moments: of `measured_numbers`, then of `label_numbers`, then of logarithms that need them."""
    labels, measured = len(schema.labels) * (3 if schema.weight else 1), measured_numbers(schema)
    return len(measured) + labels + sum(map(needs_transformed, measured.values()))


def sketched_inputs(schema: Schema) -> dict[str, DenseFeature | CategoricalFeature]:
    """The inputs whose numbers give edges of buckets or origins of times, each with a feature that reads it."""
    found: dict[str, DenseFeature | CategoricalFeature] = {}
    for f in (*bucket_features(schema), *day_features(schema)):
        edges_known = isinstance(f, DenseFeature) or bool(f.edges)
        if not edges_known or (f.time is not None and f.time.origin is None):
            found.setdefault(f.input_name, f)
    return found


class BlockCounter:
    """Counts values, normalized as the encoder looks them up, and computes the moments of numbers.

    Edges and origins that the schema does not give are not known yet: days count from 1970.

    Args:
      schema: of the rows.
      sketch: whether to sketch the numbers that give edges and origins.
    """

    def __init__(self, schema: Schema, sketch: bool = True):
        self._schema = schema
        self._tokenizer = Tokenizer(schema)
        edges = {f.name: merged_edges(f.edges) for f in bucket_features(schema) if f.edges}
        origins = {f.name: (f.time and f.time.origin_days) or 0 for f in day_features(schema)}
        self._reader = ValueReader(schema, self._tokenizer, edges, origins)
        self._sketched = sketched_inputs(schema) if sketch else {}
        measured = list(measured_numbers(schema).values())
        self._measured = list({f.name: f for f in measured}.values())
        self._logarithms = [i for i, f in enumerate(measured) if needs_transformed(f)]

    def __call__(self, rows: TypedRows, keep: np.ndarray) -> CountedBlock:
        """Counts the rows of a block for which `keep`, bool [N], is true."""
        kept = rows.take(keep)
        values = BlockValues(self._schema, self._reader, kept)
        features = [f for f in self._schema.categorical if f.encoding == "vocabulary"]
        counts = [(f.table, *_occurring(*self._count(f, values, kept))) for f in features]
        dense = values.dense(self._measured)
        logarithms = np.log1p(np.maximum(dense[:, self._logarithms].astype(np.float64), 0))
        numbers = np.concatenate([dense, label_numbers(kept.labels, kept.weight), logarithms], axis=1)
        sketches = {key: NumberSketch.of(values.sketched(f)) for key, f in self._sketched.items()}
        return CountedBlock(counts, Moments.of(numbers), sketches, len(rows), len(kept), rows.bad)

    def _count(self, f: CategoricalFeature, values: BlockValues, rows: TypedRows) -> tuple[pa.Array, np.ndarray]:
        if f.multi_valued:
            return self._count_lists(f, rows)
        if f.cross:
            crossed, indices = values.of_feature(f)
            texts = _strings(crossed)
        else:
            found, indices = distinct_values(rows.inputs[f.input_name])
            texts = self._tokenizer.texts(found)
        return texts, np.bincount(indices, minlength=len(texts))

    def _count_lists(self, f: CategoricalFeature, rows: TypedRows) -> tuple[pa.Array, np.ndarray]:
        raw = rows.inputs[f.input_name]
        if f.history_of:  # other values of the same row decide which values count
            inputs, indices = list_tensors(self._tokenizer.list_inputs(f), rows)
        else:
            found, indices = distinct(raw.flatten() if pa.types.is_list(raw.type) else raw)
            inputs = {f.input_name: _ragged_of_one(f, found)}
        tokens, _ = self._tokenizer.lists(f, inputs)
        counts = np.bincount(indices, minlength=int(tokens.nrows()))
        return _strings(self._tokenizer.text(tokens.values)), np.repeat(counts, tokens.row_lengths().numpy())


class BlockEncoder:
    """Encodes blocks. Each distinct value of a column is encoded once per block."""

    def __init__(self, encoder: Encoder):
        self._encoder = encoder
        self._schema = encoder.schema
        self._arrow_schema = encoded_schema(encoder.schema)

    def __call__(self, block: RawBlock, rows: TypedRows | None = None) -> EncodedBlock:
        """Encodes a block.

        Args:
          block: the block.
          rows: the parsed rows of the block; None parses them.

        Raises:
          ValueError: see `parse`.
        """
        return self.encode(parse(block, self._schema) if rows is None else rows, block)

    def encode(self, rows: TypedRows, block: RawBlock | None) -> EncodedBlock:
        """Encodes parsed rows of a block, which may be None if no feature has `out_of_range='error'`."""
        columns = {n: pa.array(column) for n, column in zip(self._schema.label_columns, rows.labels.T, strict=True)}
        if rows.weight is not None:
            columns["weight"] = pa.array(rows.weight)
        if rows.group is not None:
            columns[GROUP] = pa.array(_group_ids(rows.group))
        values = BlockValues(self._schema, self._encoder.reader, rows)
        if self._schema.dense:
            dense = self._encoder.dense(values.dense(self._schema.dense)).numpy()
            columns |= {name: pa.array(dense[:, i]) for i, name in enumerate(self._schema.dense_columns)}
        unknown: dict[str, np.ndarray] = {}
        for f in self._schema.one_hot:
            columns[f.name], unknown[f.name] = self._one_hot(f, values)
        for f in self._schema.multi_hot:
            encoded, unknown[f.name] = self._multi_hot(f, rows)
            columns |= encoded
        table = pa.table([columns[name] for name in self._arrow_schema.names], schema=self._arrow_schema)
        good, bad = self._refuse(block, rows, unknown)
        counts = {name: int(n[good].sum()) for name, n in unknown.items()}
        if not good.all():
            table = table.filter(pa.array(good))
        return EncodedBlock(table, rows.numbers[good], counts, bad)

    def _one_hot(self, f: CategoricalFeature, values: BlockValues) -> tuple[pa.Array, np.ndarray]:
        """Returns the row of each example, and how many of its values (0 or 1) have no row."""
        found, indices = values.of_feature(f)
        ids, known = self._encoder.rows(f, found)
        return pa.array(ids.numpy()[indices]), ~known.numpy()[indices]

    def _multi_hot(self, f: CategoricalFeature, rows: TypedRows) -> tuple[dict[str, pa.Array], np.ndarray]:
        names = (*self._encoder.tokenizer.list_inputs(f), *([f.weights_name] if f.weights else []))
        inputs, indices = list_tensors(names, rows)
        values, weights = self._encoder.tokenizer.lists(f, inputs)
        ids, known = self._encoder.rows(f, values.values)
        take = pa.array(indices)
        unknown = tf.reduce_sum(tf.cast(values.with_values(~known), tf.int64), axis=1).numpy()[indices]
        columns = {f.name: _lists(values.row_splits, ids, pa.int32()).take(take)}
        if weights is not None:
            columns[f.weights_name] = _lists(weights.row_splits, weights.values, pa.float32()).take(take)
        return columns, unknown

    def _refuse(
        self, block: RawBlock | None, rows: TypedRows, unknown: dict[str, np.ndarray]
    ) -> tuple[np.ndarray, list[BadRow]]:
        """Splits rows by whether a feature refuses one of their values: bool [N], and the bad rows."""
        good, bad = np.ones(len(rows), bool), list(rows.bad)
        for f in self._schema.categorical:
            if f.out_of_range != "error":
                continue
            if block is None:
                raise ValueError(f"feature {f.name!r} may refuse values; give the block of the rows")
            wrong = (unknown[f.name] > 0) & good
            good &= ~wrong
            numbers = rows.numbers[wrong].tolist()
            for number, i, text in zip(numbers, np.flatnonzero(wrong), block.texts(numbers), strict=True):
                bad.append(BadRow(block.path, number, f.column, self._no_row(f, rows, int(i)), text, block.unit))
        return good, sorted(bad, key=lambda b: b.row)

    def _no_row(self, f: CategoricalFeature, rows: TypedRows, number: int) -> str:
        """Says why a feature refuses its value in a row."""
        names = [self._schema.value_feature(name).input_name for name in f.cross] or [f.input_name]
        values = [rows.inputs[name][number].as_py() for name in names]
        if f.encoding in ("buckets", "time"):
            return f"feature {f.name!r}: the value is missing, and out_of_range is 'error'"
        value, size = " x ".join(map(repr, values)), self._schema.table_of(f).vocabulary_size
        return f"feature {f.name!r}: {value} has no row in its table of {size}, and out_of_range is 'error'"


def _strings(texts: tf.Tensor) -> pa.Array:
    return pa.array(texts.numpy(), pa.binary()).cast(pa.string())


def _occurring(values: pa.Array, counts: np.ndarray) -> tuple[pa.Array, np.ndarray]:
    """Leaves out values that do not occur: those of rows that were not kept."""
    found = counts > 0
    return (values, counts) if found.all() else (values.filter(pa.array(found)), counts[found])


def _group_ids(groups: pa.Array) -> np.ndarray:
    """Returns a hash of each value, int64 [N], at least 0; two of a billion values have one with probability 0.05."""
    values, indices = distinct(groups)
    return np.asarray(tf.strings.to_hash_bucket_fast(values, 2**63 - 1).numpy()[indices])


def _ragged_of_one(f: CategoricalFeature, values: tf.Tensor) -> tf.Tensor | tf.RaggedTensor:
    """Converts single values to the input of a multi-valued feature: text to be split, or lists of one."""
    return values if f.separator is not None else tf.RaggedTensor.from_uniform_row_length(values, 1)


def _lists(splits: tf.Tensor, values: tf.Tensor, kind: pa.DataType) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array(splits.numpy(), pa.int32()), pa.array(values.numpy(), kind))
