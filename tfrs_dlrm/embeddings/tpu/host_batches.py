"""What a batch has to look like for a TPU. The input pipeline makes it, on the host, of an encoded batch.

A TPU has no strings, no assertions and no tensors whose shapes depend on what is in them, and its embedding hardware
takes ids straight from the host. So ids are checked, counted and brought into shape before they get there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

import tensorflow as tf

from tfrs_dlrm.embeddings.bags import multi_hot_bags
from tfrs_dlrm.embeddings.ids import CheckedIds, Features, IdReader
from tfrs_dlrm.layers.hashing import hashed_rows
from tfrs_dlrm.schema import CategoricalFeature, Schema, Table

# Not a name that a feature can have.
OUT_OF_RANGE = "ids/out_of_range"


@dataclasses.dataclass(frozen=True)
class Lookup:
    """Something that the embedding hardware looks up in every batch.

    Attributes:
      key: of its ids in a batch for the TPU.
      feature: the feature.
      table: the variable that holds the rows.
      piece: which part of the feature's vector it is, where a table is `stored_in` another one; else None.
    """

    key: str
    feature: CategoricalFeature
    table: str
    piece: int | None = None

    @property
    def bags(self) -> int:
        """Vectors for each example: one, or one for each place of a sequence."""
        return self.feature.sequence_length or 1


def lookups(schema: Schema, hardware: Collection[str]) -> tuple[Lookup, ...]:
    """All lookups in the variables called `hardware`, in the order of the features."""
    found = []
    for f in schema.categorical:
        table = schema.table_of(f)
        if f.table in hardware:
            found.append(Lookup(f.name, f, f.table))
        elif table.stored_in in hardware:
            pieces = range(table.dim // schema.table(table.stored_in).dim)
            found += [Lookup(f"{f.name}/{i}", f, table.stored_in, i) for i in pieces]
    return tuple(found)


class HostMap:
    """Makes batches for a TPU of encoded batches, in the input pipeline: `dataset.map(HostMap(...))`.

    What comes out, beside `dense` as it was:

    | of | key | form |
    | --- | --- | --- |
    | features with one value whose tables are replicated | `ids` | int32 [B, number of them] |
    | the others with one value | NAME | int32 [B] |
    | multi-valued ones whose tables are replicated | NAME | int32 [B, hotness], -1 behind the last value |
    | the others, multi-valued | NAME | RaggedTensor int32 [B, None]; of a sequence [B * length, None] |
    | ids that were no rows | `ids/out_of_range` | int32 [B, F], whose sums over B are the counts |

    A feature whose table is stored in one on the embedding hardware has a key NAME/0, NAME/1 ... for each piece of its
    vector. Weights have the form of their ids.

    Args:
      schema: of the encoded batches.
      hardware: the variables that are on embedding hardware.
      hotness: for multi-valued features whose tables are replicated, how many values an example has at most. TPUs
        compute with that many, so it is a cost. Sequences need none.
    """

    def __init__(self, schema: Schema, hardware: Collection[str], hotness: Mapping[str, int]) -> None:
        self._schema = schema
        self._read = IdReader(schema)
        self._lookups: dict[str, list[Lookup]] = {}
        for lookup in lookups(schema, hardware):
            self._lookups.setdefault(lookup.feature.name, []).append(lookup)
        self._hotness = {f.name: f.sequence_length for f in schema.multi_hot if f.sequence_length} | dict(hotness)
        known = {f.name for f in schema.multi_hot}
        for name, values in hotness.items():
            if name not in known or values < 1:
                raise ValueError(f"hotness of {name!r}: {values}; at least 1 of a multi-valued feature is needed")

    def __call__(self, features: Features) -> dict[str, Any]:
        """The batch for the TPU; see the class.

        Raises:
          ValueError: a feature is missing, has another shape or type, or needs a hotness and has none.
          tf.errors.InvalidArgumentError: an id is out of range and its feature says `error`; or an example has more
            values than the hotness of its feature.
        """
        checked = self._read.check(features)
        batch: dict[str, Any] = {"dense": features["dense"]} if "dense" in features else {}
        columns = []
        for f in self._schema.categorical:
            if f.name in self._lookups:
                batch |= self._for_hardware(f, checked)
            elif f.multi_valued:
                batch |= self._padded(f, checked)
            else:
                columns.append(checked.rows[f.name])
        if columns:
            batch["ids"] = tf.stack(columns, axis=1)
        # In the first example, since a batch may be split among replicas, and then all of it has to be by example.
        first = checked.out_of_range[tf.newaxis]
        batch[OUT_OF_RANGE] = tf.pad(first, [[0, tf.maximum(checked.batch_size, 1) - 1], [0, 0]])[: checked.batch_size]
        return {key: _static(values, features) for key, values in batch.items()}

    def _for_hardware(self, f: CategoricalFeature, checked: CheckedIds) -> dict[str, Any]:
        rows, weights = checked.rows[f.name], checked.weights.get(f.name)
        if f.multi_valued:
            rows, weights = _ragged(f, rows, weights, self._schema.table_of(f))
        batch = {}
        for lookup in self._lookups[f.name]:
            batch[lookup.key] = rows
            if lookup.piece is not None:
                buckets, name = self._schema.table(lookup.table).vocabulary_size or 1, f"{f.table}/{lookup.piece}"
                batch[lookup.key] = (
                    rows.with_flat_values(hashed_rows(rows.flat_values, buckets, name))
                    if f.multi_valued
                    else hashed_rows(rows, buckets, name)
                )
        return batch if weights is None else batch | {f.weights_name: weights}

    def _padded(self, f: CategoricalFeature, checked: CheckedIds) -> dict[str, tf.Tensor]:
        rows, weights = checked.rows[f.name], checked.weights.get(f.name)
        length = self._hotness.get(f.name)
        if isinstance(rows, tf.Tensor):
            rows = tf.RaggedTensor.from_tensor(rows) if length else rows
            weights = tf.RaggedTensor.from_tensor(weights) if length and weights is not None else weights
        if isinstance(rows, tf.RaggedTensor):
            if not length:
                raise ValueError(
                    f"feature {f.name!r} has any number of values and its table is replicated, where a TPU computes"
                    f" with a fixed number: give the most that an example has, hotness={{{f.name!r}: ...}}"
                )
            if f.sequence_length is None:
                message = f"feature {f.name}: an example has more values than its hotness of {length}; raise it"
                tf.debugging.assert_less_equal(rows.row_lengths(), tf.cast(length, rows.row_splits.dtype), message)
            rows = rows.to_tensor(-1, shape=[None, length])
            weights = None if weights is None else weights.to_tensor(0.0, shape=[None, length])
        return {f.name: rows} if weights is None else {f.name: rows, f.weights_name: weights}


def pad_examples(features: Features, size: int) -> dict[str, Any]:
    """An encoded batch filled up to `size` examples: with zeros, and without values in multi-valued features.

    The scores of those are to be left out. Hints for sorting (`Table.order_key`) are dropped.
    """
    padded: dict[str, Any] = {}
    for key, values in features.items():
        if "/" in key:
            continue
        if isinstance(values, tf.SparseTensor):
            values = tf.RaggedTensor.from_sparse(values)
        if isinstance(values, tf.RaggedTensor):
            missing = size - values.nrows()
            none = tf.zeros([missing], values.row_splits.dtype)
            empty = tf.RaggedTensor.from_row_lengths(values.flat_values[:0], none)
            padded[key] = tf.concat([values, empty], axis=0)
        else:
            paddings = [[0, size - tf.shape(values)[0]]] + [[0, 0]] * (values.shape.rank - 1)
            padded[key] = tf.ensure_shape(tf.pad(values, paddings), [size, *values.shape[1:]])
    return padded


def _ragged(f: CategoricalFeature, rows: Any, weights: Any, table: Table) -> tuple[Any, Any]:
    """Rows and weights, ragged; of a sequence a bag of one row, or none, for each place."""
    if f.sequence_length is not None:
        bags = multi_hot_bags(rows, weights, table.combiner, f.sequence_length)

        def places(values: tf.Tensor) -> tf.RaggedTensor:
            of_places = tf.cast(bags.bag_of_row, tf.int64)
            return tf.RaggedTensor.from_value_rowids(values, of_places, tf.cast(bags.size, tf.int64))

        rows, weights = places(bags.rows), None if bags.weights is None else places(bags.weights)
    elif isinstance(rows, tf.Tensor):
        rows = tf.RaggedTensor.from_tensor(rows)
        weights = None if weights is None else tf.RaggedTensor.from_tensor(weights)
    return rows.with_row_splits_dtype(tf.int32), None if weights is None else weights.with_row_splits_dtype(tf.int32)


def _static(values: Any, features: Features) -> Any:
    """With the number of examples in its static shape, where that of the features is known."""
    sizes = [features[key].shape[0] for key in ("dense", "ids") if key in features and features[key].shape[0]]
    if isinstance(values, tf.Tensor) and sizes:
        return tf.ensure_shape(values, [sizes[0], *values.shape[1:]])
    return values
