"""The labels of a prepared split, counted, and the groups of its rows."""

from __future__ import annotations

import os

import numpy as np

from tfrs_dlrm.data.preparing.label_counts import LabelCounter, LabelCounts
from tfrs_dlrm.data.preparing.manifest import PreparedManifest, Split
from tfrs_dlrm.data.reading.row_groups import open_row_groups
from tfrs_dlrm.schema import GROUP, SCHEMA_FILE, Schema
from tfrs_dlrm.stores import local_copy


def kept_share(schema: Schema, split: Split) -> float:
    """Returns the share of a split's rows with a first label of 0 that `prepare` kept; each stands for 1 / share."""
    return schema.label.keep_negatives if split == "train" else 1.0


def label_counts(directory: str, split: Split) -> dict[str, LabelCounts]:
    """Returns what the labels of a split are, by column of the label; empty if the split has no rows.

    They stand in the manifest. If an earlier version wrote it without them, the labels are read.

    Raises:
      FileNotFoundError, ValueError: the directory holds no prepared data, or a file in it is damaged.
    """
    directory = local_copy(directory)
    manifest = PreparedManifest.load(directory)
    if not manifest.rows(split):
        return {}
    if split in manifest.labels:
        return manifest.labels[split]
    schema = Schema.load(os.path.join(directory, SCHEMA_FILE))
    names = [*schema.label_columns, *(["weight"] if schema.weight else [])]
    counter = LabelCounter(schema)
    for file, i in open_row_groups(directory, split):
        columns = [column.to_numpy() for column in file.read_row_group(i, columns=names).columns]
        weights = columns.pop() if schema.weight else None
        counter.add(np.stack(columns, axis=1), weights)
    return counter.counts()


def group_ids(directory: str, split: Split) -> np.ndarray:
    """Returns the group of each row of a split, int64 [N], in the order of the log; the schema has a group.

    Raises:
      FileNotFoundError, ValueError: the directory holds no prepared data, the split is empty, or a file is damaged.
    """
    parts = [file.read_row_group(i, columns=[GROUP])[GROUP] for file, i in open_row_groups(directory, split)]
    return np.concatenate([part.to_numpy() for part in parts])
