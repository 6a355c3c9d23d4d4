"""A checksum of a table that is a sum over its rows, so that however they are shared out, each device adds up its own.

The bits of the number in row r and column c count as a whole number b(r, c), and

    checksum = sum of w(r) * w(2^40 + c) * b(r, c) over all r and c, modulo 2^64

with weights w that look random and are odd. So one flipped bit always changes it, and so do, but for odds below 2^-30,
rows or columns that changed places and numbers that come from elsewhere.
"""

from __future__ import annotations

import functools

import tensorflow as tf

MODULUS = 1 << 64
# The numbers are widened to int64, so many of them at a time.
_NUMBERS_AT_A_TIME = 1 << 20
_FIRST_COLUMN = 1 << 40
_INTEGERS = {2: tf.int16, 4: tf.int32, 8: tf.int64}


def checksum(values: tf.Tensor, first: int = 0) -> int:
    """The share of some rows, in [0, 2^64); shares are added modulo 2^64.

    Args:
      values: [n, dim] or [n], float32 or bfloat16; on the device of a CPU, where this computes.
      first: which row of the table the first one is.
    """
    rows = tf.reshape(values, [values.shape[0], -1]) if values.shape[0] else tf.reshape(values, [0, 1])
    step = max(1, _NUMBERS_AT_A_TIME // max(1, rows.shape[1]))
    share = _share(rows.dtype)
    parts = [share(rows[i : i + step], tf.constant(first + i, tf.int64)) for i in range(0, rows.shape[0], step)]
    return sum(int(part) for part in parts) % MODULUS


@functools.cache
def _share(dtype: tf.DType) -> tf.types.experimental.PolymorphicFunction:
    """Traced once for each dtype, whatever the shapes."""
    integer = _INTEGERS[dtype.size]

    @tf.function(input_signature=[tf.TensorSpec([None, None], dtype), tf.TensorSpec([], tf.int64)])
    def share(rows: tf.Tensor, first: tf.Tensor) -> tf.Tensor:
        bits = tf.cast(tf.bitcast(rows, integer), tf.int64)
        count, dim = tf.unstack(tf.shape(bits, out_type=tf.int64))
        # As a matrix product: no product of all numbers with their weights is ever in memory.
        columns = tf.matmul(_weights(first, count)[tf.newaxis], bits)[0]
        return tf.reduce_sum(columns * _weights(tf.constant(_FIRST_COLUMN, tf.int64), dim))

    return share


def _weights(first: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """w(first) to w(first + count - 1), int64: a multiplicative hash (Knuth, TAOCP vol. 3, 6.4) mixed once more."""
    z = tf.range(first + 1, first + 1 + count) * 0x1E3779B97F4A7C15
    z = tf.bitwise.bitwise_xor(z, tf.bitwise.right_shift(z, tf.constant(32, tf.int64)))
    z *= 0x56E8FEB86659FD93
    z = tf.bitwise.bitwise_xor(z, tf.bitwise.right_shift(z, tf.constant(32, tf.int64)))
    return tf.bitwise.bitwise_or(z, tf.constant(1, tf.int64))
