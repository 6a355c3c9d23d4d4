"""Learning rates over the course of a run."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
import tf_keras as keras


@keras.utils.register_keras_serializable(package="tfrs_dlrm")
class WarmupPolynomialDecay(keras.optimizers.schedules.LearningRateSchedule):
    r"""Rises linearly, holds, falls as a polynomial, holds.

        rate
        peak       ________
                  /        \.
                 /            `-._______ end
                +--+------+--------+---- step
                   warmup start    start + decay

    Step k, from 0, of the warmup has the rate peak * (k + 1) / warmup_steps, so that no step is lost on a rate of 0;
    the decay has end + (peak - end) * (1 - (k - start) / decay_steps) ** power. It is the policy of the DLRM reference
    (`LRPolicyScheduler`) but for its rate of 0 in the first step.

    Args:
      peak: the rate between warmup and decay.
      warmup_steps: 0 for none.
      decay_start_step: the first step of the decay.
      decay_steps: 0 for no decay.
      end_learning_rate: after the decay.
      power: of the polynomial.
    """

    def __init__(
        self,
        peak: float,
        warmup_steps: int = 0,
        decay_start_step: int = 0,
        decay_steps: int = 0,
        end_learning_rate: float = 0.0,
        power: float = 2.0,
    ) -> None:
        self.peak = peak
        self.warmup_steps = warmup_steps
        self.decay_start_step = decay_start_step
        self.decay_steps = decay_steps
        self.end_learning_rate = end_learning_rate
        self.power = power

    def __call__(self, step: tf.Tensor | int) -> tf.Tensor:
        """The rate of a step, float32."""
        step = tf.cast(step, tf.float32)
        rate = tf.constant(self.peak, tf.float32)
        if self.decay_steps:
            done = tf.clip_by_value((step - self.decay_start_step) / self.decay_steps, 0.0, 1.0)
            rate = self.end_learning_rate + (self.peak - self.end_learning_rate) * (1.0 - done) ** self.power
        if self.warmup_steps:
            rate *= tf.minimum(1.0, (step + 1.0) / self.warmup_steps)
        return rate

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return dict(vars(self))


@keras.utils.register_keras_serializable(package="tfrs_dlrm")
class ScaledRate(keras.optimizers.schedules.LearningRateSchedule):
    """Another rate times a factor that may change during training.

    rate * factor, but not below `lowest`; a rate that is below `lowest` by itself, as in a warmup, is multiplied by
    nothing.

    Args:
      rate: a number or a schedule.
      factor: a variable, float32 scalar, or a number.
      lowest: 0 for no bound.
    """

    def __init__(
        self,
        rate: float | keras.optimizers.schedules.LearningRateSchedule,
        factor: tf.Variable | float = 1.0,
        lowest: float = 0.0,
    ) -> None:
        self.rate = rate
        self.factor = factor
        self.lowest = lowest

    def __call__(self, step: tf.Tensor | int) -> tf.Tensor:
        """The rate of a step, float32."""
        rate = tf.cast(self.rate(step) if callable(self.rate) else self.rate, tf.float32)
        return tf.maximum(rate * tf.convert_to_tensor(self.factor), tf.minimum(rate, self.lowest))

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor, the factor as it is now."""
        rate = keras.optimizers.schedules.serialize(self.rate) if callable(self.rate) else self.rate
        factor = self.factor.numpy() if isinstance(self.factor, tf.Variable) else self.factor
        return {"rate": rate, "factor": float(factor), "lowest": self.lowest}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> ScaledRate:
        """Reads `get_config`."""
        rate = config["rate"]
        if isinstance(rate, dict):
            rate = keras.optimizers.schedules.deserialize(rate)
        return cls(**(config | {"rate": rate}))
