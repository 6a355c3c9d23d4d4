import numpy as np
import pytest
import tensorflow as tf
from layer_checks import check_layer

from tfrs_dlrm.layers import AutoDis


def by_hand(layer, x):
    """The formula of the paper, number by number."""
    slopes, mixing, vectors = (v.numpy().astype(np.float64) for v in (layer.slopes, layer.mixing, layer.vectors))
    out = np.zeros([*x.shape, layer.dim])
    for b, row in enumerate(x):
        for j, number in enumerate(row):
            h = slopes[j] * number
            h = np.where(h > 0, h, 0.2 * h)
            p = np.exp((h @ mixing[j] + layer.skip * h) / layer.temperature)
            out[b, j] = (p / p.sum()) @ vectors[j]
    return out


def test_equals_the_paper():
    layer = AutoDis(3, buckets=4, temperature=0.5, skip=0.3, seed=2)
    x = np.random.default_rng(0).normal(size=(5, 2))
    np.testing.assert_allclose(layer(tf.constant(x, tf.float32)), by_hand(layer, x), rtol=1e-5, atol=1e-6)


def test_a_low_temperature_chooses_one_bucket():
    layer = AutoDis(3, buckets=4, temperature=1e-6, seed=2)
    vector = layer(tf.constant([[0.7]]))[0, 0]
    assert np.abs(layer.vectors[0] - vector).max(axis=1).min() < 1e-6


def test_layer_checks(tmp_path):
    inputs = tf.constant(np.random.default_rng(0).normal(size=(5, 3)), tf.float32)
    check_layer(AutoDis(2, buckets=3, seed=4), inputs, tmp_path)


def test_refuses():
    with pytest.raises(ValueError, match=r"temperature=0\.0; a positive number is needed"):
        AutoDis(2, temperature=0.0)
