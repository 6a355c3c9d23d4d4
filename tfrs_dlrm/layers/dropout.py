"""Dropout that a resumed run repeats."""

from __future__ import annotations

import random
from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfrs_dlrm.layers.serializable import serializable


@serializable
class Dropout(keras.layers.Layer):
    """In training, sets each number to 0 with probability `rate`, and divides the others by 1 - rate.

    (Srivastava et al. 2014, "Dropout: A Simple Way to Prevent Neural Networks from Overfitting".) What is dropped
    depends on the seed, the replica and the number of train steps so far, a weight that checkpoints hold:
    `keras.layers.Dropout` would draw other numbers after a restart.

    Args:
      rate: the share of the inputs to drop, in [0, 1).
      seed: None drops others each time.

    Raises:
      ValueError: the rate is outside [0, 1).
    """

    def __init__(self, rate: float, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0 <= rate < 1:
            raise ValueError(f"rate={rate}; a number in [0, 1) is needed, the share of the inputs to drop")
        self.rate = rate
        self.seed = seed
        self._key = seed or 0
        # Without a seed the count begins anywhere, so that the saved count alone says what is dropped next.
        self._start = random.randrange(1 << 62) if seed is None else 0

    def build(self, input_shape: Any) -> None:
        """Creates the counter of train steps: one per replica, all equal."""
        self.steps = self.add_weight(
            name="steps",
            shape=[],
            dtype=tf.int64,
            initializer=keras.initializers.Constant(self._start),
            trainable=False,
            synchronization=tf.VariableSynchronization.ON_READ,
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
        )
        super().build(input_shape)

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Returns the inputs, of any shape; in training with some set to 0."""
        if not training:
            return inputs
        seed = tf.stack([tf.constant(self._key, tf.int64), tf.convert_to_tensor(self.steps)])
        if tf.distribute.get_strategy().num_replicas_in_sync > 1:
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            seed = tf.random.experimental.stateless_fold_in(seed, replica)
        self.steps.assign_add(1)
        # In float32: bfloat16 knows only 256 numbers between 0 and 1.
        kept = tf.random.stateless_uniform(tf.shape(inputs), seed) >= self.rate
        return tf.where(kept, inputs / (1 - self.rate), tf.zeros_like(inputs))

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return super().get_config() | {"rate": self.rate, "seed": self.seed}
