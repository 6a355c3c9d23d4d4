"""Where a run computes, and on which of its devices the embedding tables are."""

from __future__ import annotations

import json
import os

import tensorflow as tf

from tfrs_dlrm.distribute.hardware import TPU_WITH, TPUS
from tfrs_dlrm.distribute.memory import available_memory
from tfrs_dlrm.distribute.placement import STRATEGIES, Topology, place, size_text
from tfrs_dlrm.distribute.replicas import is_multi_worker, is_parameter_server, is_tpu
from tfrs_dlrm.distribute.tf_config import tf_config_problems
from tfrs_dlrm.embeddings.tpu.hardware import kind as embedding_hardware
from tfrs_dlrm.embeddings.variables import Place, Places
from tfrs_dlrm.schema import Schema


def make_strategy(name: str = "one_device", devices: int = 0, tpu: str = "local") -> tf.distribute.Strategy:
    """The `tf.distribute` strategy of that name; call it before anything else of TensorFlow.

    - `one_device` is the first GPU that TensorFlow sees, or the CPU.
    - `mirrored` is all GPUs of this machine, or `devices` of them. Without GPUs it is `devices` logical CPUs, which is
      good for trials only: they share the cores.
    - `multi_worker` is one process for each machine, all doing the same, as TF_CONFIG says.
    - `parameter_server` is for the coordinator (`chief` in TF_CONFIG) of a cluster whose workers and servers run
      already; see `tfrs_dlrm.distribute.cluster`.
    - `tpu` is a TPU: `local` on a TPU VM, or its name or address.

    Args:
      name: one of `tfrs_dlrm.distribute.placement.STRATEGIES`.
      devices: of `mirrored`; 0 is all GPUs, or two logical CPUs.
      tpu: of `tpu`.

    Raises:
      ValueError: there is no such strategy, too few devices, or no fitting TF_CONFIG.
    """
    if name not in STRATEGIES:
        raise ValueError(f"strategy {name!r} is unknown; there is {', '.join(STRATEGIES)}")
    if devices and name != "mirrored":
        raise ValueError(f"devices={devices} belongs to strategy mirrored, not {name}")
    if name == "mirrored":
        chosen = _mirrored_devices(devices)
        # Logical CPUs share their memory: adding up in one place is all there is to do, and collective ops allow only
        # one number of replicas in a process.
        reduction = None if chosen[0].startswith("GPU") else tf.distribute.ReductionToOneDevice()
        return tf.distribute.MirroredStrategy(chosen, cross_device_ops=reduction)
    if name == "multi_worker":
        return _multi_worker()
    if name == "parameter_server":
        return _parameter_server()
    if name == "tpu":
        return _tpu(tpu)
    return tf.distribute.OneDeviceStrategy("GPU:0" if tf.config.list_logical_devices("GPU") else "CPU:0")


def topology_of(strategy: tf.distribute.Strategy) -> Topology:
    """The devices of a strategy that can hold tables; those of strategies other than ours count as one device."""
    if isinstance(strategy, tf.distribute.MirroredStrategy):
        return Topology("mirrored", len(strategy.extended.worker_devices))
    if is_multi_worker(strategy):
        return Topology("multi_worker", strategy.num_replicas_in_sync)
    if is_parameter_server(strategy):
        return Topology("parameter_server", len(_devices_of("ps")), workers=len(_devices_of("worker")))
    if is_tpu(strategy):
        chip = TPU_WITH[embedding_hardware(strategy)]
        # Where tables are copied to every chip there is something to check; v5e is the only kind of these.
        memory = int(TPUS[chip].memory or 0) if chip == "v5e" else None
        return Topology("tpu", strategy.num_replicas_in_sync, memory, chip)
    return Topology("one_device")


def places(schema: Schema, strategy: tf.distribute.Strategy, replicate_below: int | None = None) -> Places:
    """Which tables a strategy shares out among its devices, and how.

    Args:
      schema: with the rows of all tables.
      strategy: any.
      replicate_below: see `tfrs_dlrm.distribute.placement.place`.

    Raises:
      ValueError: a table has no rows, or the strategy copies all tables to every process and they do not fit there.
    """
    topology = topology_of(strategy)
    if topology.strategy not in ("mirrored", "parameter_server", "multi_worker"):
        return {}
    placement = place(schema, topology, replicate_below)
    if topology.strategy == "multi_worker":
        half = [table.name for table in placement.tables if table.dtype == "bfloat16"]
        if half:
            raise ValueError(
                f"tables {', '.join(half)} are of dtype bfloat16, which TensorFlow cannot send to all workers of"
                " multi_worker; make them float32, or use parameter_server"
            )
        _check_room(sum(table.bytes for table in placement.tables))
        return {}
    mirrored = isinstance(strategy, tf.distribute.MirroredStrategy)
    devices = strategy.extended.worker_devices if mirrored else _devices_of("ps")
    return {
        table.name: [Place(s.begin, s.end, devices[s.device]) for s in table.shards]
        for table in placement.tables
        if table.kind == "sharded"
    }


def _check_room(size: int) -> None:
    # Slots may need as much again; where they do not, the rest of the machine is still glad of it.
    available = available_memory()
    if available is not None and size > available / 2:
        raise ValueError(
            f"multi_worker copies all tables to every worker: {size_text(size)}, and slots beside them, of"
            f" {size_text(available)} that this machine has free. Use --strategy=parameter_server, which shares them"
            " out among servers, or smaller tables (see docs/embeddings.md)"
        )


def _devices_of(job: str) -> list[str]:
    """The first CPU of each task of a job that this process is connected to."""
    names = [device.name for device in tf.config.list_logical_devices("CPU")]
    return sorted(
        (n for n in names if f"/job:{job}/" in n and n.endswith("CPU:0")),
        key=lambda n: tf.DeviceSpec.from_string(n).task,
    )


def _mirrored_devices(count: int) -> list[str]:
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
                f"devices={count} logical CPUs are needed and there are {found}; call make_strategy before anything"
                " else of TensorFlow"
            ) from None
    return [f"CPU:{i}" for i in range(count)]


def _multi_worker() -> tf.distribute.Strategy:
    _cluster("multi_worker")
    options = tf.distribute.experimental.CommunicationOptions(
        implementation=tf.distribute.experimental.CommunicationImplementation.AUTO
        if tf.config.list_physical_devices("GPU")
        else tf.distribute.experimental.CommunicationImplementation.RING
    )
    return tf.distribute.MultiWorkerMirroredStrategy(communication_options=options)


def _parameter_server() -> tf.distribute.Strategy:
    role = _cluster("parameter_server")
    if role != "chief":
        raise ValueError(
            f"this process is a {role} of the cluster, which has no strategy; python train/main.py"
            " --strategy=parameter_server serves it, and so does tfrs_dlrm.distribute.cluster.serve()"
        )
    # Else a call to a worker that is being started again fails at once, instead of waiting for it.
    os.environ.setdefault("GRPC_FAIL_FAST", "use_caller")
    return tf.distribute.experimental.ParameterServerStrategy(tf.distribute.cluster_resolver.TFConfigClusterResolver())


def _cluster(strategy: str) -> str:
    """The job of this process in TF_CONFIG."""
    text = os.environ.get("TF_CONFIG", "")
    problems = tf_config_problems(text, strategy) if text else ["TF_CONFIG is not set"]
    if problems:
        raise ValueError(
            f"strategy {strategy}: {'; '.join(problems)}. docs/strategies.md has an example; for a trial on this"
            f" machine: python train/local_cluster.py --strategy={strategy}"
        )
    return json.loads(text)["task"]["type"]


def _tpu(tpu: str) -> tf.distribute.Strategy:
    resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=tpu)
    if tpu != "local":
        tf.config.experimental_connect_to_cluster(resolver)
    tf.tpu.experimental.initialize_tpu_system(resolver)
    return tf.distribute.TPUStrategy(resolver)
