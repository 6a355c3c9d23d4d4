"""Target attention against the formula of the paper in NumPy."""

import numpy as np
import pytest
import tensorflow as tf
from layer_checks import check_layer

from tfrs_dlrm.layers import TargetAttention

RNG = np.random.default_rng(0)
LENGTH, DIM = 4, 3
EVENTS = tf.constant(RNG.normal(size=(5, LENGTH, DIM)), tf.float32)
TARGET = tf.constant(RNG.normal(size=(5, DIM)), tf.float32)
PRESENT = tf.sequence_mask([0, 1, 2, LENGTH, 3], LENGTH)
INPUTS = [EVENTS, TARGET, PRESENT]


@pytest.mark.parametrize("softmax", [False, True])
def test_layer_checks(softmax, tmp_path):
    check_layer(TargetAttention((5, 4), softmax, "tanh", seed=4), INPUTS, tmp_path)


@pytest.mark.parametrize("softmax", [False, True])
def test_the_formula_of_the_paper(softmax):
    layer = TargetAttention((6, 5), softmax, seed=4)
    layer(INPUTS)
    of_event, of_target, of_difference, of_product = kernels = RNG.normal(size=(4, DIM, 6))
    layer.event.kernel.assign(of_event + of_difference)
    layer.target.kernel.assign(of_target - of_difference)
    layer.product.kernel.assign(of_product)
    layer.target.bias.assign(bias := RNG.normal(size=6))
    (hidden, c), (last, d) = (
        (x.kernel.assign(RNG.normal(size=x.kernel.shape)), x.bias) for x in layer.mlp.dense_layers
    )
    expected = np.zeros([5, LENGTH])
    for b in range(5):
        for i in np.flatnonzero(PRESENT[b]):
            e, t = EVENTS[b, i].numpy(), TARGET[b].numpy()
            x = np.maximum(np.concatenate([e, t, e - t, e * t]) @ np.concatenate(kernels) + bias, 0)
            expected[b, i] = (np.maximum(x @ hidden.numpy() + c.numpy(), 0) @ last.numpy() + d.numpy())[0]
        if softmax:
            exponents = np.exp(expected[b]) * PRESENT[b].numpy()
            expected[b] = exponents / (exponents.sum() or 1)
    np.testing.assert_allclose(layer(INPUTS), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("softmax", [False, True])
def test_padding_counts_nothing_and_candidates_get_the_weights_of_rows(softmax):
    layer = TargetAttention((6, 5), softmax, seed=4)
    expected = layer(INPUTS).numpy()
    padding = tf.fill([5, 3, DIM], 9.0)
    padded = layer([tf.concat([EVENTS, padding], axis=1), TARGET, tf.pad(PRESENT, [[0, 0], [0, 3]])])
    np.testing.assert_allclose(padded[:, :LENGTH], expected, atol=1e-6)
    assert not np.any(padded[:, LENGTH:]) and not np.any(expected[~PRESENT.numpy()])
    targets = tf.stack([TARGET, 2 * TARGET], axis=1)
    twice = layer([EVENTS, 2 * TARGET, PRESENT])
    of_candidates = layer.of_candidates(EVENTS, targets, PRESENT)
    np.testing.assert_allclose(of_candidates, np.stack([expected, twice], axis=2), atol=1e-5)


def test_first_weights_are_near_those_of_a_mean():
    weights = TargetAttention((36,), seed=4)([0.1 * EVENTS, 0.1 * TARGET, PRESENT])
    np.testing.assert_allclose(weights[3], np.full(LENGTH, 1 / LENGTH), atol=0.1)


def test_refuses():
    with pytest.raises(ValueError, match=r"units=\[\]; at least one layer"):
        TargetAttention(())
