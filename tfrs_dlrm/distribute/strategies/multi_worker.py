"""Several processes that step together."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from tfrs_dlrm.distribute.cluster import job_in_tf_config
from tfrs_dlrm.distribute.memory import available_memory
from tfrs_dlrm.distribute.placement import Places, Topology, place, size_text
from tfrs_dlrm.distribute.strategies.base import Distribution, Read
from tfrs_dlrm.schema import Schema


class MultiWorker(Distribution):
    """A process for each machine, all running one program: each holds all tables and reads a part of the data.

    The first worker is the chief.
    """

    name = "multi_worker"
    exchange = "gather"
    several_processes = True
    only_one_device = False

    @classmethod
    def create(cls) -> tf.distribute.Strategy:
        """Returns a new strategy of the workers that TF_CONFIG names."""
        job_in_tf_config(cls.name)
        communication = tf.distribute.experimental.CommunicationImplementation
        chosen = communication.AUTO if tf.config.list_physical_devices("GPU") else communication.RING
        options = tf.distribute.experimental.CommunicationOptions(implementation=chosen)
        return tf.distribute.MultiWorkerMirroredStrategy(communication_options=options)

    @property
    def topology(self) -> Topology:
        """See `Distribution.topology`."""
        return Topology(self.name, self.strategy.num_replicas_in_sync)

    def places(self, schema: Schema, replicate_below: int | None = None) -> Places:
        """Shares out no table, and makes sure that each process can hold all of them; see `Distribution`."""
        tables = place(schema, self.topology, replicate_below).tables
        half = [table.name for table in tables if table.dtype == "bfloat16"]
        if half:
            raise ValueError(
                f"tables {', '.join(half)} are of dtype bfloat16, which TensorFlow cannot send to all workers of"
                " multi_worker; make them float32, or use parameter_server"
            )
        size, available = sum(table.bytes for table in tables), available_memory()
        # Slots may need as much again. If they do not, the machine's other programs need the memory.
        if available is not None and size > available / 2:
            raise ValueError(
                f"multi_worker copies all tables to every worker: {size_text(size)}, plus slots, of"
                f" {size_text(available)} that this machine has free. Use --strategy=parameter_server, which shares"
                " them out among servers, or smaller tables (see docs/guides/embeddings.md)"
            )
        return {}

    @property
    def is_chief(self) -> bool:
        """See `Distribution.is_chief`."""
        return not self.strategy.cluster_resolver.task_id

    def any_process(self, fact: bool) -> bool:
        """See `Distribution.any_process`."""
        return int(_sum_over_replicas(self.strategy)(tf.constant(int(fact)))) > 0

    @property
    def epoch_share(self) -> tuple[int, int]:
        """See `Distribution.epoch_share`."""
        return self._workers, self.strategy.num_replicas_in_sync // self._workers

    def feed(self, read: Read) -> Any:
        """See `Distribution.feed`."""
        return self.strategy.distribute_datasets_from_function(read)

    @property
    def evaluation_part(self) -> tf.distribute.InputContext:
        """See `Distribution.evaluation_part`."""
        return tf.distribute.InputContext(self._workers, self.strategy.cluster_resolver.task_id)

    def score(self, logits: Callable[[Any], Any], batches: tf.data.Dataset) -> Iterator[tuple[np.ndarray, ...]]:
        """See `Distribution.score`."""
        return self._score_here(logits, batches)

    def of_all_processes(self, columns: list[np.ndarray]) -> list[np.ndarray]:
        """See `Distribution.of_all_processes`."""
        strategy = self.strategy

        @tf.function
        def gather(values: tf.Tensor) -> tf.Tensor:
            def of_replica(values: tf.Tensor) -> tf.Tensor:
                replica = tf.distribute.get_replica_context()
                number = replica.replica_id_in_sync_group % len(strategy.extended.worker_devices)
                # One replica speaks for its process.
                return replica.all_gather(values[: tf.where(number == 0, tf.shape(values)[0], 0)], axis=0)

            return strategy.run(of_replica, args=(values,))

        flat = [column.reshape(len(column), -1) for column in columns]
        gathered = gather(tf.constant(np.concatenate(flat, axis=1)))
        ends = np.cumsum([part.shape[1] for part in flat])[:-1]
        parts = np.split(strategy.experimental_local_results(gathered)[0].numpy(), ends, axis=1)
        return [part.reshape(-1, *column.shape[1:]) for part, column in zip(parts, columns, strict=True)]

    @property
    def _workers(self) -> int:
        return self.strategy.cluster_resolver.cluster_spec().num_tasks("worker")


@functools.cache
def _sum_over_replicas(strategy: tf.distribute.Strategy) -> Callable[[tf.Tensor], tf.Tensor]:
    """Adds up a number that each process has; traced once."""
    return tf.function(lambda x: strategy.reduce("SUM", strategy.run(lambda: tf.identity(x)), axis=None))
