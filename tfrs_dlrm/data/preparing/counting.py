"""The first half of `prepare`: the vocabularies and statistics of the training rows, and the schema with all sizes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence

from absl import logging

from tfrs_dlrm.data.encoding.statistics import STATISTICS_FILE, Moments, needs_statistics
from tfrs_dlrm.data.encoding.vocabulary import VOCABULARY_DIR, vocabulary_file, vocabulary_settings, write_vocabulary
from tfrs_dlrm.data.preparing.blocks import regression_labels
from tfrs_dlrm.data.preparing.engines import Engine
from tfrs_dlrm.data.preparing.job import BadRows, PrepareJob
from tfrs_dlrm.data.preparing.passes import no_moments
from tfrs_dlrm.data.preparing.workspace import COUNTED, Workspace
from tfrs_dlrm.data.raw.frames import RawInput
from tfrs_dlrm.schema import SCHEMA_FILE, Schema
from tfrs_dlrm.stores import Progress
from tfrs_dlrm.stores.files import write_json


def count(job: PrepareJob, workspace: Workspace, engine: Engine, progress: Progress) -> Schema:
    """Writes vocabularies and statistics, and the schema with the size of every table; returns the schema.

    Raises:
      ValueError: no training row is usable, a vocabulary is empty, or a statistic has no value.
      BadRowError: a row is malformed, and the job's `bad_rows` is `error`.
    """
    schema, path = job.schema, os.path.join(workspace.output, SCHEMA_FILE)
    if os.path.exists(path):
        return Schema.load(path)
    settings = {t.name: s for t in schema.tables if (s := vocabulary_settings(schema, t))}
    if regression_labels(schema) or settings or any(needs_statistics(f) for f in schema.dense):
        engine.count(job, workspace, progress)
        rows_counted = sum(mark["rows"] for mark in workspace.marks(COUNTED))
        check_rows(job.train_files, rows_counted, "training", job.bad_rows)
    rows = _write_vocabularies(schema, workspace, engine.vocabularies(job, workspace, settings), settings)
    moments = sum((Moments(*mark["moments"]) for mark in workspace.marks(COUNTED)), no_moments(schema))
    _write_statistics(schema, workspace, moments)
    schema = schema.with_vocabulary_sizes(rows).with_units(_units(schema, moments))
    schema.save(path)
    return schema


def check_rows(files: Sequence[RawInput], rows: int, purpose: str, bad_rows: BadRows) -> None:
    """Makes sure that there are rows for training or evaluation.

    Raises:
      ValueError: there are none; the message names the files.
    """
    if rows == 0:
        more = f" and {len(files) - 1} more files" if len(files) > 1 else ""
        hint = (
            "; bad_rows='error', and another output, says what is wrong with the first"
            if bad_rows == "quarantine"
            else ""
        )
        raise ValueError(f"{files[0]}{more}: no usable row for {purpose}{hint}")


def _write_vocabularies(
    schema: Schema,
    workspace: Workspace,
    vocabularies: Iterator[tuple[str, Iterator[Sequence[str]]]],
    settings: Mapping[str, tuple[int, int | None]],
) -> dict[str, int]:
    """The rows of each table with a vocabulary: one for each value, and one for all others."""
    os.makedirs(os.path.join(workspace.output, VOCABULARY_DIR), exist_ok=True)
    rows = {}
    for name, values in vocabularies:
        table, (min_count, _) = schema.table(name), settings[name]
        rows[name] = 1 + write_vocabulary(values, table, min_count, vocabulary_file(workspace.output, name))
        if table.vocabulary_size is not None and table.vocabulary_size != rows[name]:
            logging.info("table %r: vocabulary_size=%d becomes %d, as counted", name, table.vocabulary_size, rows[name])
    return rows


def _units(schema: Schema, moments: Moments) -> dict[str, tuple[float, float]]:
    """The mean and standard deviation of each regression label, by column."""
    found = {}
    for position, number in enumerate(regression_labels(schema), len(schema.dense)):
        mean, std = float(moments.mean[position]), float(moments.std[position])
        # Labels that are all equal, except for rounding, are not scaled.
        found[schema.label_columns[number]] = mean, std if std > 1e-6 * abs(mean) else 1.0
    return found


def _write_statistics(schema: Schema, workspace: Workspace, moments: Moments) -> None:
    dense = {}
    for i, f in enumerate(schema.dense):
        if moments.count[i] > 0:
            dense[f.name] = {"count": int(moments.count[i]), "mean": moments.mean[i], "std": moments.std[i]}
        elif needs_statistics(f):
            raise ValueError(f"feature {f.name!r}: no training row has a value in column {f.column!r}")
    write_json(os.path.join(workspace.output, STATISTICS_FILE), {"dense": dense})
