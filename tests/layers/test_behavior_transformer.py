"""The transformer of BST against NumPy."""

import numpy as np
import pytest
import tensorflow as tf
from layer_checks import check_layer
from numpy_models import numpy_transformer

from tfrs_dlrm.layers import BehaviorTransformer

RNG = np.random.default_rng(0)
LENGTH, DIM = 4, 5
LENGTHS = (0, 1, 2, LENGTH, 3)
EVENTS = tf.constant(RNG.normal(size=(5, LENGTH, DIM)), tf.float32)
TARGET = tf.constant(RNG.normal(size=(5, DIM)), tf.float32)
PRESENT = tf.sequence_mask(LENGTHS, LENGTH)
INPUTS = [EVENTS, TARGET, PRESENT]


@pytest.mark.parametrize("arguments", [(2, 1, 6), (8, 1, 3, 0.5)])
def test_layer_checks(arguments, tmp_path):
    check_layer(BehaviorTransformer(*arguments, seed=4), INPUTS, tmp_path)


@pytest.mark.parametrize("heads", [1, 2, 8])  # two do not divide the dimension
def test_equals_numpy_whatever_stands_in_places_without_events(heads):
    layer = BehaviorTransformer(heads, blocks=2, hidden=3, seed=4)
    layer(INPUTS)
    for v in layer.weights:
        v.assign(RNG.normal(size=v.shape))
    expected = np.zeros([5, 1 + LENGTH, DIM])
    for b, n in enumerate(LENGTHS):
        expected[b, : 1 + n] = numpy_transformer(layer, EVENTS[b, :n].numpy(), TARGET[b].numpy())
    for padding in (EVENTS, tf.where(PRESENT[..., tf.newaxis], EVENTS, 9.0)):
        np.testing.assert_allclose(layer([padding, TARGET, PRESENT]), expected, rtol=1e-4, atol=1e-5)


def test_drops_in_training_only():
    layer = BehaviorTransformer(2, dropout=0.5, seed=4)
    served, first, second = layer(INPUTS), layer(INPUTS, training=True), layer(INPUTS, training=True)
    np.testing.assert_array_equal(layer(INPUTS), served)
    for a, b in ((served, first), (first, second)):
        assert np.abs(a - b).max() > 0.1


@pytest.mark.parametrize("arguments", [{"heads": 0}, {"blocks": 0}, {"hidden": 0}, {"dropout": 1.0}])
def test_refuses(arguments):
    with pytest.raises(ValueError, match=f"{next(iter(arguments.values()))}"):
        BehaviorTransformer(**arguments)
