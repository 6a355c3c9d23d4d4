import numpy as np
import pytest
import tensorflow as tf
from layer_checks import check_layer

from tfrs_dlrm.layers import MLP


def test_two_layers_by_hand():
    mlp = MLP([2, 1])
    mlp.build([None, 2])
    # relu([1, 2] W + [0, -1]) = relu([7, -2]) = [7, 0]; times [2, 5] plus 1 is 15.
    weights = [[[1.0, 3.0], [3.0, -2.0]], [0.0, -1.0], [[2.0], [5.0]], [1.0]]
    mlp.set_weights([np.array(w) for w in weights])
    np.testing.assert_allclose(mlp(tf.constant([[1.0, 2.0]])), [[15.0]])


def test_final_activation_is_the_last_layers_only():
    x = tf.constant(np.random.default_rng(0).normal(size=(50, 3)), tf.float32)
    linear, relu = MLP([4, 2], seed=1), MLP([4, 2], final_activation="relu", seed=1)
    assert tf.reduce_min(linear(x)) < 0
    np.testing.assert_array_equal(relu(x), tf.nn.relu(linear(x)))


def test_initial_weights_have_the_standard_deviations_of_the_reference():
    mlp = MLP([400, 600], seed=3)
    mlp.build([None, 200])
    w0, b0, w1, b1 = mlp.get_weights()
    deviations = [np.std(w) for w in (w0, b0, w1, b1)]
    np.testing.assert_allclose(deviations[::2], [np.sqrt(2 / 600), np.sqrt(2 / 1000)], rtol=0.01)
    np.testing.assert_allclose(deviations[1::2], [np.sqrt(1 / 400), np.sqrt(1 / 600)], rtol=0.1)
    assert np.abs(w0).max() > 3 * np.sqrt(2 / 600)  # not truncated


def test_weights_are_a_function_of_the_seed():
    def weights(seed):
        mlp = MLP([8, 8, 8], seed=seed)
        mlp.build([None, 8])
        return mlp.get_weights()

    a, b, c = weights(1), weights(1), weights(2)
    for x, y, z in zip(a, b, c, strict=True):
        np.testing.assert_array_equal(x, y)
        assert not np.array_equal(x, z)
    assert not np.array_equal(a[0], a[2])  # equal shapes, but layers of their own
    assert not np.array_equal(weights(None)[0], weights(None)[0])


def test_without_bias():
    mlp = MLP([3, 2], use_bias=False)
    mlp.build([None, 4])
    assert [w.shape for w in mlp.get_weights()] == [(4, 3), (3, 2)]


@pytest.mark.parametrize("units", [[], [3, 0]])
def test_refuses(units):
    with pytest.raises(ValueError, match=r"units=\[.*at least one"):
        MLP(units)


def test_layer_checks(tmp_path):
    x = tf.constant(np.random.default_rng(0).normal(size=(5, 3)), tf.float32)
    check_layer(MLP([6, 4], activation="tanh", final_activation="sigmoid", seed=4), x, tmp_path)


@pytest.mark.parametrize("batch", [1, 2048, 8192])
def test_gradients_in_bfloat16_are_those_of_float32(batch):
    """The bias gradient is a sum over the batch: summed in bfloat16 it would lose 10% at 2048 and most at 8192."""
    inputs = tf.constant(np.random.default_rng(0).uniform(0.5, 1, [batch, 8]), tf.float32)
    gradients = {}
    for policy in ("float32", "mixed_bfloat16"):
        mlp = MLP([4, 3], seed=1, dtype=policy)
        mlp(inputs)
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.cast(mlp(inputs), tf.float32))
        gradients[policy] = tape.gradient(loss, mlp.trainable_variables)
        assert len(gradients[policy]) == 4
    for exact, half in zip(*gradients.values(), strict=True):
        np.testing.assert_allclose(half, exact, rtol=0.02, atol=0.02 * float(tf.reduce_max(tf.abs(exact))))


def test_gradients_of_sequences_equal_those_of_their_places():
    inputs = tf.constant(np.random.default_rng(0).normal(size=(3, 5, 6)), tf.float32)
    mlp, gradients = MLP([4, 2], seed=1), []
    for x in (inputs, tf.reshape(inputs, [15, 6])):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(mlp(x) ** 2)
        gradients.append(tape.gradient(loss, mlp.trainable_variables))
    for a, b in zip(*gradients, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
