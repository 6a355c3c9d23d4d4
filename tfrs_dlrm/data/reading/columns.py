"""The columns of encoded rows: converted from Parquet to the arrays of a batch, and to the features of a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import tensorflow as tf

from tfrs_dlrm.schema import GROUP, Schema


@dataclasses.dataclass
class Columns:
    """Encoded rows: matrices for columns with one value per example, Arrow lists for multi-valued ones.

    Attributes:
      matrices: label [N], or [N, L] for several labels; then weight [N], group int64 [N], dense float32 [N, D] and ids
        int32 [N, F], if the schema has them; see `matrix_names`.
      lists: of each multi-valued feature the values, and its weights if it has any.
    """

    matrices: list[np.ndarray]
    lists: list[pa.Array]

    def __len__(self) -> int:
        return len(self.matrices[0])

    @classmethod
    def of(cls, table: pa.Table, schema: Schema) -> Columns:
        """Makes the columns of a table of encoded rows."""
        labels = _stack(table, schema.label_columns, np.float32)
        matrices = [labels if schema.more_labels else labels[:, 0]]
        if schema.weighs_rows:
            weights = _stack(table, ["weight"], np.float32)[:, 0] if schema.weight else None
            matrices.append(np.ones(len(labels), np.float32) if weights is None else weights)
        if schema.group:
            matrices.append(_stack(table, [GROUP], np.int64)[:, 0])
        if schema.dense:
            matrices.append(_stack(table, schema.dense_columns, np.float32))
        if schema.one_hot:
            matrices.append(_stack(table, [f.name for f in schema.one_hot], np.int32))
        return cls(matrices, [table.column(name).combine_chunks() for name in list_columns(schema)])

    @classmethod
    def join(cls, parts: Sequence[Columns]) -> Columns:
        """Joins the rows of several parts."""
        if len(parts) == 1:
            return parts[0]
        matrices = [np.concatenate(columns) for columns in zip(*(p.matrices for p in parts), strict=True)]
        return cls(matrices, [pa.concat_arrays(list(c)) for c in zip(*(p.lists for p in parts), strict=True)])

    def take(self, rows: np.ndarray) -> Columns:
        """Selects rows by number."""
        return Columns([m.take(rows, axis=0) for m in self.matrices], [c.take(pa.array(rows)) for c in self.lists])

    def slice(self, begin: int, end: int) -> Columns:
        """Selects the rows from `begin` to before `end`."""
        return Columns([m[begin:end] for m in self.matrices], [c.slice(begin, end - begin) for c in self.lists])

    def arrays(self) -> tuple[np.ndarray, ...]:
        """Returns the matrices, then for each list column its values and its row splits."""
        flat = list(self.matrices)
        for column in self.lists:
            splits = column.offsets.to_numpy()
            flat += [column.flatten().to_numpy(), (splits - splits[0]).astype(np.int64)]
        return tuple(flat)


def _stack(table: pa.Table, names: Sequence[str], dtype: type) -> np.ndarray:
    out = np.empty((table.num_rows, len(names)), dtype)
    for i, name in enumerate(names):
        out[:, i] = table.column(name).to_numpy()
    return out


def matrix_names(schema: Schema) -> list[str]:
    """The names of the matrices, in order."""
    has_group, has_dense, has_ids = bool(schema.group), bool(schema.dense), bool(schema.one_hot)
    present = {"label": True, "weight": schema.weighs_rows, GROUP: has_group, "dense": has_dense, "ids": has_ids}
    return [name for name, is_present in present.items() if is_present]


def group_column(schema: Schema) -> int:
    """Returns which of the matrices has the groups.

    Raises:
      ValueError: the schema has no group.
    """
    if not schema.group:
        raise ValueError(
            "whole_groups=True: the schema has no group; give it the column of the groups, such as"
            ' "group": "session", and prepare the log again'
        )
    return matrix_names(schema).index(GROUP)


def list_columns(schema: Schema) -> list[str]:
    """The names of the list columns, in order."""
    return [name for f in schema.multi_hot for name in ([f.name, f.weights_name] if f.weights else [f.name])]


def signature(schema: Schema, size: int | None, sort_ids: bool) -> tuple[tf.TensorSpec, ...]:
    """The types of `Columns.arrays`, followed by those of `IdOrders`, for batches of `size` (None: any)."""
    specs = [tf.TensorSpec([size, len(schema.labels)] if schema.more_labels else [size], tf.float32)]
    if schema.weighs_rows:
        specs.append(tf.TensorSpec([size], tf.float32))
    if schema.group:
        specs.append(tf.TensorSpec([size], tf.int64))
    if schema.dense:
        specs.append(tf.TensorSpec([size, schema.dense_width], tf.float32))
    if schema.one_hot:
        specs.append(tf.TensorSpec([size, len(schema.one_hot)], tf.int32))
    weights = {f.weights_name for f in schema.multi_hot if f.weights}
    splits = tf.TensorSpec([None if size is None else size + 1], tf.int64)
    for name in list_columns(schema):
        specs += [tf.TensorSpec([None], tf.float32 if name in weights else tf.int32), splits]
    if sort_ids:
        specs += [tf.TensorSpec([None], tf.int32) for _ in sorted_tables(schema)]
    return tuple(specs)


def assemble(schema: Schema, columns: Sequence[tf.Tensor], sort_ids: bool) -> tuple:
    """Turns the tensors of `Columns.arrays` and `IdOrders` into features, label and weight."""
    rest = iter(columns)
    targets = [next(rest) for _ in range(2 if schema.weighs_rows else 1)]
    features = {}
    if schema.group:
        features[GROUP] = next(rest)
    if schema.dense:
        features["dense"] = next(rest)
    if schema.one_hot:
        features["ids"] = next(rest)
    for name in list_columns(schema):
        features[name] = tf.RaggedTensor.from_row_splits(next(rest), next(rest), validate=False)
    if sort_ids:
        features |= {schema.table(name).order_key: next(rest) for name in sorted_tables(schema)}
    return (features, *targets)


def sorted_tables(schema: Schema) -> list[str]:
    """The tables whose ids are worth sorting before the train step: plain ones with multi-valued features."""
    names = []
    for table in schema.tables:
        users = [f for f in schema.categorical if f.table == table.name]
        plain = table.remainders is None and not table.stored_in
        if plain and any(f.multi_valued for f in users) and all(f.sequence_length is None for f in users):
            names.append(table.name)
    return names


class IdOrders:
    """Computes the permutation that sorts the ids of each of `sorted_tables`, int32 [n]; equal ids keep their order."""

    def __init__(self, schema: Schema):
        first_list = len(matrix_names(schema))
        lists = {name: first_list + 2 * i for i, name in enumerate(list_columns(schema))}
        one_hot = {f.name: i for i, f in enumerate(schema.one_hot)}
        # For each table, the arrays of a batch that hold ids, and the column in each.
        self._places: list[list[tuple[int, int | None]]] = []
        for table in sorted_tables(schema):
            users = [f.name for f in schema.categorical if f.table == table]
            self._places.append([(lists[n], None) if n in lists else (first_list - 1, one_hot[n]) for n in users])

    def __call__(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Computes the permutations for the arrays of a batch."""
        return [
            _order(np.concatenate([arrays[i] if column is None else arrays[i][:, column] for i, column in places]))
            for places in self._places
        ]


def _order(ids: np.ndarray) -> np.ndarray:
    # Sorting ids and positions as one number is five times as fast as argsort.
    packed = (ids.astype(np.int64) << 32) | np.arange(len(ids))
    packed.sort()
    return (packed & 0x7FFFFFFF).astype(np.int32)
