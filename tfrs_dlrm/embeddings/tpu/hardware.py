"""The two kinds of TPU embedding hardware, behind one interface of lookups and updates."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from tfrs_dlrm.embeddings.row_optimizer import RowOptimizer
from tfrs_dlrm.embeddings.storage import LogicalTable, TableShard
from tfrs_dlrm.embeddings.tpu import hardware_storage, id_capacity
from tfrs_dlrm.embeddings.tpu.host_batches import HardwareLookup
from tfrs_dlrm.embeddings.tpu.optimizer_translation import TranslatedOptimizer, translate
from tfrs_dlrm.embeddings.variables import initial_rows
from tfrs_dlrm.schema import Combiner, Schema, Table

_api = tf.tpu.experimental.embedding
Values = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class HardwareTable:
    """A table on the embedding hardware.

    Attributes:
      table: from the schema; it has a vocabulary_size and one variable of its name.
      combiner: the combiner of all lookups in it.
      optimizer: the optimizer of its rows.
    """

    table: Table
    combiner: Combiner
    optimizer: TranslatedOptimizer


def hardware_tables(
    schema: Schema, names: Sequence[str], lookups: Sequence[HardwareLookup], optimizer: RowOptimizer, sparse_core: bool
) -> list[HardwareTable]:
    """Returns the tables called `names`, for the embedding hardware.

    Raises:
      ValueError: the hardware has no such optimizer, or the features of a table need several combiners.
    """
    translated: dict[int, TranslatedOptimizer] = {}
    tables = []
    for name in names:
        rule = optimizer.rule(name)
        # One per rule: tables that share an optimizer have one learning rate, and can be stacked.
        if id(rule) not in translated:
            translated[id(rule)] = translate(name, rule, optimizer.iterations, sparse_core)
        combiner = _combiner(name, lookups, schema)
        tables.append(HardwareTable(schema.table(name), combiner, translated[id(rule)]))
    return tables


def _combiner(table: str, all_lookups: Sequence[HardwareLookup], schema: Schema) -> Combiner:
    """Returns the combiner of all lookups in a table; sequences and single values need none."""
    combined = [x.feature for x in all_lookups if x.table == table and x.feature.multi_valued]
    combiners = {schema.table_of(f).combiner for f in combined if f.sequence_length is None}
    if any(f.sequence_length is not None and f.weights for f in combined):
        combiners.add("sum")  # any other would cancel the weight in a bag of one row
    if len(combiners) > 1:
        raise ValueError(
            f"table {table!r} is on TPU embedding hardware, which has one combiner per table, and its features need"
            f" {', '.join(sorted(combiners))}; give each feature a separate table, or replicate the table"
        )
    return next(iter(combiners), "sum")


class EmbeddingHardware(abc.ABC):
    """The tables and slots on the embedding hardware. Make it in the scope of the strategy.

    Args:
      tables: the tables on the hardware.
      lookups: all lookups in these tables.
      batch_size: examples of a replica in every batch.
      seed: the initial values are a function of (seed, name of the table).
    """

    def __init__(
        self, tables: Sequence[HardwareTable], lookups: Sequence[HardwareLookup], batch_size: int, seed: int
    ) -> None:
        self.tables = {t.table.name: t for t in tables}
        self.lookups = tuple(lookups)
        self._batch_size = batch_size
        self._seed = seed

    @abc.abstractmethod
    def look_up(self, ids: Values, weights: Values, call: str) -> tuple[dict[str, tf.Tensor], Any]:
        """Returns activations float32 [B * bags, dim] by key of the lookup, and a token for `update`.

        Args:
          ids: by key of the lookup, as `HostMap` makes them; they must be arguments of the replica function.
          weights: by key of the lookup, as `HostMap` makes them; None for lookups without weights.
          call: the name of this call, unique in a step.
        """

    @abc.abstractmethod
    def update(self, gradients: dict[str, tf.Tensor | None], token: Any) -> None:
        """Takes one step on all tables, given the gradients and the token of a `look_up`."""

    @abc.abstractmethod
    def logical_table(self, table: str, slot: str | None = None) -> LogicalTable:
        """Returns a table, or a slot of it by the name that row optimizers use."""

    @abc.abstractmethod
    def fetch(self) -> None:
        """Copies tables from the hardware to where `logical_table` reads them."""

    @abc.abstractmethod
    def load(self) -> None:
        """Copies tables that were written through `logical_table` to the hardware."""

    def _name_on_hardware(self, table: str, slot: str | None) -> str:
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


class V1Hardware(EmbeddingHardware):
    """The hardware of v2, v3 and v4: tables are on the chips; variables on the hosts are copies for checkpoints."""

    def __init__(
        self, tables: Sequence[HardwareTable], lookups: Sequence[HardwareLookup], batch_size: int, seed: int
    ) -> None:
        super().__init__(tables, lookups, batch_size, seed)
        initializers = {name: _initializer(t.table, seed) for name, t in self.tables.items()}
        self.api = _api.TPUEmbedding(self._features(initializers), optimizer=None)
        self.api.build()

    def look_up(self, ids: Values, weights: Values, call: str) -> tuple[dict[str, tf.Tensor], Any]:
        """See `EmbeddingHardware.look_up`."""
        # `training=True` always: if no update has the same name, TensorFlow makes it an inference step.
        self.api.enqueue(dict(ids), _or_none(weights), training=True, name=call)
        return self.api.dequeue(name=call), call

    def update(self, gradients: dict[str, tf.Tensor | None], token: Any) -> None:
        """See `EmbeddingHardware.update`."""
        self.api.apply_gradients(gradients, name=token)

    # The methods below use private names of TensorFlow: the API reads and writes tables only in its checkpoints.

    def logical_table(self, table: str, slot: str | None = None) -> LogicalTable:
        """See `EmbeddingHardware.logical_table`."""
        variables = self.api._variables[table][self._name_on_hardware(table, slot)].variables
        return self._logical_table(table, slot, hardware_storage.on_hosts(variables))

    def fetch(self) -> None:
        """See `EmbeddingHardware.fetch`."""
        self.api._retrieve_variables()

    def load(self) -> None:
        """See `EmbeddingHardware.load`."""
        self.api._load_variables()


class SparseCoreHardware(EmbeddingHardware):
    """The hardware of v5p and v6e: tables of one dimension and optimizer are stacked, and their rows spread over cores.

    Args:
      tables: the tables on the hardware.
      lookups: all lookups in these tables.
      batch_size: examples of a replica in every batch.
      seed: the initial values are a function of (seed, name of the table).
      samples: batches of one replica, as `HostMap` makes them, to measure the capacity that ids need.
    """

    def __init__(
        self,
        tables: Sequence[HardwareTable],
        lookups: Sequence[HardwareLookup],
        batch_size: int,
        seed: int,
        samples: Sequence[Values],
    ) -> None:
        super().__init__(tables, lookups, batch_size, seed)
        features = self._features(dict.fromkeys(self.tables, tf.zeros_initializer()))
        # Made twice: measuring the capacity needs the stacking of tables. This one builds nothing.
        layouts = _api.TPUEmbeddingV2(features).embedding_layouts
        self.stacked = {name: _stacked(layout) for name, layout in layouts.items()}
        cores = next(iter(self.stacked.values())).layout.cores
        self.cores_per_chip = cores // tf.distribute.get_strategy().num_replicas_in_sync
        if batch_size % self.cores_per_chip:
            raise ValueError(
                f"batch_size={batch_size} of a replica; the {self.cores_per_chip} SparseCores of a chip need equally"
                f" many examples: take a multiple of {self.cores_per_chip}"
            )
        self.capacity = id_capacity.measure_capacity(samples, self.lookups, self.stacked, self.cores_per_chip)
        self.api = _api.TPUEmbeddingV2(features, sparse_core_embedding_config=self.capacity.config())
        self.api.build()
        # Initializers get a shard's rows in the order of the cores, so the values are written afterwards.
        for name, t in self.tables.items():
            (shard,) = self.logical_table(name).shards
            for first, values in initial_rows(t.table, seed)[name](0, shard.end):
                shard.write(first, values)

    def look_up(self, ids: Values, weights: Values, call: str) -> tuple[dict[str, tf.Tensor], Any]:
        """See `EmbeddingHardware.look_up`."""
        return self.api(dict(ids), _or_none(weights))

    def update(self, gradients: dict[str, tf.Tensor | None], token: Any) -> None:
        """See `EmbeddingHardware.update`."""
        given = dict(gradients)
        for x in self.lookups:
            if given.get(x.key) is None:  # the API replaces None by a tensor of a wrong shape
                given[x.key] = tf.zeros([self._batch_size * x.bags, self.tables[x.table].table.dim])
        self.api.apply_gradients(given, preserved_outputs=token)

    def logical_table(self, table: str, slot: str | None = None) -> LogicalTable:
        """See `EmbeddingHardware.logical_table`."""
        stacked = self.stacked[table]
        variables = self.api.variables[stacked.stack][self._name_on_hardware(table, slot)].values
        return self._logical_table(table, slot, [hardware_storage.SparseCoreShard(variables, stacked.layout)])

    def fetch(self) -> None:
        """Does nothing: `logical_table` reads the chips."""

    def load(self) -> None:
        """Does nothing: `logical_table` writes to the chips."""


def _stacked(layout: Any) -> id_capacity.StackedTable:
    rows, dim = layout.unsharded_shape
    return id_capacity.StackedTable(
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
