"""How Keras saves and loads a ranking model: its files, its weights, and the arguments of `compile`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_recommenders as tfrs
import tf_keras as keras
from absl import logging

from tfrs_dlrm.embeddings.row_optimizer import RowOptimizer
from tfrs_dlrm.embeddings.storage import ShardedTable, TableVariable, check_shapes
from tfrs_dlrm.embeddings.tables import EmbeddingTables
from tfrs_dlrm.embeddings.tpu import TPUEmbeddingTables
from tfrs_dlrm.models import keras_files


@dataclasses.dataclass(frozen=True)
class CompileArguments:
    """The arguments of `compile` that the optimizers do not tell. A plain object, which no checkpoint follows.

    Attributes:
      metrics: of each label, if any were given.
      options: the arguments of `keras.Model.compile` to repeat, by name.
    """

    metrics: Sequence[Sequence[keras.metrics.Metric]] | None
    options: dict[str, Any]


class KerasSaving(tfrs.models.Model):
    """The part of `RankingModel` that Keras calls to save and load models and weights.

    A row optimizer is no object that Keras knows, so this class saves its variables. In `.keras` and `.weights.h5`
    files, the model has the shapes of its tables (`table_shapes/NAME`, by which other tables are refused before
    anything is overwritten) and the variables of the row optimizer (`embedding_optimizer/slots/TABLE/SLOT`,
    `embedding_optimizer/iterations` and others).
    """

    embeddings: EmbeddingTables | TPUEmbeddingTables
    embedding_optimizer: RowOptimizer
    _compile_arguments: CompileArguments | None = None

    def save(self, filepath: Any, overwrite: bool = True, save_format: str | None = None, **kwargs: Any) -> None:
        """Saves the model as Keras does; see `keras.Model.save`.

        `.keras` files hold whole tables, also those that are sharded over devices. If saving fails, an existing file
        stays as it was, and no other is left.

        Raises:
          ValueError: tables are on a TPU, or sharded and saved as a SavedModel.
        """
        self.build()
        is_keras = keras_files.is_keras(filepath, save_format)
        self._check_saving(whole_tables=is_keras)
        if not is_keras and self._has_legacy_optimizer():
            logging.warning(
                "%s: a SavedModel does not keep the slots of keras.optimizers.legacy.%s; save as .keras, which does",
                *(filepath, type(self.optimizer).__name__),
            )
        with keras_files.whole_file(filepath, overwrite and is_keras) as path:
            super().save(path, overwrite=overwrite, save_format=save_format, **kwargs)

    def save_weights(
        self, filepath: Any, overwrite: bool = True, save_format: str | None = None, options: Any = None
    ) -> None:
        """Saves the weights as Keras does; see `keras.Model.save_weights`.

        `.weights.h5` files hold whole tables, also those that are sharded over devices. bfloat16 tables are stored as
        float32. If saving fails, an existing file stays as it was, and no other is left.

        Raises:
          ValueError: tables are on a TPU, or sharded and saved in another format than `.weights.h5`.
        """
        self.build()
        whole_tables = keras_files.writes_objects(filepath)
        is_hdf5 = keras_files.is_hdf5(filepath, save_format)
        self._check_saving(whole_tables)
        with keras_files.whole_file(filepath, overwrite and (whole_tables or is_hdf5)) as path:
            super().save_weights(path, overwrite=overwrite, save_format=save_format, options=options)
            if is_hdf5:
                keras_files.widen_bfloat16(path)

    def load_weights(
        self, filepath: Any, skip_mismatch: bool = False, by_name: bool = False, options: Any = None
    ) -> Any:
        """Loads weights as Keras does; see `keras.Model.load_weights`.

        Raises:
          ValueError: the file has other tables, or tables of other sizes; nothing was overwritten. Or tables are
            sharded, and the file is none that holds whole tables.
        """
        self.build()
        if not keras_files.writes_objects(filepath):  # whose tables `load_own_variables` checks
            self._check_saving(whole_tables=False)
            shapes = keras_files.table_shapes(filepath, self.embeddings.name)
            if shapes is not None and not by_name:
                check_shapes(shapes, self.embeddings.tables)
        return super().load_weights(filepath, skip_mismatch=skip_mismatch, by_name=by_name, options=options)

    def get_weights(self) -> list[np.ndarray]:
        """Returns all weights as Keras does, also tables that are sharded over devices.

        Raises:
          ValueError: tables are on a TPU.
        """
        self._check_saving()
        return super().get_weights() if not self._sharded() else [v.numpy() for v in self._all_weights()]

    def set_weights(self, weights: list[np.ndarray]) -> None:
        """Sets all weights as Keras does, also tables that are sharded over devices.

        Raises:
          ValueError: tables are on a TPU, or the number or the shapes of the weights differ from the model's.
        """
        self._check_saving()
        if not self._sharded():
            super().set_weights(weights)
            return
        variables = self._all_weights()
        shapes = [tuple(v.shape) for v in variables], [np.shape(w) for w in weights]
        if shapes[0] != shapes[1]:
            raise ValueError(f"weights of shapes {shapes[1]}; the model {self.name!r} has {shapes[0]}")
        for variable, values in zip(variables, weights, strict=True):
            variable.assign(values)

    def save_own_variables(self, store: MutableMapping[str, np.ndarray]) -> None:
        """Writes the shapes of the tables and the variables of the row optimizer to a file; Keras calls this."""
        super().save_own_variables(store)
        for name, table in self.embeddings.tables.items():
            store[f"table_shapes/{name}"] = np.array(table.shape)
        if self._compile_arguments is not None:
            for name, variable in optimizer_variables(self.embedding_optimizer).items():
                store[f"embedding_optimizer/{name}"] = variable.numpy()
            if self._has_legacy_optimizer():  # whose variables Keras leaves out
                for i, values in enumerate(self.optimizer.get_weights()):
                    store[f"legacy_optimizer/{i}"] = values

    def load_own_variables(self, store: Mapping[str, Any]) -> None:
        """Overwrites the variables of the row optimizer with those of a file; Keras calls this.

        If the file has none, or those of another row optimizer, they stay as they are.

        Raises:
          ValueError: the file has other tables, or tables of other sizes. Nothing was overwritten then.
        """
        shapes = store.get("table_shapes", {})
        check_shapes({name: np.asarray(shapes[name]) for name in shapes}, self.embeddings.tables)
        super().load_own_variables({name: store[name] for name in store if name.isdigit()})
        if self._compile_arguments is None or "embedding_optimizer" not in store:
            return
        slots = store.get("legacy_optimizer", {})
        if len(slots) and self._has_legacy_optimizer():
            self.optimizer._create_all_weights(self.dense_variables)
            self.optimizer.set_weights([np.asarray(slots[str(i)]) for i in range(len(slots))])
        saved = store["embedding_optimizer"]
        variables = optimizer_variables(self.embedding_optimizer)
        if any(n not in saved or tuple(saved[n].shape) != tuple(v.shape) for n, v in variables.items()):
            logging.warning(
                "%s: the weights were saved with another row optimizer than %s, whose slots stay as they are",
                *(self.name, type(self.embedding_optimizer).__name__),
            )
            return
        for name, variable in variables.items():
            variable.assign(np.asarray(saved[name]))

    def get_compile_config(self) -> dict[str, Any] | None:
        """Returns the arguments of `compile`, and which layers are frozen, as JSON; None before `compile`."""
        if self._compile_arguments is None:
            return None
        metrics = self._compile_arguments.metrics
        return self._compile_arguments.options | {
            "optimizer": keras.utils.serialize_keras_object(self.optimizer),
            "embedding_optimizer": keras.utils.serialize_keras_object(self.embedding_optimizer),
            "metrics": metrics and [[keras.utils.serialize_keras_object(m) for m in of_label] for of_label in metrics],
            "frozen": [i for i, layer in enumerate(self._sublayers()) if not layer.trainable],
        }

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles the model with the result of `get_compile_config`."""
        arguments = dict(config)
        layers = self._sublayers()
        for i in arguments.pop("frozen"):
            layers[i].trainable = False
        metrics = arguments.pop("metrics")
        row_optimizer = arguments.pop("embedding_optimizer")
        self.compile(
            optimizer=_deserialized(arguments.pop("optimizer"), keras.optimizers.deserialize),
            embedding_optimizer=_deserialized(row_optimizer, keras.utils.legacy.deserialize_keras_object),
            metrics=metrics
            and [[_deserialized(m, keras.metrics.deserialize) for m in of_label] for of_label in metrics],
            **arguments,
        )

    def compile_from_saved_model(self) -> None:
        """Compiles a model that Keras loads from a SavedModel, with the optimizers as they were saved.

        Keras loads their variables into objects of no use, and then compiles with an optimizer of its own making.
        """
        restored = self.optimizer, self.embedding_optimizer
        saved = self._serialized_attributes["metadata"]["training_config"]["ranking_model"]
        self.compile_from_config(json.loads(saved))
        for old, new in zip(restored, (self.optimizer, self.embedding_optimizer), strict=True):
            loaded = optimizer_variables(old)
            for name, variable in optimizer_variables(new).items():
                if name in loaded:  # legacy Keras optimizers make slots later
                    variable.assign(loaded[name])

    def _get_compile_args(self, user_metrics: bool = True) -> dict[str, Any]:
        """Returns what a SavedModel stores of `compile`: in Keras' format, which has no row optimizer, and in ours."""
        del user_metrics
        unused = dict.fromkeys(("loss", "metrics", "weighted_metrics", "loss_weights"))
        return {
            "optimizer": self.optimizer,
            **unused,
            "ranking_model": json.dumps(self.get_compile_config(), default=float),
        }

    def _sublayers(self) -> list[keras.layers.Layer]:
        found = self._flatten_layers(include_self=False)
        return [layer for layer in found if not isinstance(layer, keras.metrics.Metric)]

    def _has_legacy_optimizer(self) -> bool:
        return isinstance(getattr(self, "optimizer", None), keras.optimizers.legacy.Optimizer)

    def _sharded(self) -> list[str]:
        return [name for name, t in self.embeddings.tables.items() if isinstance(t, ShardedTable)]

    def _all_weights(self) -> list[TableVariable]:
        """Returns tables and weights in the order of `weights`, where they were if no table was sharded."""
        tables = [table for _, table in sorted(self.embeddings.tables.items())]
        known = {id(t) for t in tables}
        return [*tables, *(v for v in self.weights if id(v) not in known)]

    def _check_saving(self, whole_tables: bool = True) -> None:
        """Checks that Keras reaches the tables.

        Args:
          whole_tables: whether the format holds whole tables, not the variables that hold their shards.

        Raises:
          ValueError: it does not.
        """
        instead = "use td.save_checkpoint and td.restore_checkpoint, which work under any strategy"
        if isinstance(self.embeddings, TPUEmbeddingTables):
            raise ValueError(f"tables on a TPU are no weights of a Keras model; {instead}")
        if not whole_tables and self._sharded():
            raise ValueError(
                f"tables {', '.join(self._sharded())} are sharded over devices, and this format does not hold whole"
                f" tables; save as .keras or .weights.h5, which do, or {instead}"
            )


def optimizer_variables(optimizer: Any, prefix: str = "") -> dict[str, TableVariable]:
    """Returns all variables of a row optimizer or a Keras optimizer, and of optimizers in it, by the path to them."""
    found: dict[str, TableVariable] = {}
    for name, child in tf.train.TrackableView.children(optimizer).items():
        if isinstance(child, (tf.Variable, ShardedTable)):
            found[prefix + name] = child
        else:
            found |= optimizer_variables(child, f"{prefix}{name}/")
    return found


def _deserialized(config: Any, legacy: Callable[[Any], Any]) -> Any:
    """Makes an object from `serialize_keras_object`. Inside a SavedModel that names no module; `legacy` reads it."""
    return keras.utils.deserialize_keras_object(config) if "module" in config else legacy(config)
