"""The strategies of a run: one class per strategy holds all that differs under it.

`make_strategy` creates a strategy of TensorFlow by name. Users pass such strategies around, also ones that they made
themselves, and `distribution_of` finds the class of each. Nothing outside of this package asks for its type.
"""

from __future__ import annotations

import tensorflow as tf

from tfrs_dlrm.distribute.placement import STRATEGIES
from tfrs_dlrm.distribute.strategies.base import Distribution
from tfrs_dlrm.distribute.strategies.multi_worker import MultiWorker
from tfrs_dlrm.distribute.strategies.parameter_server import ParameterServer
from tfrs_dlrm.distribute.strategies.single_process import Mirrored, OneDevice
from tfrs_dlrm.distribute.strategies.tpu import TPU
from tfrs_dlrm.messages.arguments import checked

__all__ = [
    "TPU",
    "Distribution",
    "Mirrored",
    "MultiWorker",
    "OneDevice",
    "ParameterServer",
    "distribution_of",
    "make_strategy",
]
_CLASSES: dict[type[tf.distribute.Strategy], type[Distribution]] = {
    tf.distribute.MirroredStrategy: Mirrored,
    tf.distribute.MultiWorkerMirroredStrategy: MultiWorker,
    tf.distribute.experimental.ParameterServerStrategy: ParameterServer,
    tf.distribute.TPUStrategy: TPU,
}


def distribution_of(strategy: tf.distribute.Strategy | None = None) -> Distribution:
    """Returns what differs under a strategy, by default the strategy in scope."""
    strategy = strategy or tf.distribute.get_strategy()
    found = next((ours for theirs, ours in _CLASSES.items() if isinstance(strategy, theirs)), OneDevice)
    return found(strategy)


@checked
def make_strategy(name: str = "one_device", devices: int = 0, tpu: str = "local") -> tf.distribute.Strategy:
    """Returns the `tf.distribute` strategy of a name; call it before anything else of TensorFlow.

    - `one_device` is the first GPU that TensorFlow sees, or the CPU.
    - `mirrored` is all GPUs of this machine, or `devices` of them. Without GPUs it is `devices` logical CPUs, for
      trials only: they share the cores.
    - `multi_worker` is one process per machine, all running the same program, as TF_CONFIG says.
    - `parameter_server` is for the coordinator (`chief` in TF_CONFIG) of a cluster whose workers and servers already
      run; see `tfrs_dlrm.distribute.cluster`.
    - `tpu` is a TPU: `local` on a TPU VM, or its name or address.

    Args:
      name: one of `tfrs_dlrm.distribute.placement.STRATEGIES`.
      devices: of `mirrored`; 0 is all GPUs, or two logical CPUs.
      tpu: of `tpu`.

    Raises:
      ValueError: the strategy is unknown, the devices are too few, or TF_CONFIG does not fit.
    """
    if name not in STRATEGIES:
        raise ValueError(f"strategy {name!r} is unknown; choose one of {', '.join(STRATEGIES)}")
    if devices and name != "mirrored":
        raise ValueError(f"devices={devices} belongs to strategy mirrored, not {name}")
    if name == "mirrored":
        return Mirrored.create(devices)
    if name == "multi_worker":
        return MultiWorker.create()
    if name == "parameter_server":
        return ParameterServer.create()
    if name == "tpu":
        return TPU.create(tpu)
    return OneDevice.create()
