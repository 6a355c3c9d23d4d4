"""The use of tables: how often the training data look up each row, and the norms of the rows' vectors."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from tfrs_dlrm.data.reading.row_groups import looked_up
from tfrs_dlrm.embeddings.bags import one_hot_bags
from tfrs_dlrm.embeddings.layouts import make_layout
from tfrs_dlrm.models.ranking import RankingModel
from tfrs_dlrm.schema import Schema

_BINS = 40
# 32 MB of float64.
_NUMBERS_AT_A_TIME = 1 << 22


@dataclasses.dataclass(frozen=True)
class TableUsage:
    """The use of a table. Dead rows are rows without lookups.

    Attributes:
      table: the name of the table.
      rows: the number of rows.
      lookups: the number of lookups by the training data.
      dead: int64 [at most `top`], the first dead rows.
      dead_count: the number of dead rows.
      most: int64 [at most `top`], the rows with most lookups, most first.
      most_lookups: int64, the lookups of each of `most`.
      half: how many of the rows with most lookups have half of all lookups.
      norm_mean: the mean Euclidean norm of the vectors of rows with lookups; nan without any.
      dead_norm_mean: the mean Euclidean norm of the vectors of dead rows; nan without any.
      edges: float64 [bins + 1], the bins of a histogram of the norms of all rows.
      used_norms: int64 [bins], the number of rows with lookups per bin.
      dead_norms: int64 [bins], the number of dead rows per bin.
    """

    table: str
    rows: int
    lookups: int
    dead: np.ndarray
    dead_count: int
    most: np.ndarray
    most_lookups: np.ndarray
    half: int
    norm_mean: float
    dead_norm_mean: float
    edges: np.ndarray
    used_norms: np.ndarray
    dead_norms: np.ndarray

    def summary(self) -> dict[str, float]:
        """Returns the numbers of one line in a table of tables."""
        top = float(self.most_lookups[0] / self.lookups) if self.lookups else float("nan")
        return {
            "rows": self.rows,
            "lookups": self.lookups,
            "dead": self.dead_count,
            "dead_share": self.dead_count / self.rows,
            "top_share": top,
            "half_in_rows": self.half,
            "norm_mean": self.norm_mean,
            "dead_norm_mean": self.dead_norm_mean,
        }

    def to_dict(self, names: dict[int, str]) -> dict[str, Any]:
        """Returns plain values.

        Args:
          names: the names of the rows of `dead` and `most`.
        """
        most = zip(self.most.tolist(), self.most_lookups.tolist(), strict=True)
        return self.summary() | {
            "most": [
                {"value": names[row], "row": row, "lookups": n, "share": n / self.lookups} for row, n in most if n > 0
            ],
            "first_dead": [{"value": names[row], "row": row} for row in self.dead.tolist()],
            "norms": {"edges": self.edges, "looked_up": self.used_norms, "dead": self.dead_norms},
        }


def count_lookups(
    schema: Schema, directory: str, table: str, progress: Callable[[int], None] | None = None
) -> np.ndarray:
    """Counts how often the training examples look up each row of a table, int64 [rows], regardless of weights.

    Args:
      schema: the schema of the data.
      directory: a prepared directory.
      table: the name of a table that features look up.
      progress: called with the number of examples read, each time some were, per feature.
    """
    counts = np.zeros(schema.table(table).vocabulary_size or 0, np.int64)
    for feature in (f.name for f in schema.categorical if f.table == table):
        for rows, lengths in looked_up(directory, "train", feature):
            # Not bincount, which makes an array as long as the table for each piece of the data.
            found, times = np.unique(rows, return_counts=True)
            counts[found] += times
            if progress:
                progress(len(rows) if lengths is None else len(lengths))
    return counts


def table_usage(model: RankingModel, table: str, counts: np.ndarray, top: int = 20) -> TableUsage:
    """Summarises the counts of `count_lookups` and the trained rows of a table."""
    norms = np.concatenate([np.linalg.norm(v, axis=1) for _, v in all_row_vectors(model, table)])
    used = counts > 0
    edges = np.histogram_bin_edges(norms, _BINS)
    order = np.argsort(-counts, kind="stable")
    cumulative = np.cumsum(counts[order])
    dead = np.flatnonzero(~used)
    return TableUsage(
        table=table,
        rows=len(counts),
        lookups=int(counts.sum()),
        dead=dead[:top],
        dead_count=len(dead),
        most=order[:top],
        most_lookups=counts[order[:top]],
        half=int(np.searchsorted(cumulative, cumulative[-1] / 2) + 1) if used.any() else 0,
        norm_mean=float(norms[used].mean()) if used.any() else float("nan"),
        dead_norm_mean=float(norms[~used].mean()) if len(dead) else float("nan"),
        edges=edges,
        used_norms=np.histogram(norms[used], edges)[0],
        dead_norms=np.histogram(norms[~used], edges)[0],
    )


def row_vectors(model: RankingModel, table: str, first: int, last: int) -> np.ndarray:
    """Returns the vectors of rows `first` to `last`, float64 [last - first, dim of the vectors].

    Leaves out the linear weight after the vector, see `RankingModel.linear_weights`.
    """
    stored = model.embeddings.schema
    layout = make_layout(stored.table(table), stored)
    rows = tf.range(first, last, dtype=tf.int32)
    values = layout.vectors(model.embeddings.tables, one_hot_bags(rows)).numpy().astype(np.float64)
    return values[:, : model.schema.table(table).dim]


def all_row_vectors(model: RankingModel, table: str) -> Iterator[tuple[int, np.ndarray]]:
    """Yields the vectors of all rows in slices: the first row, and float64 [n, dim of the vectors]."""
    of = model.schema.table(table)
    rows, step = of.vocabulary_size or 0, max(1, _NUMBERS_AT_A_TIME // of.dim)
    for first in range(0, rows, step):
        yield first, row_vectors(model, table, first, min(first + step, rows))
