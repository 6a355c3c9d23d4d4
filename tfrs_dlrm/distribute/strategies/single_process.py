"""One process, with one device or with several."""

from __future__ import annotations

import tensorflow as tf

from tfrs_dlrm.distribute.placement import Places, Topology
from tfrs_dlrm.distribute.strategies.base import Distribution, place_on
from tfrs_dlrm.schema import Schema


class OneDevice(Distribution):
    """The first GPU that TensorFlow sees, or the CPU. Strategies that the library does not know count as this one."""

    @classmethod
    def create(cls) -> tf.distribute.Strategy:
        """Returns a new strategy."""
        return tf.distribute.OneDeviceStrategy("GPU:0" if tf.config.list_logical_devices("GPU") else "CPU:0")


class Mirrored(Distribution):
    """All GPUs of a machine, or logical CPUs: large tables are shared out among them, small ones copied to each."""

    name = "mirrored"

    @classmethod
    def create(cls, devices: int = 0) -> tf.distribute.Strategy:
        """Returns a new strategy of `devices` devices; see `make_strategy`."""
        chosen = _devices(devices)
        # Logical CPUs share their memory, so one of them can add up. Collective ops allow only one number of replicas
        # in a process.
        reduction = None if chosen[0].startswith("GPU") else tf.distribute.ReductionToOneDevice()
        return tf.distribute.MirroredStrategy(chosen, cross_device_ops=reduction)

    @property
    def topology(self) -> Topology:
        """See `Distribution.topology`."""
        return Topology(self.name, len(self.strategy.extended.worker_devices))

    def places(self, schema: Schema, replicate_below: int | None = None) -> Places:
        """See `Distribution.places`."""
        return place_on(self.strategy.extended.worker_devices, schema, self.topology, replicate_below)


def _devices(count: int) -> list[str]:
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        if count > len(gpus):
            raise ValueError(f"devices={count}, and TensorFlow sees {len(gpus)} GPUs; tfrs-dlrm doctor")
        return [f"GPU:{i}" for i in range(count or len(gpus))]
    count = count or 2
    try:
        tf.config.set_logical_device_configuration(
            tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * count
        )
    except RuntimeError:  # TensorFlow has looked at its devices already
        found = len(tf.config.list_logical_devices("CPU"))
        if found < count:
            raise ValueError(
                f"devices={count} logical CPUs are needed, TensorFlow has {found}; call make_strategy before anything"
                " else of TensorFlow"
            ) from None
    return [f"CPU:{i}" for i in range(count)]
