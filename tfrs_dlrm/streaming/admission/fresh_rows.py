"""Begins rows of a table anew, with their slots."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfrs_dlrm.embeddings.variables import initial_values
from tfrs_dlrm.models.ranking import RankingModel


def begin_anew(model: RankingModel, table: str, rows: np.ndarray) -> None:
    """Gives rows the values and slots that they had at the beginning of the run.

    These values are a function of (seed, table, row), as in `EmbeddingTables`; vectors of `init_from` do not return.

    Args:
      model: compiled.
      table: of one variable, on one device.
      rows: int64 [k], ascending.
    """
    if not len(rows):
        return
    optimizer = model.embedding_optimizer
    model.embeddings.fetch()
    stored = model.embeddings.logical_tables(optimizer)
    of_table = model.embeddings.schema.table(table)
    stored[f"tables/{table}"].scatter(rows, initial_values(of_table, model.embeddings.seed, rows))
    for name, (initial, _) in optimizer.rule(table).slot_types().items():
        slot = stored[f"slots/{table}/{name}"]
        slot.scatter(rows, tf.fill([len(rows), *slot.shape[1:]], tf.constant(initial, slot.dtype)))
    model.embeddings.load()
