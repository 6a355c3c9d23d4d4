import numpy as np
import pytest
import tensorflow as tf
from layer_checks import check_layer

from tfrs_dlrm.layers import Bias, DenseVectors


def test_by_hand():
    layer = DenseVectors(2)
    layer.build([None, 2])
    layer.set_weights([np.array([[1.0, 2.0], [3.0, -1.0]])])
    np.testing.assert_array_equal(layer(tf.constant([[2.0, 10.0]])), [[[2.0, 4.0], [30.0, -10.0]]])


@pytest.mark.parametrize("layer", [DenseVectors(2, seed=4), Bias()])
def test_layer_checks(tmp_path, layer):
    check_layer(layer, tf.constant(np.random.default_rng(0).normal(size=(5, 3)), tf.float32), tmp_path)
