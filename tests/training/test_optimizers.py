"""The optimizers that configurations name."""

from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from tfrs_dlrm.config import OptimizerConfig, RunConfig
from tfrs_dlrm.embeddings import Adagrad, RowWiseAdagrad
from tfrs_dlrm.training.factory import make_optimizers, with_row_optimizers


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


def test_auto_is_what_the_tables_can_have_and_what_a_resumed_run_has():
    here, tpu = SimpleNamespace(on_hardware=()), SimpleNamespace(on_hardware=("user",))
    config = RunConfig(optimizer=OptimizerConfig(embedding_per_table="site=sgd"))
    on_cpu, line = with_row_optimizers(config, here, None)
    assert line == "row optimizers: rowwise_adagrad and site=sgd (auto)"
    assert isinstance(make_optimizers(on_cpu.optimizer)[1].default, RowWiseAdagrad)
    on_tpu, line = with_row_optimizers(config, tpu, None)
    assert line == "row optimizers: adagrad and site=sgd (auto: TPU embedding hardware has no rowwise_adagrad)"
    assert isinstance(make_optimizers(on_tpu.optimizer)[1].default, Adagrad)
    resumed, line = with_row_optimizers(config, here, on_tpu)
    assert resumed == on_tpu and line.endswith("site=sgd (auto: the one that this run began with)")
    assert with_row_optimizers(on_tpu, here, on_cpu) == (on_tpu, "row optimizers: adagrad and site=sgd")


@pytest.mark.parametrize("optimizer", [RowWiseAdagrad, Adagrad])
def test_the_default_optimizers_take_first_steps_of_one_length(optimizer):
    """So one learning rate fits both."""
    rule, g = optimizer(0.3), tf.random.normal([5, 16], seed=1)
    slots = {name: tf.zeros([5] if slot.per_row else [5, 16]) for name, slot in rule.slot_types().items()}
    step, _ = rule.row_step(tf.zeros([5, 16]), g, slots, tf.constant(0.3), tf.constant(1.0))
    np.testing.assert_allclose(np.linalg.norm(step, axis=1), 0.3 * np.sqrt(16), rtol=1e-5)
