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


def test_outputs_begin_near_the_final_bias(tmp_path):
    mlp = MLP([64, 2], seed=1, final_bias=[-3.0, 0.5])
    x = tf.constant(np.random.default_rng(0).normal(size=(500, 8)), tf.float32)
    outputs = mlp(x).numpy()
    np.testing.assert_allclose(outputs.mean(0), [-3, 0.5], atol=0.1)
    assert 0 < outputs.std(0).max() < 0.2
    plain = MLP([64, 2], seed=1)
    plain(x)
    np.testing.assert_allclose(mlp.get_weights()[2], 0.1 * plain.get_weights()[2], rtol=1e-5)
    check_layer(MLP([6, 2], seed=4, final_bias=[-3.0, 0.5]), x, tmp_path)


@pytest.mark.parametrize(("bias", "use_bias"), [([1.0, 2.0], True), ([1.0], False)])
def test_refuses_a_final_bias_that_does_not_fit(bias, use_bias):
    with pytest.raises(ValueError, match=r"final_bias=.*the last layer has 1 outputs; give a number for each"):
        MLP([3, 1], final_bias=bias, use_bias=use_bias)


def test_without_bias():
    mlp = MLP([3, 2], use_bias=False)
    mlp.build([None, 4])
    assert [w.shape for w in mlp.get_weights()] == [(4, 3), (3, 2)]


def test_refuses():
    with pytest.raises(ValueError, match=r"units=\[\]; at least one layer"):
        MLP([])


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


def test_batch_normalization_in_numpy():
    """In training by mean and variance of the batch, of which the moving averages take a tenth; later by those."""
    x = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    mlp = MLP([4, 2], seed=1, batch_norm=True)
    mlp.build([None, 3])
    (first, last), (norm,) = mlp.dense_layers, mlp.batch_norms
    norm.gamma.assign([1.0, 2.0, 0.5, -1.0])
    norm.beta.assign([0.0, 1.0, -1.0, 0.5])
    hidden = x @ first.kernel.numpy() + first.bias.numpy()
    mean, variance = np.zeros(4), np.ones(4)

    def expected(mean, variance):
        normalized = (hidden - mean) / np.sqrt(variance + 1e-3) * norm.gamma.numpy() + norm.beta.numpy()
        return np.maximum(normalized, 0) @ last.kernel.numpy() + last.bias.numpy()

    np.testing.assert_allclose(mlp(x), expected(mean, variance), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(mlp(x, training=True), expected(hidden.mean(0), hidden.var(0)), rtol=1e-4, atol=1e-4)
    mean, variance = 0.9 * mean + 0.1 * hidden.mean(0), 0.9 * variance + 0.1 * hidden.var(0)
    np.testing.assert_allclose(mlp(x), expected(mean, variance), rtol=1e-4, atol=1e-5)
    assert len(mlp.trainable_variables) == 6 and len(mlp.non_trainable_variables) == 2


def test_dropout_is_between_the_layers():
    x = tf.ones([4, 3])
    plain, mlp = MLP([64, 32, 2], seed=1), MLP([64, 32, 2], seed=1, dropout=0.5)
    np.testing.assert_array_equal(mlp(x), plain(x))
    rows = mlp(x, training=True).numpy()
    assert len(np.unique(rows, axis=0)) == 4  # of equal inputs
    assert len(mlp.dropouts) == 2


def test_all_layers_may_be_hidden():
    x = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    mlp = MLP([4], seed=1, batch_norm=True, dropout=0.5, all_hidden=True)
    mlp.build([None, 3])
    hidden = x @ mlp.dense_layers[0].kernel.numpy() + mlp.dense_layers[0].bias.numpy()
    np.testing.assert_allclose(mlp(x), np.maximum(hidden / np.sqrt(1 + 1e-3), 0), rtol=1e-5, atol=1e-6)
    normalized = (hidden - hidden.mean(0)) / np.sqrt(hidden.var(0) + 1e-3)
    trained = mlp(x, training=True).numpy()
    kept = trained > 0
    np.testing.assert_allclose(trained[kept], 2 * normalized[kept], rtol=1e-3, atol=1e-4)
    assert 0.3 < kept.sum() / (normalized > 0).sum() < 0.7
    relu, named = MLP([4, 2], seed=1, all_hidden=True), MLP([4, 2], seed=1, final_activation="relu")
    np.testing.assert_array_equal(relu(x), named(x))
    with pytest.raises(ValueError, match=r"final_activation='relu', all_hidden=True: leave one of them out"):
        MLP([4, 2], final_activation="relu", all_hidden=True)


def test_layer_checks_with_batch_normalization_and_dropout(tmp_path):
    x = tf.constant(np.random.default_rng(0).normal(size=(5, 3)), tf.float32)
    check_layer(MLP([6, 4], activation="tanh", seed=4, batch_norm=True, dropout=0.3), x, tmp_path)
