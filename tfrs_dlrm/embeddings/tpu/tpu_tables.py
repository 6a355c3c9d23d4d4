"""The layer that holds the embedding tables of a schema on TPUs."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfrs_dlrm.distribute.placement import Placement
from tfrs_dlrm.distribute.strategies import distribution_of
from tfrs_dlrm.embeddings.bags import Bags, one_hot_bags, padded_bags
from tfrs_dlrm.embeddings.gradients import DenseGradient, LookupGradient
from tfrs_dlrm.embeddings.ids import Features
from tfrs_dlrm.embeddings.layouts import in_pieces, make_layout
from tfrs_dlrm.embeddings.row_optimizer import RowOptimizer
from tfrs_dlrm.embeddings.storage import LogicalTable, TableVariable, logical_tables
from tfrs_dlrm.embeddings.tpu.hardware import EmbeddingHardware, SparseCoreHardware, V1Hardware, hardware_tables
from tfrs_dlrm.embeddings.tpu.host_batches import OUT_OF_RANGE, HardwareLookup, HostMap, lookups
from tfrs_dlrm.embeddings.tpu.placement_checks import check_frozen, check_l2, check_memory, check_tables, log_placement
from tfrs_dlrm.embeddings.variables import make_variables
from tfrs_dlrm.schema import CategoricalFeature, Schema


@dataclasses.dataclass
class TPUIds:
    """The lookups of a replica's batch, for `TPUEmbeddingTables.lookup` and then `update`.

    Attributes:
      bags: by feature with a replicated table.
      present: by multi-valued feature with a replicated table, bool [n]: which rows of its bags are no padding.
      ids: by key of the lookup on the embedding hardware.
      weights: by key of the lookup on the embedding hardware; None for lookups without weights.
      batch_size: the number of examples.
      activations: by key of the lookup on the embedding hardware, float32 [n, dim], once looked up.
      out_of_range: int32 [len(schema.categorical)], how many ids of each feature were outside the table.
      call: the name of this call, unique in a step.
      token: passed from the lookup to the update.
    """

    bags: dict[str, Bags]
    present: dict[str, tf.Tensor]
    ids: dict[str, Any]
    weights: dict[str, Any]
    activations: dict[str, tf.Tensor]
    batch_size: tf.Tensor
    out_of_range: tf.Tensor
    call: str
    token: Any = None


class TPUEmbeddingTables(keras.layers.Layer):
    """Every embedding table of a schema, on TPUs, behind the two verbs of `EmbeddingTables`: `lookup` and `update`.

        with strategy.scope():
            tables = TPUEmbeddingTables(schema, seed, place(schema, topology), batch_size=1024)
            model = DLRM(schema, embeddings=tables)
            model.compile(keras.optimizers.Adam(), td.Adagrad(0.01))
        data = strategy.distribute_datasets_from_function(
            lambda context: td.dataset(path, global_batch, context=context).map(tables.map_batch),
            tf.distribute.InputOptions(experimental_fetch_to_device=False),
        )
        model.fit(data, steps_per_epoch=...)

    Tables on the embedding hardware are spread over all chips. All others are copied to each chip, looked up by gathers
    and updated as a whole with the sum of all replicas' gradients.

    Call both verbs in the replica function, with batches that went through `host_map`, with fetching to the device off.
    Every batch has the same size, in evaluation as well.

    Args:
      schema: the features, and the tables with their sizes.
      seed: the initial values are a function of (seed, name of the table), as in `EmbeddingTables`.
      placement: the placement of all variables of the tables.
      batch_size: examples of a replica in every batch.
      hotness: for multi-valued features with replicated tables, the largest number of values of an example.
      samples: about 20 encoded batches of `batch_size` examples from all parts of the data: SparseCores need to know
        how the ids spread. Other hardware ignores them.

    Raises:
      ValueError: the hardware of a table's placement cannot hold it, or needs samples.
    """

    def __init__(
        self,
        schema: Schema,
        seed: int,
        placement: Placement,
        batch_size: int,
        hotness: Mapping[str, int] | None = None,
        samples: Sequence[Features] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        self.schema = schema
        self.seed = seed
        self.placement = placement
        self.batch_size = batch_size
        self.kind = distribution_of().embedding_hardware
        check_tables(schema, self.on_hardware, self.kind, batch_size, samples)
        self.host_map = HostMap(schema, self.on_hardware, hotness or {})
        self._lookups = lookups(schema, self.on_hardware)
        self._layouts = {
            f.name: make_layout(schema.table_of(f), schema)
            for f in schema.categorical
            if f not in {x.feature for x in self._lookups}
        }
        self.tables: dict[str, TableVariable] = {
            name: v
            for t in schema.tables
            if t.name not in self.on_hardware
            for name, v in make_variables(t, seed).items()
        }
        # In a plain object, which no TensorFlow checkpoint follows: `logical_tables` saves these.
        self._state = types.SimpleNamespace(hardware=None, optimizer=None, samples=tuple(samples), calls=0)
        log_placement(placement, self.kind)

    @property
    def on_hardware(self) -> tuple[str, ...]:
        """The names of the tables on embedding hardware."""
        return self.placement.on_hardware

    @property
    def hardware(self) -> EmbeddingHardware | None:
        """The embedding hardware, once compiled; None if no table is on it."""
        return self._state.hardware

    def compile(self, optimizer: RowOptimizer) -> None:
        """Makes the slots, and the tables on the embedding hardware, which depend on the optimizer.

        Raises:
          ValueError: the hardware has no such optimizer, or was set up for another one before.
        """
        state = self._state
        if state.optimizer not in (None, optimizer):
            raise ValueError(
                "the embedding tables were compiled with another optimizer, and TPUs are set up for one only; make a"
                " new model, after tf.tpu.experimental.initialize_tpu_system()"
            )
        optimizer.build(self.tables, elsewhere=self.on_hardware)
        check_memory(self.placement, optimizer)
        check_l2(optimizer, self._lookups)
        check_frozen(optimizer, self.schema, self.on_hardware)
        if self.on_hardware and state.optimizer is None:
            tables = hardware_tables(self.schema, self.on_hardware, self._lookups, optimizer, self.kind == "SparseCore")
            if self.kind == "V1":
                state.hardware = V1Hardware(tables, self._lookups, self.batch_size, self.seed)
            else:
                samples = [self._sample(batch) for batch in state.samples]
                state.hardware = SparseCoreHardware(tables, self._lookups, self.batch_size, self.seed, samples)
        state.optimizer = optimizer

    def map_batch(self, features: Features, *others: tf.Tensor) -> tuple[Any, ...]:
        """`host_map` for the elements of a dataset: (features, label[, weight])."""
        return (self.host_map(features), *others)

    def call(self, features: Features) -> list[tf.Tensor]:
        """Calls `lookup`."""
        return self.lookup(features)

    def prepare(self, features: Features) -> TPUIds:
        """Reads the ids of a batch for `lookup` and then `update`.

        Args:
          features: a batch that went through `host_map`.

        Raises:
          ValueError: the batch did not go through `host_map`, or has a wrong size.
        """
        if OUT_OF_RANGE not in features:
            raise ValueError(
                f"the batch has no {OUT_OF_RANGE!r}, only {sorted(features)}; batches for TPUs go through the host_map"
                " of the tables: dataset.map(model.embeddings.map_batch)"
            )
        counts = features[OUT_OF_RANGE]
        if counts.shape[0] != self.batch_size:
            raise ValueError(
                f"the batch of a replica has {counts.shape[0] or 'an unknown number of'} examples; TPUs are set up for"
                f" batches of {self.batch_size}, all alike. Drop the remainder, and repeat the dataset (with"
                " steps_per_epoch or steps): of one that ends tf.distribute does not know the size of the last batches"
            )
        self._state.calls += 1
        size, call = tf.shape(counts)[0], f"call_{self._state.calls}"
        ids = TPUIds({}, {}, {}, {}, {}, size, tf.reduce_sum(counts, axis=0), call)
        columns = iter(tf.unstack(features["ids"], axis=1) if "ids" in features else ())
        for f in self.schema.categorical:
            if f.name not in self._layouts:
                continue
            if f.multi_valued:
                weights = features[f.weights_name] if f.weights else None
                combiner = self.schema.table_of(f).combiner
                bags, present = padded_bags(features[f.name], weights, combiner, f.sequence_length)
                ids.bags[f.name], ids.present[f.name] = bags, present
            else:
                ids.bags[f.name] = one_hot_bags(next(columns))
        for x in self._lookups:
            ids.ids[x.key] = features[x.key]
            ids.weights[x.key] = features[x.feature.weights_name] if x.feature.weights else None
        return ids

    def lookup(self, features: Features | TPUIds) -> list[tf.Tensor]:
        """Returns the vectors [B, dim] of each feature, in the order of `schema.categorical` and the compute dtype.

        The vectors of a feature with `sequence_length` are [B, sequence_length, dim].

        Raises:
          ValueError: a table is on embedding hardware, and `compile` was not called.
        """
        ids = features if isinstance(features, TPUIds) else self.prepare(features)
        if self._lookups:
            if self.hardware is None:
                raise ValueError("the tables on embedding hardware are not made yet; call compile(optimizer) first")
            ids.activations, ids.token = self.hardware.look_up(ids.ids, ids.weights, ids.call)
        vectors = []
        for f in self.schema.categorical:
            if f.name in self._layouts:
                vectors.append(self._layouts[f.name].vectors(self.tables, ids.bags[f.name]))
            else:
                pieces = [_of_sequence(f, ids.activations[x.key]) for x in self._lookups_of(f)]
                vectors.append(tf.concat(pieces, axis=-1)[..., : self.schema.table_of(f).dim])
        return [tf.cast(v, self.compute_dtype) for v in vectors]

    def update(self, features: TPUIds, gradients: Sequence[tf.Tensor | None], optimizer: RowOptimizer) -> None:
        """Takes one step of `optimizer` on the rows that `features` look up.

        Args:
          features: the argument of `lookup`.
          gradients: of the loss with respect to the result of `lookup`. None skips a feature; on embedding hardware its
            rows take a step with a gradient of 0.
          optimizer: the argument of `compile`.
        """
        by_lookup: dict[str, tf.Tensor | None] = {}
        by_variable: dict[str, list[LookupGradient]] = {}
        for f, gradient in zip(self.schema.categorical, gradients, strict=True):
            if not self.schema.trains(f):
                gradient = None
            flat = None if gradient is None else tf.reshape(tf.cast(gradient, tf.float32), [-1, gradient.shape[-1]])
            if f.name not in self._layouts:
                lookups_of = self._lookups_of(f)
                width = self.schema.table(lookups_of[0].table).dim
                parts = [None] * len(lookups_of) if flat is None else in_pieces(flat, len(lookups_of), width)
                by_lookup |= {
                    x.key: self._with_l2(x, part, features.activations, optimizer)
                    for x, part in zip(lookups_of, parts, strict=True)
                }
            elif flat is not None:
                found = self._layouts[f.name].lookup_gradients(self.tables, features.bags[f.name], flat)
                for name, of_variable in found.items():
                    used = _without_padding(of_variable, features.present.get(f.name))
                    by_variable.setdefault(name, []).append(used)
        if self.hardware is not None:
            self.hardware.update(by_lookup, features.token)
        for name, of_table in by_variable.items():
            table = self.tables[name]
            gradient = DenseGradient.of(of_table, table.shape[0], features.batch_size)
            optimizer.step(name, table, optimizer.slots[name], gradient)
        optimizer.iterations.assign_add(1)

    def zeros(self, batch_size: int) -> list[tf.Tensor]:
        """Returns the result of `lookup` for some examples if all rows were 0."""
        vectors = []
        for f in self.schema.categorical:
            length = [] if f.sequence_length is None else [f.sequence_length]
            vectors.append(tf.zeros([batch_size, *length, self.schema.table_of(f).dim], self.compute_dtype))
        return vectors

    def logical_tables(self, optimizer: RowOptimizer | None = None) -> dict[str, LogicalTable]:
        """See `EmbeddingTables.logical_tables`."""
        found = logical_tables(self.tables, {} if optimizer is None else optimizer.slots)
        if self.hardware is not None:
            for name, t in self.hardware.tables.items():
                found[f"tables/{name}"] = self.hardware.logical_table(name)
                for slot in t.optimizer.slots if optimizer is not None else ():
                    found[f"slots/{name}/{slot}"] = self.hardware.logical_table(name, slot)
        return found

    def fetch(self) -> None:
        """Copies the tables of v2 to v4 from the chips to the hosts, where `logical_tables` reads them."""
        if self.hardware is not None:
            self.hardware.fetch()

    def load(self) -> None:
        """Copies what was written through `logical_tables` to the chips."""
        if self.hardware is not None:
            self.hardware.load()

    def save_own_variables(self, store: Any) -> None:
        """Refuses: Keras' files have no place for tables on TPUs.

        Raises:
          ValueError: always.
        """
        raise ValueError(
            "Keras' formats cannot store tables on TPUs; use td.save_checkpoint(model, path), which"
            " td.restore_checkpoint reads under any strategy, and save the restored model"
        )

    def _sample(self, batch: Features) -> dict[str, Any]:
        mapped = self.host_map(batch)
        count = mapped[OUT_OF_RANGE].shape[0]
        if count != self.batch_size:
            raise ValueError(
                f"a batch of samples has {count} examples; those of a replica have batch_size={self.batch_size}"
            )
        return mapped

    def _with_l2(
        self,
        lookup: HardwareLookup,
        gradient: tf.Tensor | None,
        activations: Mapping[str, tf.Tensor],
        optimizer: RowOptimizer,
    ) -> tf.Tensor | None:
        """Adds the l2 of looked-up rows to the gradient of their activations, which are the rows; see `check_l2`.

        The hardware adds up the gradients of a row that n examples look up, so its l2 is added n times, as
        `RowOptimizer` has it.
        """
        l2 = optimizer.rule(lookup.table).l2
        if gradient is None or not l2:
            return gradient
        examples = self.batch_size * tf.distribute.get_strategy().num_replicas_in_sync
        return gradient + (l2 / examples) * activations[lookup.key]

    def _lookups_of(self, f: CategoricalFeature) -> list[HardwareLookup]:
        return [x for x in self._lookups if x.feature is f]


def _of_sequence(f: CategoricalFeature, vectors: tf.Tensor) -> tf.Tensor:
    if f.sequence_length is None:
        return vectors
    return tf.reshape(vectors, [-1, f.sequence_length, vectors.shape[-1]])


def _without_padding(gradient: LookupGradient, present: tf.Tensor | None) -> LookupGradient:
    """Sets the rows of padding to -1. In a compressed table a value may have several rows."""
    if present is None:
        return gradient
    times = gradient.rows.shape[0] // present.shape[0]
    return gradient._replace(rows=tf.where(tf.tile(present, [times]), gradient.rows, -1))
