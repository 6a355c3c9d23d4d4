import numpy as np
import tensorflow as tf

from tfrs_dlrm.layers.hashing import derive_seed, hashed_rows


def murmur_finalizer(h: int) -> int:
    h ^= h >> 16
    h = h * 0x85EBCA6B % 2**32
    h ^= h >> 13
    h = h * 0xC2B2AE35 % 2**32
    return h ^ (h >> 16)


def test_equals_the_finalizer_of_murmur_in_plain_integers():
    assert murmur_finalizer(1) == 0x514E28B7  # as published
    for dtype in (tf.int32, tf.int64):
        rows = tf.constant([0, 1, 2, 12345, 2**31 - 1], dtype)
        expected = [murmur_finalizer(int(r) ^ derive_seed(0, "user/1")) % 1000 for r in rows]
        np.testing.assert_array_equal(hashed_rows(rows, 1000, "user/1"), expected)


def test_spreads_evenly_and_differs_by_name():
    a, b = (hashed_rows(tf.range(100_000), 100, name).numpy() for name in ("t/0", "t/1"))
    for h in (a, b):
        counts = np.bincount(h, minlength=100)
        assert len(counts) == 100 and abs(counts - 1000).max() < 150  # 4.7 standard deviations
    assert abs(np.mean(a == b) - 0.01) < 0.002
