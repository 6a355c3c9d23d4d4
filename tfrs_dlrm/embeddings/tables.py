"""The embedding tables of a schema on one device."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfrs_dlrm.embeddings.bags import Bags, multi_hot_bags, one_hot_bags, pool, row_gradient
from tfrs_dlrm.embeddings.updates import RowOptimizer
from tfrs_dlrm.schema import Schema, Table
from tfrs_dlrm.seeds import derive_seed

Features = Mapping[str, tf.Tensor | tf.RaggedTensor]


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

    Tables are float32 under every dtype policy and checkpoints know them as `tables/<name of the table>`. Ids must be
    rows of their table, as the encoder makes them: on CPUs an id outside raises `InvalidArgumentError`, on GPUs
    TensorFlow answers it with zeros and says nothing.

    Args:
      schema: names the features and the tables, with the rows of each.
      seed: makes the initial values a function of (seed, name of the table).

    Raises:
      ValueError: a table has no rows.
    """

    def __init__(self, schema: Schema, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)  # weights of values stay float32
        self.schema = schema
        self.seed = seed
        # Not `add_weight`: under mixed precision that makes variables which are cast, all of them, to be read.
        self.tables = {t.name: tf.Variable(_initial_values(t, seed), name=f"tables/{t.name}") for t in schema.tables}

    def call(self, features: Features) -> list[tf.Tensor]:
        """The same as `lookup`."""
        return self.lookup(features)

    def lookup(self, features: Features) -> list[tf.Tensor]:
        """The vectors [B, dim] of each feature, in the order of `schema.categorical` and the compute dtype.

        Args:
          features: of an encoded batch: `ids` int [B, len(schema.one_hot)], and under the name of each multi-valued
            feature a RaggedTensor int [B, None], with its weights float32 under `<name>_weights`. Others are ignored.

        Raises:
          ValueError: one of them is missing, or `ids` has another width.
        """
        bags = zip(self.schema.categorical, self._bags(features), strict=True)
        return [tf.cast(pool(self.tables[f.table], b), self.compute_dtype) for f, b in bags]

    def update(self, features: Features, gradients: Sequence[tf.Tensor | None], optimizer: RowOptimizer) -> None:
        """One step of `optimizer` on the rows that `features` look up, and on no others.

        Args:
          features: what was given to `lookup`.
          gradients: of the loss with respect to what `lookup` returned; None leaves that feature out.
          optimizer: built for `self.tables`.
        """
        uses: dict[str, list[tuple[Bags, tf.Tensor]]] = {}
        for feature, bags, gradient in zip(self.schema.categorical, self._bags(features), gradients, strict=True):
            if gradient is not None:
                uses.setdefault(feature.table, []).append((bags, gradient))
        optimizer.apply_gradients(self.tables, {name: row_gradient(of_table) for name, of_table in uses.items()})

    def _bags(self, features: Features) -> list[Bags]:
        """What the batch looks up in each of `schema.categorical`."""
        one_hot = self._one_hot_rows(features)
        out = []
        for feature in self.schema.categorical:
            if feature.multi_valued:
                rows = self._get(features, feature.name)
                weights = self._get(features, feature.weights_name) if feature.weights else None
                out.append(multi_hot_bags(rows, weights, self.schema.table_of(feature).combiner))
            else:
                out.append(one_hot_bags(one_hot[feature.name]))
        return out

    def _one_hot_rows(self, features: Features) -> dict[str, tf.Tensor]:
        """The rows int [B] of each feature with one value."""
        names = [f.name for f in self.schema.one_hot]
        if not names:
            return {}
        ids = self._get(features, "ids")
        if ids.shape.rank != 2 or ids.shape[1] != len(names):
            raise ValueError(f"ids of shape {ids.shape}; [B, {len(names)}] is needed, one column each for {names}")
        return dict(zip(names, tf.unstack(ids, axis=1), strict=True))

    def _get(self, features: Features, key: str) -> Any:
        if key not in features:
            raise ValueError(f"the batch has no {key!r}, only {sorted(features)}; was it encoded by another schema?")
        return features[key]

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor, the schema as JSON."""
        return super().get_config() | {"schema": json.loads(self.schema.to_json()), "seed": self.seed}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> EmbeddingTables:
        """Reads `get_config`."""
        return cls(**(config | {"schema": Schema.from_json(json.dumps(config["schema"]))}))


def _initial_values(table: Table, seed: int) -> tf.Tensor:
    """float32 [rows, dim]."""
    if table.rows is None:
        raise ValueError(
            f"table {table.name!r} has no rows yet; take the schema that `prepare` wrote, where the sizes of the"
            " vocabularies are filled in, or set rows"
        )
    shape = [table.rows, table.dim]
    scale = 1 / math.sqrt(table.rows) if table.scale is None else table.scale
    # Philox by name, since the default generator differs between kinds of devices.
    kwargs = {"seed": [0, derive_seed(seed, f"tables/{table.name}")], "alg": "philox"}
    if table.initializer == "uniform":
        return tf.random.stateless_uniform(shape, minval=-scale, maxval=scale, **kwargs)
    if table.initializer == "normal":
        return tf.random.stateless_normal(shape, stddev=scale, **kwargs)
    return tf.zeros(shape)
