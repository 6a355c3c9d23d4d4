"""The layer that holds the embedding tables of a schema."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras

from tfrs_dlrm.distribute.placement import Places
from tfrs_dlrm.embeddings import exchange
from tfrs_dlrm.embeddings.gradients import LookupGradient
from tfrs_dlrm.embeddings.ids import Features, IdReader, PreparedIds
from tfrs_dlrm.embeddings.layouts import make_layout
from tfrs_dlrm.embeddings.row_optimizer import RowOptimizer
from tfrs_dlrm.embeddings.storage import LogicalTable, TableVariable, check_shapes, logical_tables
from tfrs_dlrm.embeddings.variables import make_variables
from tfrs_dlrm.schema import Schema, check_schema


@keras.utils.register_keras_serializable(package="tfrs_dlrm")
class EmbeddingTables(keras.layers.Layer):
    """Every embedding table of a schema, behind two verbs: `lookup` and `update`.

        tables = EmbeddingTables(schema)
        optimizer = RowWiseAdagrad()
        optimizer.build(tables.tables)

        activations = tables.lookup(features)
        ...gradients of the loss with respect to the activations...
        tables.update(features, gradients, optimizer)

    The cost of an update depends on the batch, not on the table size. The layer is also an ordinary differentiable
    Keras layer: call it in any model, with any Keras optimizer.

    Rows have the dtype of `Table.dtype`, float32 by default, under every dtype policy. Checkpoints name the variables
    `tables/<name>`, by table or, if it is compressed, by part (`Table.parts`). Ids outside the table follow the
    feature's `out_of_range` policy; `prepare` counts them.

    Args:
      schema: the features, and the tables with their sizes.
      seed: the initial values are a function of (seed, name of the table).
      places: the devices of sharded variables; by default none is sharded. Sharded variables are no weights of the
        layer, because only row optimizers can train them: `tables` has a `ShardedTable` for each.

    Raises:
      ValueError: a table has no vocabulary_size.
    """

    # The names of the tables on TPU embedding hardware, which needs `TPUEmbeddingTables`.
    on_hardware: tuple[str, ...] = ()

    def __init__(self, schema: Schema, seed: int = 0, places: Places | None = None, **kwargs: Any) -> None:
        check_schema(type(self).__name__, schema)
        super().__init__(autocast=False, **kwargs)  # the weights of multi-valued features stay float32
        self.schema = schema
        self.seed = seed
        self._read = IdReader(schema)
        self._layouts = [make_layout(schema.table_of(f), schema) for f in schema.categorical]
        # Not `add_weight`: under mixed precision its variables are cast as a whole on each read.
        self.tables: dict[str, TableVariable] = {
            name: v for t in schema.tables for name, v in make_variables(t, seed, places).items()
        }

    def compile(self, optimizer: RowOptimizer) -> None:
        """Makes the slots of the tables."""
        optimizer.build(self.tables)

    def call(self, features: Features) -> list[tf.Tensor]:
        """Calls `lookup`."""
        return self.lookup(features)

    def prepare(self, features: Features) -> PreparedIds:
        """Reads the ids of a batch once for `lookup` and `update`, which take the result in place of the features.

        Args:
          features: an encoded batch: `ids` int [B, len(schema.one_hot)], and under the name of each multi-valued
            feature its rows, a RaggedTensor or SparseTensor int [B, None], or a Tensor int [B, L] padded with -1, with
            weights float32 of the same form under `<name>_weights`. Of a SparseTensor only the order of the values in
            a row counts, as in `tf.nn.embedding_lookup_sparse`. Other keys are ignored.

        Raises:
          ValueError: a feature is missing, or has a wrong shape or type.
          tf.errors.InvalidArgumentError: an id is out of range and the policy of its feature is `error`.
        """
        return self._read(features)

    def lookup(self, features: Features | PreparedIds) -> list[tf.Tensor]:
        """Returns the vectors [B, dim] of each feature, in the order of `schema.categorical` and the compute dtype.

        The vectors of a feature with `sequence_length` are [B, sequence_length, dim].
        """
        prepared = features if isinstance(features, PreparedIds) else self.prepare(features)
        return self.vectors_of(prepared, range(len(self._layouts)))

    def vectors_of(self, prepared: PreparedIds, features: Iterable[int]) -> list[tf.Tensor]:
        """Returns what `lookup` does, of some features, by their places in `schema.categorical`."""
        pairs = ((self._layouts[i], prepared.bags[i]) for i in features)
        return [tf.cast(layout.vectors(self.tables, bags), self.compute_dtype) for layout, bags in pairs]

    def update(
        self, features: Features | PreparedIds, gradients: Sequence[tf.Tensor | None], optimizer: RowOptimizer
    ) -> None:
        """Takes one step of `optimizer` on the rows that `features` look up.

        Args:
          features: the argument of `lookup`.
          gradients: of the loss with respect to the result of `lookup`; None skips a feature. Features of tables that
            are not trainable are skipped too.
          optimizer: built for `self.tables`.
        """
        prepared = features if isinstance(features, PreparedIds) else self.prepare(features)
        by_variable: dict[str, list[LookupGradient]] = {}
        chunked: set[str] = set()
        complete = {t.name for t in self.schema.tables}  # an order sorts all ids of its table
        for feature, layout, bags, gradient in zip(
            self.schema.categorical, self._layouts, prepared.bags, gradients, strict=True
        ):
            if not self.schema.trains(feature):
                continue
            if gradient is None or feature.sequence_length is not None:
                complete.discard(feature.table)
            if gradient is not None:
                # The gradient of a concatenation of many may have an unknown width.
                flat = tf.reshape(tf.cast(gradient, tf.float32), [-1, self.schema.table_of(feature).dim])
                for name, of_variable in layout.lookup_gradients(self.tables, bags, flat).items():
                    by_variable.setdefault(name, []).append(of_variable)
                    if not bags.one_row_each:
                        chunked.add(name)
        orders = {name: order for name, order in prepared.orders.items() if name in complete}
        exchange.update(self.tables, optimizer, by_variable, prepared.batch_size, chunked, orders)

    def logical_tables(self, optimizer: RowOptimizer | None = None) -> dict[str, LogicalTable]:
        """Returns all tables as `tables/<name>`, and the slots of an optimizer as `slots/<table>/<slot>`.

        Call `fetch` before reading them after a step, and `load` after writing to them.
        """
        return logical_tables(self.tables, {} if optimizer is None else optimizer.slots)

    def fetch(self) -> None:
        """Does nothing: `logical_tables` reads the variables. TPU hardware needs it."""

    def load(self) -> None:
        """Does nothing: `logical_tables` writes the variables. TPU hardware needs it."""

    def save_own_variables(self, store: MutableMapping[str, np.ndarray]) -> None:
        """Writes whole tables to a `.keras` or `.weights.h5` file; Keras calls this.

        bfloat16 tables are written as float32, which has all their values: HDF5 has no bfloat16.
        """
        for name, table in self.tables.items():
            store[name] = table.numpy().astype(np.float32)

    def load_own_variables(self, store: Mapping[str, Any]) -> None:
        """Overwrites the tables with those of a file; Keras calls this.

        Raises:
          ValueError: the file has other tables, or tables of other sizes. Nothing was overwritten then.
        """
        check_shapes({name: store[name].shape for name in store}, self.tables)
        for name, table in self.tables.items():
            table.assign(np.asarray(store[name]).astype(table.dtype.as_numpy_dtype))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor, the schema as JSON."""
        return super().get_config() | {"schema": json.loads(self.schema.to_json()), "seed": self.seed}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> EmbeddingTables:
        """Makes a layer from `get_config`."""
        return cls(**(config | {"schema": Schema.from_json(json.dumps(config["schema"]))}))
