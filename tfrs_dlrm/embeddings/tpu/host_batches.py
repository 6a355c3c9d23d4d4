"""Makes batches for TPUs of encoded batches, in the input pipeline on the host.

A TPU has no strings, no assertions and no tensors with data-dependent shapes, and its embedding hardware takes ids
directly from the host. So the host checks, counts and reshapes ids.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

import tensorflow as tf

from tfrs_dlrm.embeddings.bags import multi_hot_bags
from tfrs_dlrm.embeddings.ids import CheckedIds, Features, IdReader
from tfrs_dlrm.embeddings.value_lists import MISSING_ID, history_lengths, ragged_rows
from tfrs_dlrm.layers.hashing import hashed_rows
from tfrs_dlrm.schema import GROUP, CategoricalFeature, Schema, Table

# No feature can have this name.
OUT_OF_RANGE = "ids/out_of_range"


@dataclasses.dataclass(frozen=True)
class HardwareLookup:
    """A lookup on the embedding hardware, one in every batch.

    Attributes:
      key: the key of its ids in a batch for the TPU.
      feature: the feature.
      table: the variable that holds the rows.
      part: the index in the feature's vector, if its table is `stored_in` another one; else None.
    """

    key: str
    feature: CategoricalFeature
    table: str
    part: int | None = None

    @property
    def bags(self) -> int:
        """The number of vectors per example: 1, or the length of a sequence."""
        return self.feature.sequence_length or 1


def lookups(schema: Schema, hardware: Collection[str]) -> tuple[HardwareLookup, ...]:
    """Returns all lookups in the variables called `hardware`, in the order of the features."""
    found = []
    for f in schema.categorical:
        table = schema.table_of(f)
        if f.table in hardware:
            found.append(HardwareLookup(f.name, f, f.table))
        elif table.stored_in in hardware:
            parts = range(schema.pieces(table))
            found += [HardwareLookup(f"{f.name}/{i}", f, table.stored_in, i) for i in parts]
    return tuple(found)


class HostMap:
    """Makes batches for a TPU of encoded batches, in the input pipeline: `dataset.map(HostMap(...))`.

    `dense` and `group` stay as they are. The output also has:

    | input | table | key | form |
    | --- | --- | --- | --- |
    | single-valued features | replicated | `ids` | int32 [B, number of features] |
    | single-valued features | on hardware | NAME | int32 [B] |
    | multi-valued features | replicated | NAME | int32 [B, hotness], padded with -1 |
    | multi-valued features | on hardware | NAME | RaggedTensor int32 [B, None]; of a sequence [B * length, None] |
    | histories | both | NAME/length | int32 [B], how many events count |
    | ids outside the table | both | `ids/out_of_range` | int32 [B, F], whose sums over B are the counts |

    If the table of a feature is stored in a table on the hardware, the keys are NAME/0, NAME/1 ... for the parts of its
    vector. Weights have the form of their ids.

    Args:
      schema: the schema of the encoded batches.
      hardware: the variables on embedding hardware.
      hotness: for multi-valued features with replicated tables, the largest number of values of an example. TPUs
        compute with that many, so it costs time. Sequences need none.
    """

    def __init__(self, schema: Schema, hardware: Collection[str], hotness: Mapping[str, int]) -> None:
        self._schema = schema
        self._read = IdReader(schema)
        self._lookups: dict[str, list[HardwareLookup]] = {}
        for lookup in lookups(schema, hardware):
            self._lookups.setdefault(lookup.feature.name, []).append(lookup)
        self._hotness = {f.name: f.sequence_length for f in schema.multi_hot if f.sequence_length} | dict(hotness)
        known = {f.name for f in schema.multi_hot}
        for name, values in hotness.items():
            if name not in known or values < 1:
                raise ValueError(f"hotness of {name!r}: {values}; at least 1 of a multi-valued feature is needed")

    def __call__(self, features: Features) -> dict[str, Any]:
        """Makes the batch for the TPU; see the class.

        Raises:
          ValueError: a feature is missing, has a wrong shape or type, or needs a hotness and has none.
          tf.errors.InvalidArgumentError: an id is out of range and the policy of its feature is `error`; or an example
            has more values than the hotness of its feature.
        """
        checked = self._read.check(features)
        batch: dict[str, Any] = {key: features[key] for key in ("dense", GROUP) if key in features}
        columns = []
        for f in self._schema.categorical:
            if f.name in self._lookups:
                batch |= self._for_hardware(f, checked)
            elif f.multi_valued:
                batch |= self._padded(f, checked, features[f.name])
            else:
                columns.append(checked.rows[f.name])
        if columns:
            batch["ids"] = tf.stack(columns, axis=1)
        lengths = history_lengths(self._schema, checked.rows)
        batch |= {f.length_key: lengths[f.name] for f in self._schema.histories if not f.parallel_to}
        # In the first example: a batch may be split among replicas, so all its tensors must be by example.
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
            if lookup.part is not None:
                buckets, name = self._schema.table(lookup.table).vocabulary_size or 1, f"{f.table}/{lookup.part}"
                batch[lookup.key] = (
                    rows.with_flat_values(hashed_rows(rows.flat_values, buckets, name))
                    if f.multi_valued
                    else hashed_rows(rows, buckets, name)
                )
        return batch if weights is None else batch | {f.weights_name: weights}

    def _padded(self, f: CategoricalFeature, checked: CheckedIds, given: Any) -> dict[str, tf.Tensor]:
        rows, weights = checked.rows[f.name], checked.weights.get(f.name)
        length = self._hotness.get(f.name) or (given.shape[1] if isinstance(given, tf.Tensor) else None)
        if not length:
            raise ValueError(
                f"feature {f.name!r} has any number of values and its table is replicated; TPUs need a fixed number:"
                f" give the largest of an example, hotness={{{f.name!r}: ...}}"
            )
        if f.sequence_length is None:
            message = f"feature {f.name}: an example has more values than its hotness of {length}; raise it"
            tf.debugging.assert_less_equal(rows.row_lengths(), tf.cast(length, rows.row_splits.dtype), message)
        rows = rows.to_tensor(MISSING_ID, shape=[None, length])
        weights = None if weights is None else weights.to_tensor(0.0, shape=[None, length])
        return {f.name: rows} if weights is None else {f.name: rows, f.weights_name: weights}


def pad_examples(features: Features, size: int) -> dict[str, Any]:
    """Pads an encoded batch to `size` examples, with zeros, and without values in multi-valued features.

    Ignore the scores of padding. Sort orders (`Table.order_key`) are dropped.
    """
    padded: dict[str, Any] = {}
    for key, values in features.items():
        if "/" in key:
            continue
        values = ragged_rows(key, values)
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
    """Returns rows and weights, ragged; for a sequence a bag of one row or none per position."""
    if f.sequence_length is not None:
        bags = multi_hot_bags(rows, weights, table.combiner, f.sequence_length)

        def by_position(values: tf.Tensor) -> tf.RaggedTensor:
            positions = tf.cast(bags.bag_of_row, tf.int64)
            return tf.RaggedTensor.from_value_rowids(values, positions, tf.cast(bags.size, tf.int64))

        rows, weights = by_position(bags.rows), None if bags.weights is None else by_position(bags.weights)
    return rows.with_row_splits_dtype(tf.int32), None if weights is None else weights.with_row_splits_dtype(tf.int32)


def _static(values: Any, features: Features) -> Any:
    """Sets the number of examples in the static shape, if it is known."""
    sizes = [features[key].shape[0] for key in ("dense", "ids") if key in features and features[key].shape[0]]
    if isinstance(values, tf.Tensor) and sizes:
        return tf.ensure_shape(values, [sizes[0], *values.shape[1:]])
    return values
