"""Counts the values of one block of raw rows, and encodes it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import tensorflow as tf

from tfrs_dlrm.data.encoding.arrow_tensors import to_tensor
from tfrs_dlrm.data.encoding.encoder import Encoder
from tfrs_dlrm.data.encoding.statistics import Moments
from tfrs_dlrm.data.encoding.tokenizer import Tokenizer
from tfrs_dlrm.data.preparing.manifest import encoded_schema
from tfrs_dlrm.data.raw.parsing import BadRow
from tfrs_dlrm.data.raw.sources import RawBlock
from tfrs_dlrm.data.raw.typed_rows import TypedRows, parse
from tfrs_dlrm.schema import CategoricalFeature, Schema


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
      values: (table, values as bytes [N], counts [N]) per feature with a vocabulary.
      moments: moments of the dense features, then of `label_numbers`.
      rows: how many rows were readable.
      kept: how many of them were counted.
      bad: the rows that cannot be used.
    """

    values: list[tuple[str, np.ndarray, np.ndarray]]
    moments: Moments
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


class BlockCounter:
    """Counts values, normalized as the encoder looks them up, and computes the moments of numbers."""

    def __init__(self, schema: Schema):
        self._schema = schema
        self._tokenizer = Tokenizer(schema)

    def __call__(self, block: RawBlock, keep: Callable[[TypedRows], np.ndarray]) -> CountedBlock:
        """Counts the rows of a block for which `keep` is true."""
        rows = parse(block, self._schema)
        kept = rows.take(keep(rows))
        features = [f for f in self._schema.categorical if f.encoding == "vocabulary"]
        counts = [(f.table, *self._count(f, kept.categorical[f.name])) for f in features]
        numbers = np.concatenate([kept.dense, label_numbers(kept.labels, kept.weight)], axis=1)
        return CountedBlock(counts, Moments.of(numbers), len(rows), len(kept), rows.bad)

    def _count(self, f: CategoricalFeature, raw: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        if pa.types.is_list(raw.type):
            raw = raw.flatten()
        distinct, indices = _distinct(raw)
        counts = np.bincount(indices, minlength=len(distinct))
        if f.multi_valued:
            tokens, _ = self._tokenizer.values(f, _ragged_of_one(f, distinct))
            counts = np.repeat(counts, tokens.row_lengths().numpy())
            distinct = tokens.values
        return self._tokenizer.text(distinct).numpy(), counts


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
        rows = parse(block, self._schema) if rows is None else rows
        columns = {n: pa.array(column) for n, column in zip(self._schema.label_columns, rows.labels.T, strict=True)}
        if rows.weight is not None:
            columns["weight"] = pa.array(rows.weight)
        if self._schema.dense:
            dense = self._encoder.dense(rows.dense).numpy()
            columns |= {name: pa.array(dense[:, i]) for i, name in enumerate(self._schema.dense_columns)}
        unknown: dict[str, np.ndarray] = {}
        for f in self._schema.one_hot:
            columns[f.name], unknown[f.name] = self._one_hot(f, rows.categorical[f.name])
        for f in self._schema.multi_hot:
            encoded, unknown[f.name] = self._multi_hot(f, rows)
            columns |= encoded
        table = pa.table([columns[name] for name in self._arrow_schema.names], schema=self._arrow_schema)
        good, bad = self._refuse(block, rows, unknown)
        counts = {name: int(n[good].sum()) for name, n in unknown.items()}
        if not good.all():
            table = table.filter(pa.array(good))
        return EncodedBlock(table, rows.numbers[good], counts, bad)

    def _one_hot(self, f: CategoricalFeature, raw: pa.Array) -> tuple[pa.Array, np.ndarray]:
        """Returns the row of each example, and how many of its values (0 or 1) have no row."""
        distinct, indices = _distinct(raw)
        ids, known = self._encoder.rows(f, distinct)
        return pa.array(ids.numpy()[indices]), ~known.numpy()[indices]

    def _multi_hot(self, f: CategoricalFeature, rows: TypedRows) -> tuple[dict[str, pa.Array], np.ndarray]:
        raw, raw_weights = rows.categorical[f.name], rows.value_weights.get(f.name)
        if raw_weights is None and not pa.types.is_list(raw.type):
            distinct, indices = _distinct(raw)
            values, weights = self._encoder.tokenizer.values(f, distinct)
        else:
            indices = np.arange(len(raw))
            values, weights = self._encoder.tokenizer.values(
                f, to_tensor(raw), None if raw_weights is None else to_tensor(raw_weights)
            )
        ids, known = self._encoder.rows(f, values.values)
        take = pa.array(indices)
        unknown = tf.reduce_sum(tf.cast(values.with_values(~known), tf.int64), axis=1).numpy()[indices]
        columns = {f.name: _lists(values.row_splits, ids, pa.int32()).take(take)}
        if weights is not None:
            columns[f.weights_name] = _lists(weights.row_splits, weights.values, pa.float32()).take(take)
        return columns, unknown

    def _refuse(
        self, block: RawBlock, rows: TypedRows, unknown: dict[str, np.ndarray]
    ) -> tuple[np.ndarray, list[BadRow]]:
        """Splits rows by whether a feature refuses one of their values: bool [N], and the bad rows."""
        good, bad = np.ones(len(rows), bool), list(rows.bad)
        for f in self._schema.categorical:
            if f.out_of_range != "error":
                continue
            wrong = (unknown[f.name] > 0) & good
            good &= ~wrong
            numbers = rows.numbers[wrong].tolist()
            for number, i, text in zip(numbers, np.flatnonzero(wrong), block.texts(numbers), strict=True):
                value = rows.categorical[f.name][int(i)].as_py()
                size = self._schema.table_of(f).vocabulary_size
                reason = f"feature {f.name!r}: {value!r} has no row in its table of {size}, and out_of_range is 'error'"
                bad.append(BadRow(block.path, number, f.column, reason, text, block.unit))
        return good, sorted(bad, key=lambda b: b.row)


def _distinct(array: pa.Array) -> tuple[tf.Tensor, np.ndarray]:
    """Returns the distinct values of an array as a tensor, and the position of each element among them."""
    encoded = array.dictionary_encode("encode")
    return to_tensor(encoded.dictionary), encoded.indices.to_numpy(zero_copy_only=False)


def _ragged_of_one(f: CategoricalFeature, values: tf.Tensor) -> tf.Tensor | tf.RaggedTensor:
    """Converts single values to the input of a multi-valued feature: text to be split, or lists of one."""
    return values if f.separator is not None else tf.RaggedTensor.from_uniform_row_length(values, 1)


def _lists(splits: tf.Tensor, values: tf.Tensor, kind: pa.DataType) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array(splits.numpy(), pa.int32()), pa.array(values.numpy(), kind))
