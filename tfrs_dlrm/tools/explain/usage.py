"""Which rows of a table the training data look up, how often, and how long the vectors of the rows are."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from tfrs_dlrm.data.reading.row_groups import looked_up
from tfrs_dlrm.models.ranking import RankingModel
from tfrs_dlrm.schema import Schema
from tfrs_dlrm.tools.explain.vectors import all_vectors

_BINS = 40


@dataclasses.dataclass(frozen=True)
class TableUsage:
    """One table.

    Attributes:
      table: its name.
      rows: how many it has.
      lookups: how often the training data look up any of them.
      dead: int64 [at most `top`], the first rows that are never looked up.
      dead_count: how many there are.
      most: int64 [at most `top`], the rows that are looked up most, most first.
      most_lookups: int64, how often each of these is.
      half: how many of the most looked up rows take half of all lookups.
      norm_mean: of the Euclidean norms of the vectors of the rows that are looked up; nan where none is.
      dead_norm_mean: likewise of the dead ones.
      edges: float64 [bins + 1], of a histogram of the norms of all rows.
      used_norms: int64 [bins], how many rows that are looked up have a norm of this bin.
      dead_norms: int64 [bins], likewise of the dead ones.
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
        """The numbers of one line in a table of tables."""
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
        """Plain values.

        Args:
          names: what the rows of `dead` and `most` are called.
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
    """How often the training examples look up each row of a table, int64 [rows], whatever the values weigh.

    Args:
      schema: of the data.
      directory: what `prepare` wrote.
      table: the name of a table that features look up.
      progress: called with the number of examples that were read, each time some were; once for each feature.
    """
    counts = np.zeros(schema.table(table).vocabulary_size or 0, np.int64)
    for feature in (f.name for f in schema.categorical if f.table == table):
        for rows, lengths in looked_up(directory, "train", feature):
            # Not bincount, which would make an array as long as the table for every piece of the data.
            found, times = np.unique(rows, return_counts=True)
            counts[found] += times
            if progress:
                progress(len(rows) if lengths is None else len(lengths))
    return counts


def table_usage(model: RankingModel, table: str, counts: np.ndarray, top: int = 20) -> TableUsage:
    """What `counts`, as `count_lookups` gives them, and the trained rows of a table amount to."""
    norms = np.concatenate([np.linalg.norm(v, axis=1) for _, v in all_vectors(model, table)])
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
