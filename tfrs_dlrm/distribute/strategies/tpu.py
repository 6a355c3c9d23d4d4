"""TPUs, with or without embedding hardware."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from tfrs_dlrm.distribute.hardware import TPU_WITH, TPUS
from tfrs_dlrm.distribute.placement import Places, Topology
from tfrs_dlrm.distribute.strategies.base import Distribution, Read
from tfrs_dlrm.schema import Schema

_FEATURE = tf.tpu.experimental.HardwareFeature.EmbeddingFeature


class TPU(Distribution):
    """The chips of a TPU. Its tables are made for batches of one size, by `tfrs_dlrm.training.tpu.tpu_tables`."""

    name = "tpu"
    fixed_batches = True
    no_input_service = "not yet"
    only_one_device = False

    @classmethod
    def create(cls, tpu: str = "local") -> tf.distribute.Strategy:
        """Returns a new strategy of a TPU, by name or address."""
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=tpu)
        if tpu != "local":
            tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver)

    @property
    def embedding_hardware(self) -> str:
        """See `Distribution.embedding_hardware`: V1 is on v2 to v4, SparseCore on v5p and v6e."""
        feature = self.strategy.extended.tpu_hardware_feature.embedding_feature
        return {_FEATURE.V1: "V1", _FEATURE.V2: "SparseCore"}.get(feature, "")

    @property
    def topology(self) -> Topology:
        """See `Distribution.topology`."""
        chip = TPU_WITH[self.embedding_hardware]
        # Only where tables are copied to every chip is there something to check: on v5e.
        memory = None if TPUS[chip].embedding_hardware else TPUS[chip].memory
        return Topology(self.name, self.strategy.num_replicas_in_sync, memory, chip)

    def places(self, schema: Schema, replicate_below: int | None = None) -> Places:
        """Raises a ValueError: tables of TPUs are not made from places."""
        raise ValueError(
            "the tables of a model for TPUs depend on the size of batches and on the data; give embeddings=, as"
            " tfrs_dlrm.training.tpu.tpu_tables makes them"
        )

    @property
    def reads_records(self) -> bool:
        """See `Distribution.reads_records`: a single host reads Parquet itself."""
        return self.strategy.extended.num_hosts > 1

    def feed(self, read: Read) -> Any:
        """See `Distribution.feed`."""
        # Embedding hardware takes ids from the hosts.
        options = tf.distribute.InputOptions(experimental_fetch_to_device=False)
        return self.strategy.distribute_datasets_from_function(read, options)

    def score(self, logits: Callable[[Any], Any], batches: tf.data.Dataset) -> Iterator[tuple[np.ndarray, ...]]:
        """See `Distribution.score`."""
        replicas, iterator = self.strategy.num_replicas_in_sync, iter(batches)
        while group := list(itertools.islice(iterator, replicas)):
            filled = group + [group[-1]] * (replicas - len(group))
            features = self.strategy.experimental_distribute_values_from_function(
                lambda context, filled=filled: filled[context.replica_id_in_sync_group][0]
            )
            found = self.strategy.experimental_local_results(logits(features))
            columns = [[x.numpy() for x in column] for column in zip(*(targets for _, *targets in group), strict=True)]
            scored = [scores.numpy()[: len(label)] for scores, label in zip(found, columns[0], strict=False)]
            yield tuple(np.concatenate(parts) for parts in (scored, *columns))
