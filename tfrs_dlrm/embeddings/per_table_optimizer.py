"""A row optimizer that combines several."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfrs_dlrm.embeddings.optimizers import ROW_OPTIMIZERS
from tfrs_dlrm.embeddings.row_optimizer import RowOptimizer, Slot, Slots
from tfrs_dlrm.embeddings.storage import TableVariable

_NAMES = ", ".join(cls.__name__ for cls in ROW_OPTIMIZERS.values())


@keras.utils.register_keras_serializable(package="tfrs_dlrm")
class PerTableOptimizer(RowOptimizer):
    """Uses a different optimizer for some tables.

        PerTableOptimizer(RowWiseAdagrad(0.02), {"user": LazyAdam(0.001), "site": FTRL(0.05, l1=1e-4)})

    Args:
      default: the optimizer of all other tables.
      tables: optimizers by name of the table in the schema. Tables `stored_in` another table follow that table's.

    Raises:
      ValueError: an optimizer is not a row optimizer, or is a PerTableOptimizer. When built: a named table is unknown.
    """

    def __init__(self, default: RowOptimizer, tables: Mapping[str, RowOptimizer]) -> None:
        super().__init__(0.0)
        for name, optimizer in {"default": default, **tables}.items():
            if not isinstance(optimizer, RowOptimizer) or isinstance(optimizer, PerTableOptimizer):
                raise ValueError(
                    f"PerTableOptimizer: {name!r} is a {type(optimizer).__name__}; one of {_NAMES} is needed"
                )
        self.default = default
        self.per_table = dict(tables)

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


def _table_of(variable: str) -> str:
    """Returns the table that a variable is part of; see `Table.parts`."""
    return variable.removesuffix("__quotient").removesuffix("__remainder")
