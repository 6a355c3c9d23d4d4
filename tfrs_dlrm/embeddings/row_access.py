"""Reading and writing single rows of variables, float32 whatever their dtype."""

from __future__ import annotations

import tensorflow as tf

from tfrs_dlrm.embeddings.storage import TableVariable


def read_rows(rows_of: TableVariable, rows: tf.Tensor | None) -> tf.Tensor:
    """Returns rows int [n], or all rows, as float32 [n, dim] or [n]; differentiable for variables."""
    if rows is None:
        return tf.cast(tf.convert_to_tensor(rows_of), tf.float32)
    # A gather reads single rows. An op that takes the whole table as a tensor copies it, because variables that scatter
    # ops write to are copied on each whole read.
    found = tf.gather(rows_of, rows) if isinstance(rows_of, tf.Variable) else rows_of.gather(rows)
    return tf.cast(found, tf.float32)


def write_rows(variable: tf.Variable, rows: tf.Tensor | None, values: tf.Tensor, seed: tf.Tensor | None = None) -> None:
    """Overwrites rows int [n], each once, or all rows, with float32 [n, dim].

    Args:
      variable: float32 or bfloat16.
      rows: the rows; None for all.
      values: the new rows.
      seed: int [2], for stochastic rounding to bfloat16; None rounds to nearest.
    """
    if rows is None:
        variable.assign(_as_stored(values, variable.dtype, seed), read_value=False)
        return
    # An assigning scatter copies memory. On CPUs it is 8 times as fast as one that adds: gather, arithmetic and
    # assigning scatter together take half the time of an adding scatter.
    variable.scatter_update(tf.IndexedSlices(_as_stored(values, variable.dtype, seed), rows))


def add_to_rows(
    variable: tf.Variable, rows: tf.Tensor, old: tf.Tensor, new: tf.Tensor, seed: tf.Tensor | None = None
) -> None:
    """Adds new - old, float32 [n, dim] each, to rows int [n], each once.

    Several workers may update a row at the same time; no update is lost.
    """
    new = tf.cast(_as_stored(new, variable.dtype, seed), tf.float32)
    variable.scatter_add(tf.IndexedSlices(tf.cast(new - old, variable.dtype), rows))


def _as_stored(values: tf.Tensor, dtype: tf.DType, seed: tf.Tensor | None) -> tf.Tensor:
    if dtype == tf.float32:
        return values
    return tf.cast(values, dtype) if seed is None else round_stochastically(values, seed)


def round_stochastically(values: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Rounds float32 to bfloat16, up or down at random, so that the expectation is the unrounded number.

    bfloat16 is the upper half of float32. A uniform number added to the lower half carries into the upper half with
    the right probability.
    """
    noise = tf.random.stateless_uniform(tf.shape(values), seed, 0, 1 << 16, tf.int32, alg="philox")
    bits = tf.bitcast(values, tf.int32) + noise
    rounded = tf.bitcast(tf.bitwise.bitwise_and(bits, -(1 << 16)), tf.float32)
    return tf.cast(tf.where(tf.math.is_finite(values), rounded, values), tf.bfloat16)
