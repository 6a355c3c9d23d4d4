"""A row optimizer that combines several."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfrs_dlrm.embeddings.keras_optimizers import as_row_optimizer
from tfrs_dlrm.embeddings.optimizers import ROW_OPTIMIZERS
from tfrs_dlrm.embeddings.row_optimizer import Rate, RowOptimizer, Slot, Slots
from tfrs_dlrm.embeddings.storage import TableVariable

_NAMES = ", ".join(cls.__name__ for cls in ROW_OPTIMIZERS.values())


@keras.utils.register_keras_serializable(package="tfrs_dlrm")
class PerTableOptimizer(RowOptimizer):
    """Uses a different optimizer for some tables.

        PerTableOptimizer(RowWiseAdagrad(0.02), {"user": LazyAdam(0.001), "site": FTRL(0.05, l1=1e-4)})

    Args:
      default: the optimizer of all other tables; see `as_row_optimizer` for names and Keras optimizers.
      tables: optimizers by name of the table in the schema. Tables `stored_in` another table follow that table's.

    Raises:
      ValueError: an optimizer is not a row optimizer, or is a PerTableOptimizer. When built: a named table is unknown.
    """

    def __init__(self, default: Any, tables: Mapping[str, Any]) -> None:
        super().__init__(0.0)
        self.default = _rule("default", default)
        self.per_table = {name: _rule(name, optimizer) for name, optimizer in tables.items()}

    @property
    def learning_rate(self) -> Rate:
        """The learning rate of the default. Set the rates of `default` and of each of `per_table`.

        Raises:
          TypeError: when set.
        """
        return self.default.learning_rate

    @learning_rate.setter
    def learning_rate(self, rate: Rate) -> None:
        tables = ", ".join(map(repr, self.per_table))
        raise TypeError(
            f"PerTableOptimizer.learning_rate={rate}: each of its optimizers has a learning rate; set"
            f" optimizer.default.learning_rate, or optimizer.per_table[NAME].learning_rate for {tables}"
        )

    @property
    def rules(self) -> Sequence[RowOptimizer]:
        """The optimizers of all tables."""
        return [self.default, *self.per_table.values()]

    def build(self, tables: Mapping[str, TableVariable], elsewhere: Collection[str] = ()) -> None:
        """See `RowOptimizer.build`."""
        known = {_table_of(name) for name in tables} | {*tables, *elsewhere}
        for name in self.per_table:
            if name not in known:
                raise ValueError(
                    f"PerTableOptimizer names table {name!r}, which stores no rows; name one of"
                    f" {', '.join([*tables, *elsewhere])}"
                )
        super().build(tables, elsewhere)

    def rule(self, name: str) -> RowOptimizer:
        """Returns the optimizer of a table, or of the table that a variable is part of."""
        return self.per_table.get(name) or self.per_table.get(_table_of(name)) or self.default

    def slot_types(self) -> dict[str, Slot]:
        """Returns the slots of the default."""
        return self.default.slot_types()

    def row_step(
        self, w: tf.Tensor, g: tf.Tensor, slots: Slots, rate: tf.Tensor, step: tf.Tensor
    ) -> tuple[tf.Tensor, Slots]:
        """Takes the step of the default."""
        return self.default.row_step(w, g, slots, rate, step)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        dump = keras.utils.legacy.serialize_keras_object
        return {"default": dump(self.default), "tables": {name: dump(o) for name, o in self.per_table.items()}}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> PerTableOptimizer:
        """Makes an optimizer from `get_config`."""
        read = keras.utils.legacy.deserialize_keras_object
        return cls(read(config["default"]), {name: read(o) for name, o in config["tables"].items()})


def _rule(name: str, given: Any) -> RowOptimizer:
    optimizer = as_row_optimizer(given, f"PerTableOptimizer: {name!r}")
    if isinstance(optimizer, PerTableOptimizer):
        raise ValueError(f"PerTableOptimizer: {name!r} is a PerTableOptimizer; one of {_NAMES} is needed")
    return optimizer


def _table_of(variable: str) -> str:
    """Returns the table that a variable is part of; see `Table.parts`."""
    return variable.removesuffix("__quotient").removesuffix("__remainder")
