"""Against the definition, written again in NumPy and in whole numbers of Python."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from tfrs_dlrm.checkpoint import checksum as module
from tfrs_dlrm.checkpoint.checksum import checksum

M = 1 << 64


def weight(i: int) -> int:
    """In whole numbers without end; >> 32 of a negative int64 fills with ones, so signs are put back."""

    def shifted(z):
        return (z ^ ((z - M if z >= M // 2 else z) >> 32)) % M

    z = shifted((i + 1) * 0x1E3779B97F4A7C15 % M)
    return shifted(z * 0x56E8FEB86659FD93 % M) | 1


def expected(values: np.ndarray, first: int = 0) -> int:
    rows = values.reshape(len(values), -1)
    bits = rows.view({2: np.int16, 4: np.int32}[rows.itemsize])
    w = [[weight(first + r) * weight((1 << 40) + c) for c in range(rows.shape[1])] for r in range(len(rows))]
    return sum(int(b) * v for b, v in zip(bits.ravel(), np.ravel(np.array(w, dtype=object)), strict=True)) % M


def test_one_number_by_hand():
    """1.0 is 0x3f800000; -1.0 has the sign bit as well, and as an int32 is 0x3f800000 - 2^31."""
    assert checksum(tf.constant([[1.0]])) == 0x3F800000 * weight(0) * weight(1 << 40) % M
    assert checksum(tf.constant([-1.0]), 7) == (0x3F800000 - 2**31) * weight(7) * weight(1 << 40) % M
    assert checksum(tf.zeros([5, 3])) == checksum(tf.zeros([0, 3])) == 0


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
    monkeypatch.setattr(module, "_NUMBERS_AT_A_TIME", 10)
    assert checksum(tf.constant(values), first) == whole


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
    signs = rng.choice(np.float32([-0.5, 0.5]), 200)  # that differ in one bit
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
    assert checksum(tf.constant(np.roll(table, 50, axis=0))) != checksum(tf.constant(table))


def test_pairs_of_flipped_signs_show_in_tables_of_any_width():
    """Two odd weights add up to an even number: it must not be one that a sign bit, 2^31, multiplies to 2^64."""
    weights = np.array([weight((1 << 40) + c) for c in range(1024)], dtype=np.uint64)
    with np.errstate(over="ignore"):
        for change in (weights[:, None] + weights, weights[:, None] - weights):
            change = change[~np.eye(1024, dtype=bool)]
            assert np.all(change & np.uint64(2**33 - 1))
