"""The embedding hardware of TPUs, of either kind, behind lookups and updates by name of the lookup."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from tfrs_dlrm.embeddings.storage import LogicalTable, TableShard
from tfrs_dlrm.embeddings.tpu import hardware_storage, id_capacity
from tfrs_dlrm.embeddings.tpu.host_batches import Lookup
from tfrs_dlrm.embeddings.tpu.optimizer_translation import Translated
from tfrs_dlrm.embeddings.variables import initial_rows
from tfrs_dlrm.schema import Combiner, Table

_api = tf.tpu.experimental.embedding
Values = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class HardwareTable:
    """A table that goes to the embedding hardware.

    Attributes:
      table: as the schema has it; its rows are known and it is stored in one variable of its name.
      combiner: of the lookups in it.
      optimizer: of its rows.
    """

    table: Table
    combiner: Combiner
    optimizer: Translated


class Hardware(abc.ABC):
    """See the module docstring. Made in the scope of the strategy; it makes all tables and slots.

    Args:
      tables: on the hardware.
      lookups: in them.
      batch_size: examples of a replica in every batch.
      seed: makes the initial values a function of (seed, name of the table), as everywhere.
    """

    def __init__(self, tables: Sequence[HardwareTable], lookups: Sequence[Lookup], batch_size: int, seed: int) -> None:
        self.tables = {t.table.name: t for t in tables}
        self.lookups = tuple(lookups)
        self._batch_size = batch_size
        self._seed = seed

    @abc.abstractmethod
    def look_up(self, ids: Values, weights: Values, call: str) -> tuple[dict[str, tf.Tensor], Any]:
        """Activations float32 [B * bags, dim] by key of the lookup, and what `update` needs of it.

        Args:
          ids: by key of the lookup, as `HostMap` makes them, straight from the arguments of the replica function.
          weights: likewise; None for those without.
          call: names the call, another one for each in a step.
        """

    @abc.abstractmethod
    def update(self, gradients: dict[str, tf.Tensor | None], token: Any) -> None:
        """One step on all tables with the gradients of what `look_up` gave, beside `token`."""

    @abc.abstractmethod
    def logical_table(self, table: str, slot: str | None = None) -> LogicalTable:
        """A table, or the slot of it of that name, a name of ours."""

    @abc.abstractmethod
    def fetch(self) -> None:
        """Brings what is on the hardware to where `logical_table` reads it."""

    @abc.abstractmethod
    def load(self) -> None:
        """Brings what was written through `logical_table` to the hardware."""

    def _their_name(self, table: str, slot: str | None) -> str:
        return "parameters" if slot is None else self.tables[table].optimizer.slots[slot]

    def _logical_table(self, name: str, slot: str | None, shards: Sequence[TableShard]) -> LogicalTable:
        of = self.tables[name]
        if slot is None:
            return hardware_storage.logical_table(shards, of.table.dim, tf.as_dtype(of.table.dtype))
        return hardware_storage.logical_table(shards, of.table.dim, smallest=of.optimizer.smallest.get(slot, 0.0))

    def _features(self, initializers: Mapping[str, Any]) -> dict[str, Any]:
        configs = {
            name: _api.TableConfig(
                t.table.vocabulary_size,
                t.table.dim,
                initializer=initializers[name],
                optimizer=t.optimizer.optimizer,
                combiner=t.combiner,
                name=name,
            )
            for name, t in self.tables.items()
        }
        return {
            x.key: _api.FeatureConfig(configs[x.table], output_shape=[self._batch_size * x.bags], name=x.key)
            for x in self.lookups
        }


class V1(Hardware):
    """That of v2, v3 and v4: tables are on the chips, and variables on the hosts are copies of them for checkpoints."""

    def __init__(self, tables: Sequence[HardwareTable], lookups: Sequence[Lookup], batch_size: int, seed: int) -> None:
        super().__init__(tables, lookups, batch_size, seed)
        initializers = {name: _initializer(t.table, seed) for name, t in self.tables.items()}
        self.api = _api.TPUEmbedding(self._features(initializers), optimizer=None)
        self.api.build()

    def look_up(self, ids: Values, weights: Values, call: str) -> tuple[dict[str, tf.Tensor], Any]:
        """See `Hardware`."""
        # Always said to be a training step: TensorFlow makes it one of inference where no update has the same name.
        self.api.enqueue(dict(ids), _or_none(weights), training=True, name=call)
        return self.api.dequeue(name=call), call

    def update(self, gradients: dict[str, tf.Tensor | None], token: Any) -> None:
        """See `Hardware`."""
        self.api.apply_gradients(gradients, name=token)

    # Private names of TensorFlow, below: the API reads and writes tables in its own checkpoints only.

    def logical_table(self, table: str, slot: str | None = None) -> LogicalTable:
        """See `Hardware`."""
        variables = self.api._variables[table][self._their_name(table, slot)].variables
        return self._logical_table(table, slot, hardware_storage.on_hosts(variables))

    def fetch(self) -> None:
        """See `Hardware`."""
        self.api._retrieve_variables()

    def load(self) -> None:
        """See `Hardware`."""
        self.api._load_variables()


class SparseCore(Hardware):
    """That of v5p and v6e: tables of one dimension and optimizer are stacked, and dealt out row by row to all cores.

    Args:
      tables: on the hardware.
      lookups: in them.
      batch_size: examples of a replica in every batch.
      seed: makes the initial values a function of (seed, name of the table).
      samples: batches of one replica, as `HostMap` makes them, to count in how much room ids need.
    """

    def __init__(
        self,
        tables: Sequence[HardwareTable],
        lookups: Sequence[Lookup],
        batch_size: int,
        seed: int,
        samples: Sequence[Values],
    ) -> None:
        super().__init__(tables, lookups, batch_size, seed)
        features = self._features(dict.fromkeys(self.tables, tf.zeros_initializer()))
        # Twice: how tables are stacked has to be known before anything can be counted. Nothing is built by this.
        layouts = _api.TPUEmbeddingV2(features).embedding_layouts
        self.places = {name: _place(layout) for name, layout in layouts.items()}
        cores = next(iter(self.places.values())).layout.cores
        self.cores_per_chip = cores // tf.distribute.get_strategy().num_replicas_in_sync
        if batch_size % self.cores_per_chip:
            raise ValueError(
                f"batch_size={batch_size} of a replica: the {self.cores_per_chip} SparseCores of a chip share its"
                " examples out evenly; take a multiple"
            )
        self.room = id_capacity.count(samples, self.lookups, self.places, self.cores_per_chip)
        self.api = _api.TPUEmbeddingV2(features, sparse_core_embedding_config=self.room.config())
        self.api.build()
        # Initializers see a shard's rows in the order of the cores, so the values are written afterwards.
        for name, t in self.tables.items():
            (shard,) = self.logical_table(name).shards
            for first, values in initial_rows(t.table, seed)[name](0, shard.end):
                shard.write(first, values)

    def look_up(self, ids: Values, weights: Values, call: str) -> tuple[dict[str, tf.Tensor], Any]:
        """See `Hardware`."""
        return self.api(dict(ids), _or_none(weights))

    def update(self, gradients: dict[str, tf.Tensor | None], token: Any) -> None:
        """See `Hardware`."""
        given = dict(gradients)
        for x in self.lookups:
            if given.get(x.key) is None:  # what the API puts in place of None has another shape than it wants
                given[x.key] = tf.zeros([self._batch_size * x.bags, self.tables[x.table].table.dim])
        self.api.apply_gradients(given, preserved_outputs=token)

    def logical_table(self, table: str, slot: str | None = None) -> LogicalTable:
        """See `Hardware`."""
        place = self.places[table]
        variables = self.api.variables[place.stack][self._their_name(table, slot)].values
        return self._logical_table(table, slot, [hardware_storage.SparseCoreShard(variables, place.layout)])

    def fetch(self) -> None:
        """Nothing: `logical_table` reads and writes what is on the chips."""

    def load(self) -> None:
        """Nothing, likewise."""


def _place(layout: Any) -> id_capacity.InStack:
    rows, dim = layout.unsharded_shape
    return id_capacity.InStack(
        layout.stacked_table_name,
        hardware_storage.CoreLayout(
            rows,
            dim,
            layout.num_sparse_cores,
            layout.total_rows_per_sparse_core_shard,
            layout.sparse_core_shard_row_offset,
            layout.sparse_core_shard_rotation,
        ),
    )


def _initializer(table: Table, seed: int) -> Any:
    rows = initial_rows(table, seed)[table.name]

    def initial(shape: Any, dtype: tf.DType = tf.float32, shard_info: Any = None) -> tf.Tensor:
        begin, count = (shard_info.offset[0], shard_info.shape[0]) if shard_info else (0, shape[0])
        return tf.concat([tf.cast(values, dtype) for _, values in rows(begin, begin + count)], axis=0)

    return initial


def _or_none(weights: Values) -> Any:
    return dict(weights) if any(w is not None for w in weights.values()) else None
