"""Where a run computes."""

from __future__ import annotations

import tensorflow as tf

STRATEGIES = ("one_device",)


def make_strategy(name: str = "one_device") -> tf.distribute.Strategy:
    """The `tf.distribute` strategy of that name.

    `one_device` is the first GPU that TensorFlow sees, or the CPU.

    Raises:
      ValueError: there is no such strategy in this version.
    """
    if name not in STRATEGIES:
        raise ValueError(f"strategy {name!r} is not in this version; there is {', '.join(STRATEGIES)}")
    return tf.distribute.OneDeviceStrategy("GPU:0" if tf.config.list_logical_devices("GPU") else "CPU:0")
