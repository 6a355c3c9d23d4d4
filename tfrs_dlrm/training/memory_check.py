"""Whether the tables of a run fit in the memory that is left, before TensorFlow aborts for lack of it."""

from __future__ import annotations

import tensorflow as tf

from tfrs_dlrm.config import RunConfig
from tfrs_dlrm.distribute.memory import available_memory
from tfrs_dlrm.distribute.placement import place, size_text
from tfrs_dlrm.distribute.strategies import Distribution
from tfrs_dlrm.embeddings.row_optimizer import RowOptimizer
from tfrs_dlrm.schema import Schema

# Strategies whose tables are in the memory of this process, unless it has GPUs. `multi_worker` checks it itself.
_HERE = ("one_device", "mirrored")


def check_memory(
    config: RunConfig, schema: Schema, distribution: Distribution, optimizer: RowOptimizer | None = None
) -> None:
    """Makes sure that the tables of a model, and the slots of their optimizer, fit in this machine's free memory.

    The limit of a container counts as well. What else a run needs is not counted, so some runs that pass do not fit.

    Args:
      config: the run.
      schema: of its data.
      distribution: of the strategy in scope.
      optimizer: of the rows; None for a model that is not trained.

    Raises:
      ValueError: they do not fit; the message says what is needed and left.
    """
    available = available_memory()
    if available is None or distribution.name not in _HERE or tf.config.list_physical_devices("GPU"):
        return
    tables = place(config.model.table_schema(config.model.schema(schema)), distribution.topology).tables
    slots = 0
    if optimizer is not None:
        for table in tables:
            kinds = optimizer.rule(table.name).slot_types().values()
            slots += table.rows * sum(4 if per_row else 4 * table.dim for _, per_row in kinds)
    size = sum(table.bytes for table in tables)
    if size + slots > available:
        parts = f"{size_text(size)} for tables"
        parts += f" and {size_text(slots)} for the slots of their optimizer" if slots else ""
        raise ValueError(
            f"too little memory: the model needs {parts}, and {size_text(available)} are free on this machine (or in"
            " its container). Use smaller tables (docs/guides/embeddings.md), --strategy=parameter_server,"
            " or a larger machine; tfrs-dlrm plan shows what a run needs"
        )
