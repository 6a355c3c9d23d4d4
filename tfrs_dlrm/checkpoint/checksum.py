"""A checksum of a table that is a sum over its rows: each device adds up the rows that it holds.

The bits of the i-th number, counted row after row, are a whole number b(i), and

    checksum = sum of g^i * b(i) over all i, modulo 2^64

as in Karp and Rabin 1987, "Efficient randomized pattern-matching algorithms", with a modulus that integers have anyway.
g is 5 modulo 8, so g^k - 1 has just two more factors of 2 than k has. Hence one flipped bit always shows, and so do two
numbers less than 2^31 apart that changed places; of other changes one in 2^30 or fewer would not.
"""

from __future__ import annotations

import functools

import tensorflow as tf

MODULUS = 1 << 64
BASE = 0x1E3779B97F4A7C15
# How many numbers are widened to int64 at a time.
_NUMBERS_AT_A_TIME = 1 << 20
_INTEGERS = {2: tf.int16, 4: tf.int32, 8: tf.int64}


def checksum(values: tf.Tensor, first: int = 0) -> int:
    """Returns the share of some rows, in [0, 2^64); shares are added modulo 2^64.

    Args:
      values: [n, dim] or [n], float32 or bfloat16, in the memory of a CPU.
      first: which row of the table the first one is.
    """
    flat = tf.reshape(values, [-1])
    count, begin = flat.shape[0], first * (values.shape[1] if values.shape.rank > 1 else 1)
    total, step = 0, min(count, _NUMBERS_AT_A_TIME) or 1
    with tf.device(values.device):
        powers = tf.math.cumprod(tf.fill([step], tf.constant(BASE, tf.int64)), exclusive=True)
        for i in range(0, count, step):
            share = _share(flat.dtype)(flat[i : i + step], powers)
            total += int(share) * pow(BASE, begin + i, MODULUS)
    return total % MODULUS


@functools.cache
def _share(dtype: tf.DType) -> tf.types.experimental.PolymorphicFunction:
    """Traced once for each dtype, whatever the number of numbers."""
    integer = _INTEGERS[dtype.size]

    @tf.function(input_signature=[tf.TensorSpec([None], dtype), tf.TensorSpec([None], tf.int64)], autograph=False)
    def share(numbers: tf.Tensor, powers: tf.Tensor) -> tf.Tensor:
        bits = tf.cast(tf.bitcast(numbers, integer), tf.int64)
        # As a matrix product: no product of all numbers with their weights is ever in memory.
        return tf.matmul(bits[tf.newaxis], powers[: tf.size(numbers), tf.newaxis])[0, 0]

    return share
