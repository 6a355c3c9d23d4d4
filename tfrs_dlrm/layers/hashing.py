"""Hash functions that give the same result in every process: seeds from names, rows of tables from values."""

from __future__ import annotations

import zlib

import tensorflow as tf


def derive_seed(seed: int, name: str) -> int:
    """Returns a seed in [0, 2**31) for the random choice called `name`.

    The result depends on the two arguments only: not on the process, unlike Python's `hash` of a string.
    """
    return zlib.crc32(f"{seed}/{name}".encode()) & 0x7FFFFFFF


def hashed_rows(rows: tf.Tensor, buckets: int, name: str) -> tf.Tensor:
    """Hashes int [n] to int32 [n] in [0, buckets); each `name` gives another function.

    The finalizer of MurmurHash3 (Appleby 2011, `fmix32`) over the row number and a number from the name.
    """
    h = tf.bitwise.bitwise_xor(tf.cast(rows, tf.uint32), tf.constant(derive_seed(0, name), tf.uint32))
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        h = tf.bitwise.bitwise_xor(h, tf.bitwise.right_shift(h, tf.constant(shift, tf.uint32)))
        h *= tf.constant(factor, tf.uint32)
    h = tf.bitwise.bitwise_xor(h, tf.bitwise.right_shift(h, tf.constant(16, tf.uint32)))
    return tf.cast(tf.math.floormod(tf.cast(h, tf.int64), buckets), tf.int32)


def fingerprint_rows(text: tf.Tensor, rows: int) -> tf.Tensor:
    """Hashes string [n] to int32 [n] in [0, rows). Runs on hosts only: TPUs have no strings."""
    return tf.cast(tf.strings.to_hash_bucket_fast(text, rows), tf.int32)
