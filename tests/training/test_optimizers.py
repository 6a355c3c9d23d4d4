"""The optimizers that configurations name."""

import numpy as np
import pytest
import tensorflow as tf

from tfrs_dlrm.config import OptimizerConfig
from tfrs_dlrm.training.factory import make_optimizers


@pytest.mark.parametrize("start, epsilon", [(0.1, 1e-7), (0.0, 0.0)])
def test_where_the_accumulators_of_adagrad_begin(start, epsilon):
    """w -= rate * g / sqrt(a) with a += g^2, down to gradients that Keras' own epsilon would hide."""
    optimizer, _ = make_optimizers(OptimizerConfig("adagrad", 0.5, dense_accumulator=start))
    w = np.array([1.0, 2.0, 3.0])
    variable, a = tf.Variable(w, dtype=tf.float32), np.full(3, start)
    for g in ([1e-6, 0.1, 0.0], [3e-6, -0.2, 0.0]):
        optimizer.apply_gradients([(tf.constant(g, tf.float32), variable)])
        a = a + np.square(g)
        w = w - 0.5 * np.divide(g, np.sqrt(a + epsilon), out=np.zeros(3), where=a > 0)
    np.testing.assert_allclose(variable.numpy(), w, rtol=1e-6)
