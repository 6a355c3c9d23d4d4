"""TPUs that are not there: strategies, and embedding tables in the layouts of TPU training, on logical CPU devices.

A `tf.distribute.TPUStrategy` only reads what its resolver says of the system, so that train steps can be traced, though
not run, and variables created on CPU devices that stand in for the chips. Private names of TensorFlow, all of them here.
"""

from __future__ import annotations

import collections
import contextlib
import os
from collections.abc import Iterator

os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf.tpu import topology_pb2
from tensorflow.python.client import session
from tensorflow.python.tpu import tpu, tpu_embedding_v2, tpu_embedding_v2_utils
from tensorflow.python.tpu.ops import tpu_ops

KINDS = {"": "UNSUPPORTED", "V1": "V1", "SparseCore": "V2"}
CORES_PER_CHIP = 4


class _Resolver:
    """What `TPUStrategy` reads of a TPUClusterResolver."""

    task_id, task_type = 0, "worker"

    def __init__(self, replicas: int, kind: str, hosts: int):
        self.tpu_hardware_feature = topology_pb2.TPUHardwareFeature(
            embedding_feature=getattr(topology_pb2.TPUHardwareFeature, KINDS[kind]),
            num_embedding_devices_per_chip=CORES_PER_CHIP if kind == "SparseCore" else 0,
        )
        per_host = replicas // hosts
        name = "/job:worker/replica:0/task:{}/device:{}:{}"
        devices = [(name.format(h, "CPU", 0), "CPU") for h in range(hosts)]
        devices += [(name.format(h, "TPU", c), "TPU") for h in range(hosts) for c in range(per_host)]
        self._metadata = tf.tpu.experimental.TPUSystemMetadata(
            num_cores=replicas,
            num_hosts=hosts,
            num_of_cores_per_host=per_host,
            topology=None,
            devices=[session._DeviceAttributes(name, kind, 0, 0) for name, kind in devices],
        )

    def get_tpu_system_metadata(self):
        return self._metadata

    def cluster_spec(self):
        return tf.train.ClusterSpec({})

    def master(self, *args, **kwargs):
        return ""


@contextlib.contextmanager
def fake_tpu(kind: str, replicas: int = 2, hosts: int = 1) -> Iterator[tf.distribute.TPUStrategy]:
    """A strategy of so many replicas, whose variables are on as many logical CPU devices.

    Args:
      kind: of the embedding hardware: one of `KINDS`.
      replicas: at most the number of logical CPU devices.
      hosts: also CPU devices, for the tables of V1.
    """
    strategy = tf.distribute.TPUStrategy(_Resolver(replicas, kind, hosts))
    cpus = [d.name.replace("/device:", "/job:localhost/replica:0/task:0/device:") for d in _cpus()[:replicas]]
    assert len(cpus) == replicas, f"{replicas} logical CPUs are needed; see conftest.py"
    extended = strategy.extended
    extended._tpu_devices = np.array([[d] for d in cpus], dtype=object)
    extended._host_device = cpus[0]
    extended._device_input_worker_devices = collections.OrderedDict({cpus[0]: cpus})
    extended._host_input_worker_devices = collections.OrderedDict({cpus[0]: [cpus[0]] * replicas})
    with contextlib.ExitStack() as stack:
        for module, name, replacement in [
            (tpu_ops, "is_tpu_embedding_initialized", lambda *args, **kwargs: False),
            (tpu, "initialize_system_for_tpu_embedding", lambda *args, **kwargs: None),
            (tpu_embedding_v2_utils, "get_list_of_hosts", lambda strategy: cpus[:hosts]),
            (tpu_embedding_v2.TPUEmbedding, "_load_variables", lambda self: None),
            (tpu_embedding_v2.TPUEmbedding, "_retrieve_variables", lambda self: None),
        ]:
            original = getattr(module, name)
            stack.callback(setattr, module, name, original)
            setattr(module, name, replacement)
        yield strategy


def _cpus():
    return tf.config.list_logical_devices("CPU")
