"""TPUs that are not there: strategies, and embedding tables in the layouts of TPU training, on logical CPU devices.

A `tf.distribute.TPUStrategy` only reads what its resolver says of the system. So train steps can be traced, though not
run, and variables can be made, on CPU devices that stand in for the chips. That takes private names of TensorFlow, all
of them in this file.
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

from tfrs_dlrm.distribute.hardware import TPU_WITH
from tfrs_dlrm.distribute.placement import Topology, place
from tfrs_dlrm.embeddings import RowOptimizer
from tfrs_dlrm.embeddings.tpu import TPUEmbeddingTables
from tfrs_dlrm.schema import Schema

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


def make_tables(
    kind: str,
    schema: Schema,
    replicate_below: int = 0,
    batch_size: int = 8,
    hotness: int = 4,
    seed: int = 0,
    replicas: int = 2,
) -> TPUEmbeddingTables:
    """Tables for the strategy in scope, not yet compiled.

    Args:
      kind: that of the strategy.
      schema: with the rows of all tables.
      replicate_below: in bytes: smaller tables are replicated.
      batch_size: of a replica.
      hotness: of multi-valued features whose tables are replicated.
      seed: of the initial values.
      replicas: those of the strategy.
    """
    placement = place(schema, Topology("tpu", replicas, chip=TPU_WITH[kind]), replicate_below)
    hotnesses = {f.name: hotness for f in schema.multi_hot if f.sequence_length is None}
    samples = [encoded_batch(schema, batch_size, i, hotness) for i in range(2)]
    return TPUEmbeddingTables(schema, seed, placement, batch_size, hotnesses, samples, name="embeddings")


@contextlib.contextmanager
def tables_in_layout(
    kind: str, schema: Schema, optimizer: RowOptimizer, seed: int = 0, hosts: int = 2
) -> Iterator[TPUEmbeddingTables]:
    """Tables and slots in the layout of TPU training, every table on the embedding hardware that can be.

    They begin as those of `EmbeddingTables(schema, seed)` do, and `stored` reads and writes them.
    """
    with fake_tpu(kind, hosts=hosts if kind == "V1" else 1) as strategy, strategy.scope():
        tables = make_tables(kind, schema, seed=seed)
        tables.compile(optimizer)
        yield tables


def encoded_batch(schema: Schema, size: int, seed: int = 0, most: int = 4) -> dict[str, tf.Tensor | tf.RaggedTensor]:
    """A random encoded batch; its multi-valued features have 0 to `most` values."""
    rng = np.random.default_rng(seed)
    batch: dict = {}
    if schema.dense_width:
        batch["dense"] = tf.constant(rng.normal(size=[size, schema.dense_width]), tf.float32)
    if schema.one_hot:
        columns = [rng.integers(0, schema.table_of(f).vocabulary_size, size) for f in schema.one_hot]
        batch["ids"] = tf.constant(np.stack(columns, axis=1), tf.int32)
    for f in schema.multi_hot:
        lengths = batch[f.parallel_to].row_lengths() if f.parallel_to else rng.integers(0, most + 1, size)
        lengths = np.asarray(lengths)
        ids = tf.constant(rng.integers(0, schema.table_of(f).vocabulary_size, lengths.sum()), tf.int32)
        batch[f.name] = tf.RaggedTensor.from_row_lengths(ids, lengths)
        if f.weights:
            weights = tf.constant(rng.uniform(0.5, 2, lengths.sum()), tf.float32)
            batch[f.weights_name] = batch[f.name].with_flat_values(weights)
    return batch


def _cpus():
    return tf.config.list_logical_devices("CPU")
