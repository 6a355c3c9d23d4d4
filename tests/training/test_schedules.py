"""The learning rate, by hand."""

import pytest
import tensorflow as tf
import tf_keras as keras

from tfrs_dlrm.training.schedules import ScaledRate, WarmupPolynomialDecay


def test_rates_by_hand():
    rate = WarmupPolynomialDecay(
        0.8, warmup_steps=4, decay_start_step=10, decay_steps=10, end_learning_rate=0.2, power=2
    )
    rates = {step: float(rate(step)) for step in (0, 1, 3, 4, 10, 15, 20, 100)}
    expected = {0: 0.2, 1: 0.4, 3: 0.8, 4: 0.8, 10: 0.8, 15: 0.2 + 0.6 * 0.25, 20: 0.2, 100: 0.2}
    assert rates == pytest.approx(expected, rel=1e-6)


def test_each_part_may_be_left_out():
    assert float(WarmupPolynomialDecay(0.5)(7)) == 0.5
    assert float(WarmupPolynomialDecay(0.5, warmup_steps=2)(0)) == 0.25
    assert float(WarmupPolynomialDecay(0.5, decay_steps=2, power=1.0)(1)) == 0.25


def test_config_round_trip_inside_an_optimizer():
    rate = WarmupPolynomialDecay(0.3, 2, 5, 7, 0.1, 1.5)
    optimizer = keras.optimizers.SGD(rate)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert again._learning_rate.get_config() == rate.get_config()


def test_a_factor_that_changes_on_a_schedule():
    factor = tf.Variable(1.0)
    rate = ScaledRate(WarmupPolynomialDecay(0.8, warmup_steps=8), factor, lowest=0.3)

    @tf.function
    def traced(step):
        return rate(step)

    assert [float(traced(tf.constant(step))) for step in (0, 3, 9)] == pytest.approx([0.1, 0.4, 0.8])
    factor.assign(0.5)
    # A rate that the warmup keeps below the bound stays; 0.4 would be 0.2, and 0.8 is 0.4.
    assert [float(traced(tf.constant(step))) for step in (0, 3, 9)] == pytest.approx([0.1, 0.3, 0.4])
    again = keras.optimizers.schedules.deserialize(keras.optimizers.schedules.serialize(rate))
    assert float(again(9)) == pytest.approx(0.4) and again.get_config() == rate.get_config()
    assert float(ScaledRate(0.25)(7)) == 0.25
