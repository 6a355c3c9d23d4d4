"""Against the definition, written again in whole numbers without end."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from tfrs_dlrm.checkpoint import checksum as module
from tfrs_dlrm.checkpoint.checksum import BASE, checksum

M = 1 << 64


def expected(values: np.ndarray, first: int = 0) -> int:
    flat = values.ravel()
    bits = flat.view({2: np.int16, 4: np.int32}[flat.itemsize])
    begin = first * (values.size // len(values))
    return sum(int(b) * pow(BASE, begin + i, M) for i, b in enumerate(bits)) % M


def test_two_numbers_by_hand():
    """1.0 is 0x3f800000; -1.0 has the sign bit as well, and as an int32 is 0x3f800000 - 2^31."""
    assert checksum(tf.constant([[1.0, -1.0]])) == (0x3F800000 + (0x3F800000 - 2**31) * BASE) % M
    assert checksum(tf.constant([-1.0]), 7) == (0x3F800000 - 2**31) * BASE**7 % M
    assert checksum(tf.zeros([5, 3])) == checksum(tf.zeros([0, 3])) == checksum(tf.zeros([0])) == 0


@pytest.mark.parametrize("shape", [(40,), (40, 1), (40, 7), (3, 100)])
@pytest.mark.parametrize("dtype", [tf.float32, tf.bfloat16])
@pytest.mark.parametrize("first", [0, 3_000_000_000])
def test_is_what_is_defined_however_it_is_cut(monkeypatch, shape, dtype, first):
    values = np.random.default_rng(0).normal(size=shape).astype(dtype.as_numpy_dtype)
    values.reshape(len(values), -1)[[0, 1, 2], -1] = [np.nan, -np.inf, -0.0]
    whole = expected(values, first)
    assert checksum(tf.constant(values), first) == whole
    cuts = [0, 1, shape[0] // 2, shape[0]]
    shares = [checksum(tf.constant(values[a:b]), first + a) for a, b in itertools.pairwise(cuts)]
    assert sum(shares) % M == whole
    monkeypatch.setattr(module, "_NUMBERS_AT_A_TIME", 9)
    assert checksum(tf.constant(values), first) == whole


def test_on_tables_of_many_parts():
    values = tf.random.stateless_normal([(1 << 20) + 12345, 2], [1, 2])
    flat = values.numpy().ravel().view(np.int32).astype(np.int64)
    powers = np.full(len(flat), BASE, np.int64)
    powers[0] = 1
    with np.errstate(over="ignore"):
        total = np.sum(np.cumprod(powers) * flat)
    assert checksum(values) == int(total) % M


def test_a_flipped_bit_always_shows():
    """By its parity: weights are odd, so bit b changes the sum by 2^b times something odd."""
    rng = np.random.default_rng(1)
    values = rng.normal(size=(64, 16)).astype(np.float32)
    whole = checksum(tf.constant(values))
    for bit in range(32):
        row, column = rng.integers(64), rng.integers(16)
        flipped = values.copy()
        flipped.view(np.uint32)[row, column] ^= np.uint32(1 << bit)
        change = (checksum(tf.constant(flipped)) - whole) % M
        assert change & -change == 1 << bit


def test_exchanged_rows_and_columns_show():
    rng = np.random.default_rng(2)
    table = rng.normal(size=(200, 4)).astype(np.float32)
    signs = rng.choice(np.float32([-0.5, 0.5]), 200)  # that differ in the highest bit only
    for values in (table, signs, table.astype(tf.bfloat16.as_numpy_dtype)):
        whole, changed = checksum(tf.constant(values)), 0
        for a, b in rng.integers(0, 200, (200, 2)):
            swapped = values.copy()
            swapped[[a, b]] = swapped[[b, a]]
            same = np.array_equal(swapped, values)
            assert (checksum(tf.constant(swapped)) == whole) == same
            changed += not same
        assert changed > 50
    assert checksum(tf.constant(table[:, [1, 0, 2, 3]])) != checksum(tf.constant(table))
    for places in (1, 64, 128):
        assert checksum(tf.constant(np.roll(table, places, axis=0))) != checksum(tf.constant(table))


def test_the_worst_exchange_shows():
    """Of a sign, 2^31, over 2^30 numbers: what is left is 2^63. Hence the bound in the docstring."""
    assert BASE % 8 == 5
    for k in range(31):
        left = (pow(BASE, 1 << k, M) - 1) % M
        assert left & -left == 4 << k
        assert (left << 31) % M
