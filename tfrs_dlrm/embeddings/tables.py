"""The embedding tables of a schema."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfrs_dlrm.distribute.placement import Places
from tfrs_dlrm.embeddings import exchange
from tfrs_dlrm.embeddings.gradients import Use
from tfrs_dlrm.embeddings.ids import Features, IdReader, PreparedIds
from tfrs_dlrm.embeddings.layouts import make_layout
from tfrs_dlrm.embeddings.row_optimizer import RowOptimizer
from tfrs_dlrm.embeddings.storage import LogicalTable, TableVariable, logical_tables
from tfrs_dlrm.embeddings.variables import make_variables
from tfrs_dlrm.schema import Schema


@keras.utils.register_keras_serializable(package="tfrs_dlrm")
class EmbeddingTables(keras.layers.Layer):
    """Every embedding table of a schema, behind two verbs: `lookup` and `update`.

        tables = EmbeddingTables(schema)
        optimizer = RowWiseAdagrad()
        optimizer.build(tables.tables)

        activations = tables.lookup(features)
        ...gradients of the loss with respect to the activations...
        tables.update(features, gradients, optimizer)

    What an update costs depends on the batch and not on the size of the tables. The layer is an ordinary
    differentiable Keras layer as well: in a model of your own, with any Keras optimizer, just call it.

    Rows are stored as `Table.dtype` says, float32 by default, under every dtype policy. Checkpoints know the variables
    as `tables/<name>`, the name being that of the table, or of its parts (`Table.parts`) where it is compressed. An id
    that is no row of its table becomes what its feature's `out_of_range` says; `prepare` counts them.

    Args:
      schema: names the features and the tables, with the rows of each.
      seed: makes the initial values a function of (seed, name of the table).
      places: which variables are shared out among devices, and how; by default none is. Those are no weights of the
        layer, since only the row optimizers can train them: `tables` has a `ShardedTable` for each.

    Raises:
      ValueError: a table has no rows.
    """

    def __init__(self, schema: Schema, seed: int = 0, places: Places | None = None, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)  # weights of values stay float32
        self.schema = schema
        self.seed = seed
        self._read = IdReader(schema)
        self._layouts = [make_layout(schema.table_of(f), schema) for f in schema.categorical]
        # Not `add_weight`: under mixed precision that makes variables which are cast, all of them, to be read.
        self.tables: dict[str, TableVariable] = {
            name: v for t in schema.tables for name, v in make_variables(t, seed, places).items()
        }

    def compile(self, optimizer: RowOptimizer) -> None:
        """Makes the slots of the tables."""
        optimizer.build(self.tables)

    def call(self, features: Features) -> list[tf.Tensor]:
        """The same as `lookup`."""
        return self.lookup(features)

    def prepare(self, features: Features) -> PreparedIds:
        """What a batch looks up; `lookup` and `update` take it in place of the features, to do it once for both.

        Args:
          features: of an encoded batch: `ids` int [B, len(schema.one_hot)], and under the name of each multi-valued
            feature its rows, a RaggedTensor or SparseTensor int [B, None], or a Tensor int [B, L] where each example
            has L values, with weights float32 of the same form under `<name>_weights`. Others are ignored.

        Raises:
          ValueError: one of them is missing, or has another shape or type.
          tf.errors.InvalidArgumentError: an id is out of range and its feature says `error`.
        """
        return self._read(features)

    def lookup(self, features: Features | PreparedIds) -> list[tf.Tensor]:
        """The vectors [B, dim] of each feature, in the order of `schema.categorical` and the compute dtype.

        Those of a feature with `sequence_length` are [B, sequence_length, dim].
        """
        prepared = features if isinstance(features, PreparedIds) else self.prepare(features)
        pairs = zip(self._layouts, prepared.bags, strict=True)
        return [tf.cast(layout.vectors(self.tables, bags), self.compute_dtype) for layout, bags in pairs]

    def update(
        self, features: Features | PreparedIds, gradients: Sequence[tf.Tensor | None], optimizer: RowOptimizer
    ) -> None:
        """One step of `optimizer` on the rows that `features` look up, and on no others.

        Args:
          features: what was given to `lookup`.
          gradients: of the loss with respect to what `lookup` returned; None leaves that feature out.
          optimizer: built for `self.tables`.
        """
        prepared = features if isinstance(features, PreparedIds) else self.prepare(features)
        uses: dict[str, list[Use]] = {}
        in_parts: set[str] = set()
        complete = {t.name for t in self.schema.tables}  # an order is of all ids of its table
        for feature, layout, bags, gradient in zip(
            self.schema.categorical, self._layouts, prepared.bags, gradients, strict=True
        ):
            if gradient is None or feature.sequence_length is not None:
                complete.discard(feature.table)
            if gradient is not None:
                # That of a concatenation of many does not know its width.
                flat = tf.reshape(tf.cast(gradient, tf.float32), [-1, self.schema.table_of(feature).dim])
                for name, use in layout.uses(self.tables, bags, flat).items():
                    uses.setdefault(name, []).append(use)
                    if not bags.one_row_each:
                        in_parts.add(name)
        orders = {name: order for name, order in prepared.orders.items() if name in complete}
        exchange.update(self.tables, optimizer, uses, prepared.batch_size, in_parts, orders)

    def logical_tables(self, optimizer: RowOptimizer | None = None) -> dict[str, LogicalTable]:
        """All tables as `tables/<name>`, and the slots of an optimizer as `slots/<table>/<slot>`.

        Between `fetch` and the next step they are as they are; what is written to them counts after `load`.
        """
        return logical_tables(self.tables, {} if optimizer is None else optimizer.slots)

    def fetch(self) -> None:
        """Nothing: `logical_tables` reads the tables themselves. Some hardware keeps them where it cannot."""

    def load(self) -> None:
        """Nothing, likewise."""

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor, the schema as JSON."""
        return super().get_config() | {"schema": json.loads(self.schema.to_json()), "seed": self.seed}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> EmbeddingTables:
        """Reads `get_config`."""
        return cls(**(config | {"schema": Schema.from_json(json.dumps(config["schema"]))}))
