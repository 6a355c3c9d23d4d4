"""The texts of a window's rows, as vocabularies have them."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pyarrow as pa

from tfrs_dlrm.data.encoding.arrow_tensors import to_tensor
from tfrs_dlrm.data.encoding.encoder import Encoder
from tfrs_dlrm.data.preparing.block_values import BlockValues
from tfrs_dlrm.data.raw.typed_rows import TypedRows
from tfrs_dlrm.schema import CategoricalFeature, Schema
from tfrs_dlrm.streaming.admission.living_vocabulary import Occurrences


class WindowTexts:
    """Reads the values of some tables from rows, normalized as `prepare` counts them.

    Args:
      encoder: of the rows.
      tables: their names.
    """

    def __init__(self, encoder: Encoder, tables: Collection[str]):
        self._encoder, self._schema = encoder, encoder.schema
        self._features = {table: _features(encoder.schema, table) for table in tables}

    def __call__(self, rows: TypedRows, first: int) -> dict[str, Occurrences]:
        """Returns the values by table.

        A value with a line break is left out, since a vocabulary file has one value a line.

        Args:
          rows: of a window.
          first: the position of the first along the stream.
        """
        values = BlockValues(self._schema, self._encoder.reader, rows)
        found = {}
        for table, features in self._features.items():
            parts = [self._lists(f, rows) if f.multi_valued else self._single(f, values) for f in features]
            found[table] = _joined(parts, first)
        return found

    def _single(self, f: CategoricalFeature, values: BlockValues) -> tuple[pa.Array, np.ndarray]:
        found, indices = values.of_feature(f)
        texts = found if f.cross else self._encoder.counted_texts(f.table, found)
        taken = pa.array(texts.numpy(), pa.binary()).take(pa.array(indices))
        return taken, np.arange(len(taken))

    def _lists(self, f: CategoricalFeature, rows: TypedRows) -> tuple[pa.Array, np.ndarray]:
        # Weights count nothing here: a value without any was seen as well.
        tokenizer = self._encoder.tokenizer
        tokens, _ = tokenizer.lists(f, {name: to_tensor(rows.inputs[name]) for name in tokenizer.list_inputs(f)})
        texts = self._encoder.counted_texts(f.table, tokens.values)
        return pa.array(texts.numpy(), pa.binary()), tokens.value_rowids().numpy()


def _features(schema: Schema, table: str) -> list[CategoricalFeature]:
    return [f for f in schema.categorical if f.table == table]


def _joined(parts: list[tuple[pa.Array, np.ndarray]], first: int) -> Occurrences:
    """Puts the values of several features into the order of their rows."""
    rows = np.concatenate([rows for _, rows in parts])
    order = np.argsort(rows, kind="stable")
    encoded = pa.concat_arrays([texts for texts, _ in parts]).take(pa.array(order)).dictionary_encode()
    texts = encoded.dictionary.to_pylist()
    codes = encoded.indices.to_numpy().astype(np.int64)
    whole = np.fromiter((b"\n" not in text and b"\r" not in text for text in texts), bool, len(texts))
    kept = whole[codes]
    return Occurrences(texts, codes[kept], first + rows[order][kept])
