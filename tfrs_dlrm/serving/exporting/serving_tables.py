"""The tables of a served model, stored in fewer bits on request, and looked up in few operations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfrs_dlrm.embeddings.ids import make_bags
from tfrs_dlrm.embeddings.layouts import make_layout
from tfrs_dlrm.embeddings.quantized import Storage, quantized, stored_bytes
from tfrs_dlrm.embeddings.row_access import read_rows
from tfrs_dlrm.schema import Schema, Table

# Smaller tables of one dimension are stacked in one variable and looked up in one operation: a batch of 1 costs as much
# as the number of its operations. Stacking needs a second copy for a while, so larger tables are not stacked.
STACK_BELOW = 64 << 20  # bytes


class ServingTables(tf.Module):
    """The rows of all tables of a schema.

    Args:
      schema: of the tables.
      variables: the tables' rows by name, as in `EmbeddingTables.tables`.
      storage: of the rows.

    Attributes:
      bytes: the size of all rows.
    """

    def __init__(self, schema: Schema, variables: Mapping[str, tf.Variable], storage: Storage):
        super().__init__(name="tables")
        self._layouts = {f.name: make_layout(schema.table_of(f), schema) for f in schema.categorical}
        groups = _groups(schema, variables)
        # By table: the number of its stack, and the position of its first row in the stack.
        self._place: dict[str, tuple[int, int]] = {}
        for i, tables in enumerate(groups):
            first = 0
            for t in tables:
                self._place[t.name] = i, first
                first += variables[t.name].shape[0]
        self._dims = [tables[0].dim for tables in groups]
        self.stacked = [quantized(_stack([variables[t.name] for t in g]), storage) for g in groups]
        self.single = {name: quantized(v, storage) for name, v in variables.items() if name not in self._place}
        self.bytes = sum(stored_bytes(t) for t in [*self.stacked, *self.single.values()])

    def vectors(self, part: Schema, features: Mapping[str, Any]) -> list[tf.Tensor] | tf.Tensor:
        """Looks up encoded features, whose rows must be in range.

        Args:
          part: the given features, some or all of the schema's.
          features: `ids` int32 [R, F], and ragged rows and weights, as the encoder returns them.

        Returns:
          float32 [R, dim] per feature of `part.categorical`, or one tensor [R, n, dim] if all are in one stack.
        """
        columns = {f.name: i for i, f in enumerate(part.one_hot)}
        found: dict[str, tf.Tensor] = {}
        for i, dim in enumerate(self._dims):
            members = [f for f in part.one_hot if self._place.get(f.table, (None, 0))[0] == i]
            if members:
                ids = _columns(features["ids"], [columns[f.name] for f in members])
                rows = ids + np.array([self._place[f.table][1] for f in members], np.int32)
                vectors = read_rows(self.stacked[i], tf.reshape(rows, [-1]))
                together = tf.reshape(vectors, [-1, len(members), dim])
                if len(members) == len(part.categorical):
                    return together
                found |= zip((f.name for f in members), tf.unstack(together, axis=1), strict=True)
        single = [f.name for f in part.categorical if f.name not in found]
        if single:
            found |= self._one_by_one(part.select(single), columns, features)
        return [found[f.name] for f in part.categorical]

    def _one_by_one(
        self, part: Schema, columns: Mapping[str, int], features: Mapping[str, Any]
    ) -> dict[str, tf.Tensor]:
        rows: dict[str, Any] = {f.name: features[f.name] for f in part.multi_hot}
        rows |= {f.name: features["ids"][:, columns[f.name]] for f in part.one_hot}
        weights = {f.name: features[f.weights_name] for f in part.multi_hot if f.weights}
        bags = make_bags(part, rows, weights)
        return {
            f.name: self._layouts[f.name].vectors(self.single, b) for f, b in zip(part.categorical, bags, strict=True)
        }


def _groups(schema: Schema, variables: Mapping[str, tf.Variable]) -> list[list[Table]]:
    """Returns the tables of each stack: small, plain ones of one-hot features, with one dimension and type."""
    never = {f.table for f in schema.multi_hot} | {t.stored_in for t in schema.tables}
    groups: dict[Any, list[Table]] = {}
    for t in schema.tables:
        if t.name not in never and t.name in variables:  # compressed tables have no variable of their name
            variable = variables[t.name]
            if stored_bytes(variable) <= STACK_BELOW:
                groups.setdefault((t.dim, variable.dtype), []).append(t)
    return [tables for tables in groups.values() if len(tables) > 1]


def _stack(variables: Sequence[tf.Variable]) -> tf.Variable:
    return tf.Variable(tf.concat([tf.convert_to_tensor(v) for v in variables], axis=0), trainable=False)


def _columns(ids: tf.Tensor, columns: Sequence[int]) -> tf.Tensor:
    return ids if list(columns) == list(range(ids.shape[1])) else tf.gather(ids, columns, axis=1)
