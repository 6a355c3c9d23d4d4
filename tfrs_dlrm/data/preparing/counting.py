"""The first half of `prepare`: the vocabularies and statistics of the training rows, and the schema with all sizes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa
from absl import logging

from tfrs_dlrm.data.encoding.statistics import (
    STATISTICS_FILE,
    Moments,
    measured_numbers,
    needs_statistics,
    needs_transformed,
)
from tfrs_dlrm.data.encoding.vocabulary import VOCABULARY_DIR, vocabulary_settings
from tfrs_dlrm.data.preparing.blocks import sketched_inputs
from tfrs_dlrm.data.preparing.engines import Engine
from tfrs_dlrm.data.preparing.job import BadRows, PrepareJob
from tfrs_dlrm.data.preparing.kept_counts import write_counted
from tfrs_dlrm.data.preparing.label_counts import LabelCounts, shares
from tfrs_dlrm.data.preparing.merging import merged, ranked
from tfrs_dlrm.data.preparing.number_sketch import read_sketches
from tfrs_dlrm.data.preparing.number_statistics import measure
from tfrs_dlrm.data.preparing.passes import no_moments
from tfrs_dlrm.data.preparing.row_splitter import SetCounts, check_sets
from tfrs_dlrm.data.preparing.workspace import COUNTED, Workspace
from tfrs_dlrm.data.raw.frames import RawInput
from tfrs_dlrm.schema import SCHEMA_FILE, Schema
from tfrs_dlrm.stores import Progress
from tfrs_dlrm.stores.files import read_json, write_json


def count(
    job: PrepareJob, workspace: Workspace, engine: Engine, progress: Progress, with_labels: bool = False
) -> Schema:
    """Writes vocabularies and statistics, and the schema with the size of every table; returns the schema.

    The schema has the means of labels too. Only if nothing but the mean of 0 and 1 is to be counted, it lacks that.

    Args:
      job: what to count.
      workspace: of the job.
      engine: counts.
      progress: is told how far it is.
      with_labels: counts for the mean of 0 and 1 alone; `with_shares` sets it without another pass.

    Raises:
      EmptySetError: see `check_sets`.
      ValueError: no training row is usable, a vocabulary is empty, or a statistic has no value.
      BadRowError: a row is malformed, and the job's `bad_rows` is `error`.
    """
    schema, path = job.schema, os.path.join(workspace.output, SCHEMA_FILE)
    if os.path.exists(path):
        return Schema.load(path)
    settings = {t.name: s for t in schema.tables if (s := vocabulary_settings(schema, t))}
    schema = _without_shares(schema)
    units = (
        with_labels
        or bool(job.base)
        or bool(schema.weight)
        or any(label.task == "regression" for label in schema.labels)
    )
    numbers = sketched_inputs(schema) or any(needs_statistics(f) or needs_transformed(f) for f in schema.dense)
    if units or settings or numbers:
        engine.count(job, workspace, progress)
        marks = workspace.marks(COUNTED)
        check_sets(job, SetCounts.joined(SetCounts(**mark["sets"]) for mark in marks if "sets" in mark))
        rows_counted = sum(mark["rows"] for mark in marks)
        check_rows(job.train_files, rows_counted, "training", job.bad_rows)
    moments = _joined_moments(schema, workspace)
    if job.base:
        _check_classes(job, moments)
    sums = engine.sums(job, workspace, list(settings), ranked=job.base is None)
    rows = _write_vocabularies(job, workspace, sums, settings)
    if job.base and not job.measures:
        known = read_json(os.path.join(job.base.directory, STATISTICS_FILE))
        write_json(os.path.join(workspace.output, STATISTICS_FILE), known)
        schema = job.schema.with_vocabulary_sizes(rows)
    else:
        statistics = measure(schema, moments, read_sketches(workspace, sketched_inputs(schema)))
        write_json(os.path.join(workspace.output, STATISTICS_FILE), statistics.plain())
        rows |= {f.table: len(statistics.edges[f.name]) + 2 for f in schema.categorical if f.encoding == "buckets"}
        schema = schema.with_vocabulary_sizes(rows).with_units(_units(schema, moments))
    schema.save(path)
    return schema


def _joined_moments(schema: Schema, workspace: Workspace) -> Moments:
    moments = no_moments(schema)
    for mark in workspace.marks(COUNTED):
        found = Moments(*mark["moments"])
        if len(found.count) != len(moments.count):
            raise ValueError(
                f"{workspace.output}: another version of this package began this preparation and counted other numbers;"
                " remove the directory, and prepare again"
            )
        moments += found
    return moments


def with_shares(schema: Schema, counts: Mapping[str, LabelCounts]) -> Schema:
    """Returns the schema with the share of 1s of each classification label that lacks it.

    Args:
      schema: of rows without weights.
      counts: of the training rows, by column of the label.
    """
    found = shares(schema, {column: (counted.count, counted.positives or 0) for column, counted in counts.items()})
    unknown = {c for c, label in zip(schema.label_columns, schema.labels, strict=True) if not label.mean}
    return schema.with_units({column: (share, 1.0) for column, share in found.items() if column in unknown})


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


def _check_classes(job: PrepareJob, moments: Moments) -> None:
    """Makes sure that a day on a base has both classes of its first label."""
    mean = float(moments.mean[len(measured_numbers(job.schema))])
    if job.schema.label.task == "classification" and mean in (0.0, 1.0):
        raise ValueError(
            f"{job.train_files[0]}: all training rows have the label {mean:g}, and a day on a base needs both; check"
            " that the log is whole, or prepare it together with another day"
        )


def _write_vocabularies(
    job: PrepareJob,
    workspace: Workspace,
    sums: Iterator[tuple[str, Iterator[pa.RecordBatch]]],
    settings: Mapping[str, tuple[int, int | None]],
) -> dict[str, int]:
    """Writes the vocabulary of each table; returns its rows: one for each value, and one for all others."""
    os.makedirs(os.path.join(workspace.output, VOCABULARY_DIR), exist_ok=True)
    rows = {}
    for name, counted in sums:
        table, (min_count, max_size) = job.schema.table(name), settings[name]
        if job.base:
            values = merged(job.base, name, counted, min_count, max_size, workspace.work)
        else:
            values = ranked(counted, min_count, max_size)
        rows[name] = write_counted(values, table, min_count, workspace.output, lineage=job.base is not None)
        if not job.base and table.vocabulary_size is not None and table.vocabulary_size != rows[name]:
            logging.info("table %r: vocabulary_size=%d becomes %d, as counted", name, table.vocabulary_size, rows[name])
    return rows


def _without_shares(schema: Schema) -> Schema:
    """A schema that was prepared before has the shares of other rows."""
    labels = zip(schema.label_columns, schema.labels, strict=True)
    return schema.with_units({column: (0.0, 1.0) for column, label in labels if label.task == "classification"})


def _units(schema: Schema, moments: Moments) -> dict[str, tuple[float, float]]:
    """The mean and standard deviation of each label of which there are any, by column."""
    first, labels = len(measured_numbers(schema)), len(schema.labels)
    found, sums = {}, {}
    weighted = bool(schema.weight) and any(moments.mean[first + 2 * labels : first + 3 * labels] > 0)
    for i, (column, label) in enumerate(zip(schema.label_columns, schema.labels, strict=True), first):
        mean, std, count = float(moments.mean[i]), float(moments.std[i]), float(moments.count[i])
        if label.task == "regression":
            # Labels that are all equal, except for rounding, are not scaled.
            found[column] = mean, std if std > 1e-6 * abs(mean) else 1.0
        elif weighted:
            sums[column] = count * float(moments.mean[i + 2 * labels]), count * float(moments.mean[i + labels])
        else:
            sums[column] = count, count * mean
    return found | {column: (share, 1.0) for column, share in shares(schema, sums).items()}
