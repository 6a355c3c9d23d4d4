import numpy as np
import pytest
import tensorflow as tf
import tensorflow_recommenders as tfrs
from layer_checks import check_layer

from tfrs_dlrm.layers import CrossNetwork

X = tf.constant(np.random.default_rng(0).normal(size=(5, 4)), tf.float32)


def test_by_hand():
    network = CrossNetwork(1)
    network.build([None, 2])
    network.set_weights([np.array([[1.0, 0.0], [2.0, 1.0]]), np.array([0.0, -1.0])])
    # [3, 4] * ([3, 4] W + [0, -1]) + [3, 4] = [3, 4] * [11, 3] + [3, 4].
    np.testing.assert_allclose(network(tf.constant([[3.0, 4.0]])), [[36.0, 16.0]])


@pytest.mark.parametrize("rank", [0, 3])
def test_equals_the_cross_layers_of_tfrs(rank):
    network = CrossNetwork(3, rank, seed=1)
    network(X)
    theirs = X
    for i in range(3):
        cross = tfrs.layers.dcn.Cross(projection_dim=rank or None)
        cross(X, theirs)
        bias = np.random.default_rng(i).normal(size=4)
        network.outer[i].bias.assign(bias)
        cross.set_weights([*([network.inner[i].kernel] if rank else []), network.outer[i].kernel, bias])
        theirs = cross(X, theirs)
    np.testing.assert_allclose(network(X), theirs, rtol=1e-5, atol=1e-5)


def test_initial_matrices_differ():
    network = CrossNetwork(2, rank=4, seed=1)
    network(X)
    kernels = [layer.kernel.numpy().reshape(-1) for layer in [*network.inner, *network.outer]]
    assert len({float(k[0]) for k in kernels}) == 4


@pytest.mark.parametrize("rank", [0, 2])
def test_layer_checks(tmp_path, rank):
    check_layer(CrossNetwork(2, rank, seed=4), X, tmp_path)
