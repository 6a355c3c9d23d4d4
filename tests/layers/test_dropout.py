import numpy as np
import pytest
import tensorflow as tf
from layer_checks import check_layer

import tfrs_dlrm as td
from tfrs_dlrm.layers import Dropout

ONES = tf.ones([200, 50])


def test_drops_its_share_and_scales_the_rest_in_training_only():
    layer = Dropout(0.2, seed=1)
    np.testing.assert_array_equal(layer(ONES), ONES)
    dropped = layer(ONES, training=True).numpy()
    assert set(np.unique(dropped)) == {np.float32(0), np.float32(1.25)}
    assert abs((dropped == 0).mean() - 0.2) < 0.02  # five standard deviations
    assert layer.trainable_variables == []


def test_what_is_dropped_is_a_function_of_seed_and_step(tmp_path):
    first, again, other = Dropout(0.5, seed=1), Dropout(0.5, seed=1), Dropout(0.5, seed=2)
    one, two = (first(ONES, training=True).numpy() for _ in range(2))
    assert not np.array_equal(one, two)
    np.testing.assert_array_equal(again(ONES, training=True), one)
    assert not np.array_equal(other(ONES, training=True), one)
    # The counter is saved: a layer that is restored goes on, and does not begin anew.
    path = tf.train.Checkpoint(layer=again).write(str(tmp_path / "c"))
    restored = Dropout(0.5, seed=1)
    restored(ONES)
    tf.train.Checkpoint(layer=restored).read(path).assert_consumed()
    np.testing.assert_array_equal(restored(ONES, training=True), two)


def test_without_a_seed_the_weights_say_what_is_dropped_next():
    first, other = Dropout(0.5), Dropout(0.5)
    assert not np.array_equal(first(ONES, training=True), other(ONES, training=True))
    other.set_weights(first.get_weights())
    np.testing.assert_array_equal(other(ONES, training=True), first(ONES, training=True))


def test_the_gradient_passes_where_nothing_was_dropped():
    layer = Dropout(0.5, seed=3)
    with tf.GradientTape() as tape:
        tape.watch(ONES)
        outputs = layer(ONES, training=True)
    np.testing.assert_array_equal(tape.gradient(outputs, ONES), outputs)


def test_replicas_drop_other_numbers():
    strategy = td.make_strategy("mirrored", 2)
    with strategy.scope():
        layer = Dropout(0.5, seed=1)
        layer.build([None, 50])
    step = tf.function(lambda: strategy.run(lambda: layer(ONES, training=True)))
    (a, b), (c, _) = (strategy.experimental_local_results(step()) for _ in range(2))
    assert not np.array_equal(a, b) and not np.array_equal(a, c)
    assert layer.steps.numpy() == 2


def test_layer_checks(tmp_path):
    check_layer(Dropout(0.3, seed=1), tf.constant(np.random.default_rng(0).normal(size=(5, 3)), tf.float32), tmp_path)


@pytest.mark.parametrize("rate", [-0.1, 1, float("nan")])
def test_refuses(rate):
    with pytest.raises(ValueError, match=r"rate=.*; a number in \[0, 1\)"):
        Dropout(rate)
