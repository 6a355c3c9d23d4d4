"""The embedding tables of a schema on TPUs."""

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
from tfrs_dlrm.embeddings.layouts import make_layout
from tfrs_dlrm.embeddings.row_optimizer import RowOptimizer
from tfrs_dlrm.embeddings.storage import LogicalTable, TableVariable, logical_tables
from tfrs_dlrm.embeddings.tpu.hardware import V1, Hardware, HardwareTable, SparseCore
from tfrs_dlrm.embeddings.tpu.host_batches import OUT_OF_RANGE, HostMap, Lookup, lookups
from tfrs_dlrm.embeddings.tpu.optimizer_translation import Translated, translate
from tfrs_dlrm.embeddings.tpu.placement_checks import check_memory, check_tables, log_placement
from tfrs_dlrm.embeddings.variables import make_variables
from tfrs_dlrm.schema import CategoricalFeature, Combiner, Schema


@dataclasses.dataclass
class TPUIds:
    """What a batch of a replica looks up, ready for `TPUEmbeddingTables.lookup` and, after that, `update`.

    Attributes:
      bags: by feature whose table is replicated.
      there: by multi-valued one of them, bool [n]: which of the rows of its bags there are, and which fill up.
      ids: by key of the lookup on the embedding hardware.
      weights: likewise; None for those without.
      batch_size: the number of examples.
      out_of_range: int32 [len(schema.categorical)], how many ids of each were not rows of its table.
      call: another name for each call.
      token: what the lookup leaves for the update.
    """

    bags: dict[str, Bags]
    there: dict[str, tf.Tensor]
    ids: dict[str, Any]
    weights: dict[str, Any]
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

    Tables go where `placement` says. Those on the embedding hardware are spread over all chips. All others are copied
    to each, looked up by gathers and updated as wholes, after the replicas' gradients were added up.

    Both verbs belong into the replica function, and take batches that came through `host_map`, with fetching to the
    device off. Every batch has the same size, in evaluation as well.

    Args:
      schema: names the features and the tables, with the rows of each.
      seed: makes the initial values a function of (seed, name of the table): the same as those of `EmbeddingTables`.
      placement: of the variables of the tables.
      batch_size: examples of a replica in every batch.
      hotness: for multi-valued features whose tables are replicated, the most values that an example has.
      samples: encoded batches of `batch_size` examples, 20 or so, from all over the data: SparseCores need to know how
        the ids spread. Other hardware takes no notice of them.

    Raises:
      ValueError: a table cannot be on the hardware that it is placed on, or this hardware needs more to be known.
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
        on_hardware = [t.name for t in placement.tables if t.kind == "tpu_embedding"]
        check_tables(schema, on_hardware, self.kind, batch_size, samples)
        self.host_map = HostMap(schema, on_hardware, hotness or {})
        self._lookups = lookups(schema, on_hardware)
        self._layouts = {
            f.name: make_layout(schema.table_of(f), schema)
            for f in schema.categorical
            if f not in {x.feature for x in self._lookups}
        }
        self.tables: dict[str, TableVariable] = {
            name: v for t in schema.tables if t.name not in on_hardware for name, v in make_variables(t, seed).items()
        }
        # In a plain object, which no checkpoint of TensorFlow's follows: `logical_tables` is how these are saved.
        self._own = types.SimpleNamespace(hardware=None, optimizer=None, samples=tuple(samples), calls=0)
        log_placement(placement, self.kind)

    @property
    def hardware(self) -> Hardware | None:
        """The embedding hardware, once compiled; None where no table is on it."""
        return self._own.hardware

    def compile(self, optimizer: RowOptimizer) -> None:
        """Makes the slots, and the tables on the embedding hardware, which needs to know the optimizer for that.

        Raises:
          ValueError: the hardware cannot do what the optimizer does, or was set up for another one already.
        """
        own = self._own
        if own.optimizer not in (None, optimizer):
            raise ValueError(
                "the embedding tables were compiled with another optimizer, and TPUs are set up for one only; make a"
                " new model, after tf.tpu.experimental.initialize_tpu_system()"
            )
        names = [t.name for t in self.placement.tables if t.kind == "tpu_embedding"]
        optimizer.build(self.tables, elsewhere=names)
        check_memory(self.placement, optimizer)
        if names and own.optimizer is None:
            tables = self._translated(names, optimizer)
            if self.kind == "V1":
                own.hardware = V1(tables, self._lookups, self.batch_size, self.seed)
            else:
                samples = [self._sample(batch) for batch in own.samples]
                own.hardware = SparseCore(tables, self._lookups, self.batch_size, self.seed, samples)
        own.optimizer = optimizer

    def map_batch(self, features: Features, *others: tf.Tensor) -> tuple[Any, ...]:
        """`host_map` for the elements of a dataset: (features, label[, weight])."""
        return (self.host_map(features), *others)

    def call(self, features: Features) -> list[tf.Tensor]:
        """The same as `lookup`."""
        return self.lookup(features)

    def prepare(self, features: Features) -> TPUIds:
        """What a batch looks up; `lookup` and `update` take it, one after the other.

        Args:
          features: of a batch that came through `host_map`.

        Raises:
          ValueError: it did not, or it has another size than all others.
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
        self._own.calls += 1
        ids = TPUIds({}, {}, {}, {}, tf.shape(counts)[0], tf.reduce_sum(counts, axis=0), f"call_{self._own.calls}")
        columns = iter(tf.unstack(features["ids"], axis=1) if "ids" in features else ())
        for f in self.schema.categorical:
            if f.name not in self._layouts:
                continue
            if f.multi_valued:
                weights = features[f.weights_name] if f.weights else None
                combiner = self.schema.table_of(f).combiner
                bags, there = padded_bags(features[f.name], weights, combiner, f.sequence_length)
                ids.bags[f.name], ids.there[f.name] = bags, there
            else:
                ids.bags[f.name] = one_hot_bags(next(columns))
        for x in self._lookups:
            ids.ids[x.key] = features[x.key]
            ids.weights[x.key] = features[x.feature.weights_name] if x.feature.weights else None
        return ids

    def lookup(self, features: Features | TPUIds) -> list[tf.Tensor]:
        """The vectors [B, dim] of each feature, in the order of `schema.categorical` and the compute dtype.

        Those of a feature with `sequence_length` are [B, sequence_length, dim].

        Raises:
          ValueError: some tables are on embedding hardware, and `compile` was not called.
        """
        ids = features if isinstance(features, TPUIds) else self.prepare(features)
        found: dict[str, tf.Tensor] = {}
        if self._lookups:
            if self.hardware is None:
                raise ValueError("the tables on embedding hardware are not there yet; call compile(optimizer) first")
            found, ids.token = self.hardware.look_up(ids.ids, ids.weights, ids.call)
        vectors = []
        for f in self.schema.categorical:
            if f.name in self._layouts:
                vectors.append(self._layouts[f.name].vectors(self.tables, ids.bags[f.name]))
            else:
                vectors.append(tf.concat([_of_sequence(f, found[x.key]) for x in self._lookups_of(f)], axis=-1))
        return [tf.cast(v, self.compute_dtype) for v in vectors]

    def update(self, features: TPUIds, gradients: Sequence[tf.Tensor | None], optimizer: RowOptimizer) -> None:
        """One step of `optimizer` on the rows that `features` look up, and on no others.

        Args:
          features: what was given to `lookup`.
          gradients: of the loss with respect to what `lookup` returned. None leaves that feature out; on embedding
            hardware its rows take a step with a gradient of 0.
          optimizer: that of `compile`.
        """
        by_lookup: dict[str, tf.Tensor | None] = {}
        uses: dict[str, list[LookupGradient]] = {}
        for f, gradient in zip(self.schema.categorical, gradients, strict=True):
            flat = None if gradient is None else tf.reshape(tf.cast(gradient, tf.float32), [-1, gradient.shape[-1]])
            if f.name not in self._layouts:
                own = self._lookups_of(f)
                pieces = [None] * len(own) if flat is None else tf.split(flat, len(own), axis=1)
                by_lookup |= {x.key: piece for x, piece in zip(own, pieces, strict=True)}
            elif flat is not None:
                for name, use in (
                    self._layouts[f.name].lookup_gradients(self.tables, features.bags[f.name], flat).items()
                ):
                    uses.setdefault(name, []).append(_only_there(use, features.there.get(f.name)))
        if self.hardware is not None:
            self.hardware.update(by_lookup, features.token)
        for name, own_uses in uses.items():
            table = self.tables[name]
            gradient = DenseGradient.of(own_uses, table.shape[0], features.batch_size)
            optimizer.step(name, table, optimizer.slots[name], gradient)
        optimizer.iterations.assign_add(1)

    def zeros(self, batch_size: int) -> list[tf.Tensor]:
        """What `lookup` would give for some examples if all rows were 0."""
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

    def _sample(self, batch: Features) -> dict[str, Any]:
        mapped = self.host_map(batch)
        count = mapped[OUT_OF_RANGE].shape[0]
        if count != self.batch_size:
            raise ValueError(
                f"a batch of samples has {count} examples; those of a replica have batch_size={self.batch_size}"
            )
        return mapped

    def _translated(self, names: Sequence[str], optimizer: RowOptimizer) -> list[HardwareTable]:
        translated: dict[int, Translated] = {}
        tables = []
        for name in names:
            rule = optimizer.rule(name)
            # One for each rule: tables that share one have one learning rate, and can be stacked.
            if id(rule) not in translated:
                translated[id(rule)] = translate(name, rule, optimizer.iterations, self.kind == "SparseCore")
            combiner = _combiner(name, self._lookups, self.schema)
            tables.append(HardwareTable(self.schema.table(name), combiner, translated[id(rule)]))
        return tables

    def _lookups_of(self, f: CategoricalFeature) -> list[Lookup]:
        return [x for x in self._lookups if x.feature is f]


def _of_sequence(f: CategoricalFeature, vectors: tf.Tensor) -> tf.Tensor:
    if f.sequence_length is None:
        return vectors
    return tf.reshape(vectors, [-1, f.sequence_length, vectors.shape[-1]])


def _only_there(use: LookupGradient, there: tf.Tensor | None) -> LookupGradient:
    """Without the places that fill up the values of examples; a row may have several places in a compressed table."""
    if there is None:
        return use
    times = use.rows.shape[0] // there.shape[0]
    return use._replace(rows=tf.where(tf.tile(there, [times]), use.rows, -1))


def _combiner(table: str, all_lookups: Sequence[Lookup], schema: Schema) -> Combiner:
    """That of all lookups in a table; sequences and single values are combined with nothing."""
    combined = [x.feature for x in all_lookups if x.table == table and x.feature.multi_valued]
    combiners = {schema.table_of(f).combiner for f in combined if f.sequence_length is None}
    if any(f.sequence_length is not None and f.weights for f in combined):
        combiners.add("sum")  # any other would take the weight off a bag of one row
    if len(combiners) > 1:
        raise ValueError(
            f"table {table!r} is on TPU embedding hardware, which combines the rows of a table in one way, and its"
            f" features need {', '.join(sorted(combiners))}; give them tables of their own, or replicate it"
        )
    return next(iter(combiners), "sum")
