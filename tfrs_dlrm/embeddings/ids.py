"""Reads the ids of an encoded batch, checks them against their tables, and makes bags of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfrs_dlrm.embeddings.bags import Bags, multi_hot_bags, one_hot_bags, padded_bags
from tfrs_dlrm.embeddings.value_lists import latest, ragged_rows, without_padding
from tfrs_dlrm.layers.hashing import fingerprint_rows
from tfrs_dlrm.schema import CategoricalFeature, Schema

Features = Mapping[str, tf.Tensor | tf.RaggedTensor | tf.SparseTensor]


class PreparedIds(NamedTuple):
    """The lookups of a batch, for `EmbeddingTables.lookup` and `EmbeddingTables.update`.

    Attributes:
      bags: one for each of `schema.categorical`.
      batch_size: the number of examples.
      out_of_range: int32 [len(schema.categorical)], how many ids of each feature were outside the table.
      orders: by table, the permutation that sorts its ids; see `Table.order_key`.
    """

    bags: tuple[Bags, ...]
    batch_size: tf.Tensor
    out_of_range: tf.Tensor
    orders: dict[str, tf.Tensor]


class CheckedIds(NamedTuple):
    """The ids of a batch, all inside their tables.

    Attributes:
      rows: by feature: int32 [B]; multi-valued features [B, None] ragged, without padding.
      weights: by multi-valued feature with weights: float32 of the same form.
      batch_size: the number of examples.
      out_of_range: int32 [len(schema.categorical)], how many ids of each feature were outside the table.
    """

    rows: dict[str, Any]
    weights: dict[str, Any]
    batch_size: tf.Tensor
    out_of_range: tf.Tensor


class IdReader:
    """Reads and checks the ids of batches of one schema."""

    def __init__(self, schema: Schema):
        self._schema = schema
        # int64, to compare with ids of both types.
        self._sizes = {f.name: np.int64(schema.table_of(f).vocabulary_size or 0) for f in schema.categorical}

    def __call__(self, features: Features) -> PreparedIds:
        """See `EmbeddingTables.prepare`."""
        checked = self.check(features)
        orders = {t.name: features[t.order_key] for t in self._schema.tables if t.order_key in features}
        bags = tuple(make_bags(self._schema, checked.rows, checked.weights))
        return PreparedIds(bags, checked.batch_size, checked.out_of_range, orders)

    def check(self, features: Features) -> CheckedIds:
        """Returns the ids of a batch; ids outside the table follow the feature's `out_of_range` policy.

        Raises:
          ValueError: a feature is missing, or has a wrong shape or type.
          tf.errors.InvalidArgumentError: an id is out of range and the policy of its feature is `error`.
        """
        rows: dict[str, Any] = {}
        weights: dict[str, Any] = {}
        counts: dict[str, tf.Tensor] = {}
        sizes: list[tf.Tensor] = []
        if self._schema.one_hot:
            ids = self._one_hot(features)
            sizes.append(tf.shape(ids)[0])
            found, wrong = self._in_range(self._schema.one_hot, ids)
            names = [f.name for f in self._schema.one_hot]
            rows |= zip(names, tf.unstack(found, axis=1), strict=True)
            counts |= zip(names, tf.unstack(wrong), strict=True)
        for f in self._schema.multi_hot:
            ids, feature_weights = self._multi_hot(features, f)
            if f.history_of:
                ids = latest(ids, f.sequence_length)
            found, wrong = self._in_range([f], ids.flat_values[:, tf.newaxis])
            rows[f.name] = ids = ids.with_flat_values(tf.reshape(found, [-1]))
            if feature_weights is not None:
                weights[f.name] = feature_weights
            counts[f.name] = wrong[0]
            sizes.append(tf.cast(ids.nrows(), tf.int32))
        self._check_parallel(rows)
        names = [f.name for f in self._schema.categorical]
        total = tf.stack([counts[name] for name in names]) if names else tf.zeros([0], tf.int32)
        if len(sizes) > 1:
            message = "the features of the batch have different numbers of examples"
            tf.debugging.assert_equal(tf.reduce_min(sizes), tf.reduce_max(sizes), message)
        return CheckedIds(rows, weights, sizes[0] if sizes else tf.constant(0), total)

    def _check_parallel(self, rows: Mapping[str, Any]) -> None:
        """Checks that parallel histories have as many values as the one to which they are parallel."""
        for f in self._schema.histories:
            if f.parallel_to:
                message = f"feature {f.name}: not as many values as {f.parallel_to}, to which it is parallel"
                splits = (tf.cast(rows[name].row_splits, tf.int64) for name in (f.name, f.parallel_to))
                tf.debugging.assert_equal(*splits, message)

    def _in_range(self, features: Sequence[CategoricalFeature], ids: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns row numbers [n, F] of ids [n, F], a column per feature; and int32 [F], how many ids were outside."""
        sizes = tf.constant([self._sizes[f.name] for f in features], ids.dtype)
        # Two comparisons, where one of unsigned numbers would do: TensorFlow Lite and ONNX lack that.
        fits = tf.reduce_all((ids >= 0) & (ids < sizes))
        none = tf.zeros([len(features)], tf.int32)
        found, wrong = tf.cond(fits, lambda: (ids, none), lambda: self._replace(features, ids, sizes))
        return tf.cast(found, tf.int32), wrong  # no table has more rows than int32 can count

    def _replace(
        self, features: Sequence[CategoricalFeature], ids: tf.Tensor, sizes: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Replaces, or refuses, ids outside the table; returns the same as `_in_range`."""
        known = (ids >= 0) & (ids < sizes)
        wrong = tf.math.count_nonzero(~known, axis=0, dtype=tf.int32)
        clips = np.array([f.out_of_range == "clip" for f in features])
        substitute = tf.where(clips, tf.clip_by_value(ids, 0, sizes - 1), 0)
        columns = tf.unstack(tf.where(known, ids, substitute), axis=1)
        checks = []
        for i, f in enumerate(features):
            if f.out_of_range == "hash":
                columns[i] = self._hashed(f, ids[:, i], columns[i], known[:, i])
            elif f.out_of_range == "error":
                checks.append(self._refuse(f, ids[:, i], wrong[i]))
        with tf.control_dependencies([c for c in checks if c is not None]):
            return tf.stack(columns, axis=1), tf.identity(wrong)

    def _hashed(self, f: CategoricalFeature, ids: tf.Tensor, rows: tf.Tensor, known: tf.Tensor) -> tf.Tensor:
        """Hashes ids outside the table as the encoder does."""

        def replaced() -> tf.Tensor:
            where = tf.where(~known)
            others = fingerprint_rows(tf.strings.as_string(tf.gather_nd(ids, where)), int(self._sizes[f.name]))
            return tf.tensor_scatter_nd_update(rows, where, tf.cast(others, rows.dtype))

        return tf.cond(tf.reduce_all(known), lambda: rows, replaced)

    def _refuse(self, f: CategoricalFeature, ids: tf.Tensor, wrong: tf.Tensor) -> Any:
        size = self._sizes[f.name]
        bad = tf.boolean_mask(ids, (ids < 0) | (ids >= tf.constant(size, ids.dtype)))
        first = tf.concat([bad, [0]], axis=0)[0]  # most batches have no bad id
        # No quotes: TensorFlow shows each with a backslash.
        outside = f"feature {f.name}: id {{}} is outside the table of {size} rows"
        message = tf.strings.format(f"{outside}; raise vocabulary_size or set out_of_range to oov", first)
        return tf.debugging.Assert(wrong == 0, [message])

    def _one_hot(self, features: Features) -> tf.Tensor:
        """Returns the ids of single-valued features, int [B, F]."""
        names = [f.name for f in self._schema.one_hot]
        ids = with_width(_get(features, "ids"), len(names))
        if ids.shape.rank != 2 or ids.shape[1] != len(names):
            raise ValueError(f"ids of shape {ids.shape}; [B, {len(names)}] is needed, one column each for {names}")
        return _integers("ids", ids)

    def _multi_hot(self, features: Features, f: CategoricalFeature) -> tuple[tf.RaggedTensor, tf.RaggedTensor | None]:
        """Returns ids, int, and weights, float32 or None, ragged and of the same shape, without padding."""
        ids = _integers(f.name, ragged_rows(f.name, _get(features, f.name)))
        if ids.shape.rank != 2:
            raise ValueError(
                f"feature {f.name!r}: ids of shape {ids.shape}; [B, None] is needed, ragged, sparse or dense"
            )
        weights = ragged_rows(f.weights_name, _get(features, f.weights_name)) if f.weights else None
        if weights is not None and isinstance(weights, tf.Tensor) != isinstance(ids, tf.Tensor):
            raise ValueError(f"feature {f.name!r}: ids and weights must both be ragged or sparse, or both dense")
        if weights is not None and not weights.dtype.is_floating:
            raise ValueError(f"{f.weights_name!r} of type {weights.dtype.name}; weights must be float32")
        message = f"feature {f.name}: the weights have another shape than the ids; each id needs one"
        if isinstance(ids, tf.Tensor):
            if weights is not None and not ids.shape.is_compatible_with(weights.shape):
                raise ValueError(f"{message}: {ids.shape} and {weights.shape}")
            checks = [] if weights is None else [tf.debugging.assert_equal(tf.shape(ids), tf.shape(weights), message)]
            with tf.control_dependencies([check for check in checks if check is not None]):
                return without_padding(ids, weights)
        if weights is None:
            return ids, None
        if ids.row_splits is not weights.row_splits:
            splits = (tf.cast(r.row_splits, tf.int64) for r in (ids, weights))
            tf.debugging.assert_equal(*splits, message)
        return ids, tf.cast(weights, tf.float32)


def with_width(values: tf.Tensor, width: int) -> tf.Tensor:
    """Returns a tensor [B, width] with its static width, which tensors from Python generators lack.

    Tensors of another rank or known width are returned unchanged.

    Raises:
      tf.errors.InvalidArgumentError: at run time, the width is another one.
    """
    unknown = isinstance(values, tf.Tensor) and values.shape.rank == 2 and values.shape[1] is None
    return tf.ensure_shape(values, [None, width]) if unknown else values


def make_bags(schema: Schema, rows: Mapping[str, Any], weights: Mapping[str, Any]) -> list[Bags]:
    """Returns the bags of each of `schema.categorical`.

    Args:
      schema: of the features.
      rows: as in `CheckedIds`; or int [B, L] padded with -1, where L is the length of sequences, and any for features
        that are pooled.
      weights: as in `CheckedIds`, of the form of the rows.
    """
    bags = []
    for f in schema.categorical:
        if f.multi_valued:
            combiner = schema.table_of(f).combiner
            if isinstance(rows[f.name], tf.Tensor):
                bags.append(padded_bags(rows[f.name], weights.get(f.name), combiner, f.sequence_length)[0])
            else:
                bags.append(multi_hot_bags(rows[f.name], weights.get(f.name), combiner, f.sequence_length))
        else:
            bags.append(one_hot_bags(rows[f.name]))
    return bags


def _get(features: Features, key: str) -> Any:
    if key not in features:
        raise ValueError(f"the batch has no {key!r}, only {sorted(features)}; was it encoded by another schema?")
    values = features[key]
    if not isinstance(values, (np.ndarray, list)):
        return values
    try:
        return tf.convert_to_tensor(values)
    except (ValueError, TypeError) as e:
        raise ValueError(
            f"{key!r}: lists of several lengths, or of several types, are no tensor; give tf.ragged.constant(...)"
        ) from e


def _integers(name: str, ids: Any) -> Any:
    if ids.dtype not in (tf.int32, tf.int64):
        raise ValueError(f"{name!r} of type {ids.dtype.name}; ids must be int32 or int64")
    return ids
