"""Scores the models of an update on new rows, and counts values that are new."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow.parquet as pq

from tfrs_dlrm.data.preparing.manifest import PreparedManifest, Split
from tfrs_dlrm.schema import SCHEMA_FILE, Schema
from tfrs_dlrm.training.evaluation import Scores, score
from tfrs_dlrm.training.factory import load_run
from tfrs_dlrm.training.inputs import evaluation_dataset, evaluation_order

_SPLITS: tuple[Split, ...] = ("train", "eval")


def score_run(workdir: str, data: str, rows: Mapping[str, np.ndarray] | None, splits: Sequence[Split]) -> list[Scores]:
    """Scores the best checkpoint of a run, under the strategy in scope.

    Args:
      workdir: the directory of the run.
      data: a prepared directory on a disk.
      rows: `Workdir.model_rows` of them.
      splits: of the data.
    """
    model, config, _ = load_run(workdir)
    size = config.train.eval_batch_size
    return [
        score(model, evaluation_dataset(data, size, split, rows), order=evaluation_order(data, split))
        for split in splits
    ]


def joined(parts: Sequence[Scores]) -> Scores:
    """Returns the scores of several sets as those of one, for metrics: it does not know which examples they are of."""
    labels, logits = (np.concatenate([getattr(part, name) for part in parts]) for name in ("labels", "logits"))
    weights = None
    if any(part.weights is not None for part in parts):
        weights = np.concatenate([np.ones_like(p.labels) if p.weights is None else p.weights for p in parts])
    more = {name: joined([part.more[name] for part in parts]) for name in parts[0].more}
    return Scores(labels, logits, weights, parts[0].task, more)


def value_shares(data: str, rows: Mapping[str, np.ndarray] | None) -> tuple[dict[str, float], dict[str, float]]:
    """Counts the values of a prepared log by what a run knows of them.

    Args:
      data: a prepared directory on a disk, which extends the data of the run.
      rows: `Workdir.model_rows` of them.

    Returns:
      By table with a vocabulary, the share of the values whose row is new or had another value in the run; and the
      share that has no row, or is missing.
    """
    counts, rows = _lookups(data), rows or {}
    new, unseen = {}, {}
    for table, count in counts.items():
        total = max(1, int(count.sum()))
        fresh = count[1:][rows[table][1:] == 0].sum() if table in rows else 0
        new[table], unseen[table] = float(fresh / total), float(count[0] / total)
    return new, unseen


def _lookups(data: str) -> dict[str, np.ndarray]:
    """Counts how often each row of the tables with a vocabulary is looked up, int64 [rows]."""
    schema, manifest = Schema.load(os.path.join(data, SCHEMA_FILE)), PreparedManifest.load(data)
    features = {f.name: f.table for f in schema.categorical if f.encoding == "vocabulary"}
    counts = {t: np.zeros(schema.table(t).vocabulary_size or 1, np.int64) for t in Counter(features.values())}
    for shard in (*manifest.train, *manifest.eval):
        with pq.ParquetFile(os.path.join(data, shard.path)) as file:
            for batch in file.iter_batches(columns=list(features)):
                for name, table in features.items():
                    column = batch.column(name)
                    rows = column.flatten() if column.type.num_fields else column
                    counts[table] += np.bincount(rows.to_numpy(zero_copy_only=False), minlength=len(counts[table]))
    return counts
