import numpy as np
import pytest
import tensorflow as tf
from layer_checks import check_layer

from tfrs_dlrm.layers import DotInteraction

VECTORS = tf.constant([[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]])  # dot products: 5 11 17 / 11 25 39 / 17 39 61


def random_vectors(batch: int, count: int, dim: int) -> tf.Tensor:
    return tf.constant(np.random.default_rng(0).normal(size=(batch, count, dim)), tf.float32)


def test_order_by_hand():
    np.testing.assert_allclose(DotInteraction()(VECTORS), [[11, 17, 39]])
    np.testing.assert_allclose(DotInteraction(self_interaction=True)(VECTORS), [[5, 11, 25, 17, 39, 61]])


def test_gradient_by_hand():
    """The gradient of pairs (1,0) and (1,1): each vector gets the other, and itself twice."""
    layer = DotInteraction(self_interaction=True)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(VECTORS)
        products = layer(VECTORS)
        other, itself = products[0, 1], products[0, 2]
    np.testing.assert_allclose(tape.gradient(other, VECTORS), [[[3, 4], [1, 2], [0, 0]]])
    np.testing.assert_allclose(tape.gradient(itself, VECTORS), [[[0, 0], [6, 8], [0, 0]]])


@pytest.mark.parametrize("self_interaction", [False, True])
def test_equals_numpy_and_the_gradient_of_masking(self_interaction):
    x = random_vectors(7, 5, 4)
    layer = DotInteraction(self_interaction)
    mask = np.tril(np.ones((5, 5), bool), 0 if self_interaction else -1)
    np.testing.assert_allclose(layer(x), (x.numpy() @ x.numpy().transpose(0, 2, 1))[:, mask], rtol=1e-5)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        ours = tf.reduce_sum(tf.sin(layer(x)))
        theirs = tf.reduce_sum(tf.sin(tf.boolean_mask(tf.matmul(x, x, transpose_b=True), mask, axis=1)))
    np.testing.assert_allclose(tape.gradient(ours, x), tape.gradient(theirs, x), rtol=1e-4, atol=1e-5)


def test_list_and_tensor_agree_and_the_width_is_static():
    x = random_vectors(3, 4, 2)
    np.testing.assert_array_equal(DotInteraction()(tf.unstack(x, axis=1)), DotInteraction()(x))
    layer = DotInteraction()
    out = tf.function(layer).get_concrete_function(tf.TensorSpec([None, 4, 2])).output_shapes
    assert out.as_list() == [None, 6]


def test_refuses_what_has_no_pairs_or_no_static_shape():
    with pytest.raises(ValueError, match="1 vector has no pairs"):
        DotInteraction()(random_vectors(2, 1, 3))
    with pytest.raises(ValueError, match=r"shape \(2, 3\).*\[B, F, D\]"):
        DotInteraction()(tf.ones([2, 3]))
    with pytest.raises(ValueError, match="one D for all"):
        DotInteraction()([tf.ones([2, 3]), tf.ones([2, 4])])


@pytest.mark.parametrize("self_interaction", [False, True])
def test_layer_checks(self_interaction, tmp_path):
    check_layer(DotInteraction(self_interaction), random_vectors(4, 3, 5), tmp_path)
