"""Writes `profile.json` of a preparation, from its sampled rows and the counts of its values."""

from __future__ import annotations

import dataclasses
import math
import os

from tfrs_dlrm.data.encoding.tokenizer import MISSING_TEXT
from tfrs_dlrm.data.encoding.vocabulary import vocabulary_settings
from tfrs_dlrm.data.preparing.duckdb_rows import connect
from tfrs_dlrm.data.preparing.kept_counts import counts_path, lineage_path, read_since
from tfrs_dlrm.data.preparing.label_counts import LabelCounts
from tfrs_dlrm.data.preparing.manifest import LOG, PreparedManifest
from tfrs_dlrm.data.preparing.profiling.column_measures import Targets, measure_columns
from tfrs_dlrm.data.preparing.profiling.column_profile import ColumnProfile, LabelProfile, Profile
from tfrs_dlrm.data.preparing.profiling.row_sample import read_sample, sample_path
from tfrs_dlrm.data.preparing.workspace import ENCODED, Workspace
from tfrs_dlrm.schema import Label, Schema

# A value of the vocabulary that occurs `min_count` times would have no row if it had occurred once less.
_COUNTED = """
SELECT count(*), sum(count), sum(CASE WHEN count <= $1 OR file_row_number >= $2 THEN count ELSE 0 END)
FROM read_parquet($3, file_row_number = true) WHERE value <> $4
"""


def write_profile(workspace: Workspace, schema: Schema, manifest: PreparedManifest) -> None:
    """Writes `profile.json`; without sampled rows, which an earlier version did not draw, nothing.

    Args:
      workspace: of a preparation whose rows are all encoded.
      schema: as it is written.
      manifest: of the preparation, with its labels and its chain.
    """
    sample = read_sample(sample_path(workspace, name) for name in workspace.marked(ENCODED))
    if sample is None:
        return
    directory = workspace.output
    since = {
        t.name: read_since(directory, t.name, t.vocabulary_size or 1)
        for t in schema.tables
        if os.path.isfile(lineage_path(directory, t.name))
    }
    counted = _counted(workspace, schema)
    # Otherwise counts are those of all days, or are not those of the rows that can be drawn.
    alone = not since and not schema.weight and schema.label.keep_negatives == 1
    measured = measure_columns(sample, schema, directory, since, 1 + len(manifest.chain))
    columns = [_with_counts(c, schema, counted, alone) for c in measured]
    Profile(
        rows=sum(mark["read"] - mark["rows"]["eval"] for mark in workspace.marks(ENCODED)),
        sampled=sample.num_rows,
        positives=int(Targets.of(sample, schema).positive.sum()),
        labels=tuple(_labels(schema, manifest.labels.get(LOG) or manifest.labels.get("train", {}))),
        columns=tuple(columns),
    ).save(directory)


@dataclasses.dataclass(frozen=True)
class _Counted:
    """How many values a table has, how often they occur, and which share would have no row in another log."""

    distinct: int
    occurrences: int
    expected_new: float


def _counted(workspace: Workspace, schema: Schema) -> dict[str, _Counted]:
    """Reads the counts of all values of each table with a vocabulary."""
    found = {}
    with connect(workspace.work) as connection:
        for table in schema.tables:
            path, settings = counts_path(workspace.output, table.name), None
            if any(f.table == table.name for f in schema.categorical):
                settings = vocabulary_settings(schema, table)
            if settings is None or not os.path.isfile(path):
                continue
            arguments = [settings[0], (table.vocabulary_size or 1) - 1, path, MISSING_TEXT]
            row = connection.execute(_COUNTED, arguments).fetchone()
            distinct, total, rare = row or (0, 0, 0)
            share = float(rare or 0) / float(total) if total else 0.0
            found[table.name] = _Counted(int(distinct), round(total or 0), share)
    return found


def _with_counts(column: ColumnProfile, schema: Schema, counted: dict[str, _Counted], alone: bool) -> ColumnProfile:
    """Adds what all training rows say; of a table that features share, only what is true of each of them."""
    tables = [f.table for f in schema.categorical]
    table = next((f.table for f in schema.categorical if f.name == column.name and f.table in counted), "")
    if not table:
        return column
    column = dataclasses.replace(column, expected_new=counted[table].expected_new)
    if tables.count(table) > 1 or not alone:
        return column
    return dataclasses.replace(column, distinct=counted[table].distinct, among=counted[table].occurrences, exact=True)


def _labels(schema: Schema, counts: dict[str, LabelCounts]) -> list[LabelProfile]:
    return [
        _label(label, counts[column])
        for column, label in zip(schema.label_columns, schema.labels, strict=True)
        if column in counts and counts[column].count
    ]


def _label(label: Label, counts: LabelCounts) -> LabelProfile:
    if label.task == "regression":
        return LabelProfile(label.column, label.task, counts.count, counts.mean or 0.0, counts.std or 0.0)
    mean = (counts.positives or 0) / counts.count
    return LabelProfile(label.column, label.task, counts.count, mean, math.sqrt(mean * (1 - mean)))
