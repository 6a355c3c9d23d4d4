"""The vectors of a table's rows, some at a time, however they are stored."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from tfrs_dlrm.embeddings.bags import one_hot_bags
from tfrs_dlrm.embeddings.layouts import make_layout
from tfrs_dlrm.models.ranking import RankingModel

# 32 MB of float64.
_NUMBERS_AT_A_TIME = 1 << 22


def vectors(model: RankingModel, table: str, first: int, last: int) -> np.ndarray:
    """Those of rows `first` to `last`, float64 [last - first, dim of the vectors].

    A linear weight behind the vector is no part of it, see `RankingModel.linear_weights`.
    """
    layout = make_layout(model.schema.table(table), model.schema)
    rows = tf.range(first, last, dtype=tf.int32)
    values = layout.vectors(model.embeddings.tables, one_hot_bags(rows)).numpy().astype(np.float64)
    return values[:, :-1] if model.linear_weights else values


def all_vectors(model: RankingModel, table: str) -> Iterator[tuple[int, np.ndarray]]:
    """Those of all rows, in slices: the first row of the slice, and float64 [n, dim of the vectors]."""
    of = model.schema.table(table)
    rows, step = of.vocabulary_size or 0, max(1, _NUMBERS_AT_A_TIME // of.dim)
    for first in range(0, rows, step):
        yield first, vectors(model, table, first, min(first + step, rows))
