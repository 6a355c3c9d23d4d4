"""Workers that do not wait for each other, and servers that hold the weights."""

from __future__ import annotations

import collections
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras

from tfrs_dlrm.distribute.cluster import job_in_tf_config
from tfrs_dlrm.distribute.placement import Places, Topology
from tfrs_dlrm.distribute.strategies.base import Distribution, Read, place_on
from tfrs_dlrm.schema import Schema


class ParameterServer(Distribution):
    """The coordinator of a cluster: servers (`ps`) hold the tables, and each worker reads all rows in another order."""

    name = "parameter_server"
    exchange = "send"
    asynchronous = True
    no_input_service = "every worker reads records itself, in TensorFlow"
    only_one_device = False
    reads_records = True

    @classmethod
    def create(cls) -> tf.distribute.Strategy:
        """Returns a new strategy of the cluster that TF_CONFIG names."""
        job = job_in_tf_config(cls.name)
        if job != "chief":
            raise ValueError(
                f"this process is a {job} of the cluster, which has no strategy; tfrs-dlrm train"
                " --strategy=parameter_server serves it, and so does tfrs_dlrm.distribute.cluster.serve()"
            )
        # Otherwise a call to a worker that is being restarted fails at once instead of waiting for it.
        os.environ.setdefault("GRPC_FAIL_FAST", "use_caller")
        resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
        return tf.distribute.experimental.ParameterServerStrategy(resolver)

    @property
    def topology(self) -> Topology:
        """See `Distribution.topology`."""
        return Topology(self.name, len(_first_cpus("ps")), workers=len(_first_cpus("worker")))

    def places(self, schema: Schema, replicate_below: int | None = None) -> Places:
        """See `Distribution.places`."""
        return place_on(_first_cpus("ps"), schema, self.topology, replicate_below)

    def feed(self, read: Read) -> Any:
        """See `Distribution.feed`."""
        return keras.utils.experimental.DatasetCreator(read)

    def score(self, logits: Callable[[Any], Any], batches: tf.data.Dataset) -> Iterator[tuple[np.ndarray, ...]]:
        """Reads the batches in the coordinator, and lets the workers score them; see `Distribution`."""
        coordinator = tf.distribute.coordinator.ClusterCoordinator(self.strategy)
        under_way: collections.deque[tuple[Any, list[np.ndarray]]] = collections.deque()
        limit = 2 * self.topology.workers

        def first() -> tuple[np.ndarray, ...]:
            found, targets = under_way.popleft()
            return (found.get(), *targets)

        for features, *targets in batches:
            under_way.append((coordinator.schedule(logits, args=(features,)), [t.numpy() for t in targets]))
            if len(under_way) > limit:
                yield first()
        while under_way:
            yield first()


def _first_cpus(job: str) -> list[str]:
    """The first CPU of each task of a job that this process is connected to."""
    names = [device.name for device in tf.config.list_logical_devices("CPU")]
    return sorted(
        (n for n in names if f"/job:{job}/" in n and n.endswith("CPU:0")),
        key=lambda n: tf.DeviceSpec.from_string(n).task,
    )
