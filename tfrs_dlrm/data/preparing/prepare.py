"""Prepares raw logs: encodes them to Parquet, with the schema, vocabularies and statistics.

Two passes read the files. The first counts values and sums numbers of the training rows; the second encodes
all rows. Each pass works segment by segment, a few blocks of one file, and marks the finished ones. A run that was
killed and is started again skips these, and ends with the same bytes. An engine runs the passes on this machine or on
a cluster; either resumes what the other began.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator
from typing import Any

from tfrs_dlrm.data.encoding.checksums import checksums
from tfrs_dlrm.data.encoding.vocabulary import VOCABULARY_DIR
from tfrs_dlrm.data.preparing.base import PreparedBase
from tfrs_dlrm.data.preparing.counting import check_rows, count, with_shares
from tfrs_dlrm.data.preparing.engines import Engine, EngineName
from tfrs_dlrm.data.preparing.engines.local import LocalEngine
from tfrs_dlrm.data.preparing.half_life import HalfLife, check_day
from tfrs_dlrm.data.preparing.job import BadRows, PrepareJob
from tfrs_dlrm.data.preparing.kept_counts import COUNTS_DIR, LINEAGE_DIR, kept_checksums
from tfrs_dlrm.data.preparing.label_counts import joined
from tfrs_dlrm.data.preparing.manifest import LOG, MANIFEST_FILE, PREPARE_AGAIN, PreparedManifest, PreparedShard
from tfrs_dlrm.data.preparing.ordering import order_rows, ordered_shards
from tfrs_dlrm.data.preparing.passes import DROPPED
from tfrs_dlrm.data.preparing.profiling.prepare_profile import write_profile
from tfrs_dlrm.data.preparing.profiling.row_sample import plan_sample
from tfrs_dlrm.data.preparing.row_splitter import EmptySetError, SetCounts, check_sets, split_description
from tfrs_dlrm.data.preparing.samples import SAMPLES, write_samples
from tfrs_dlrm.data.preparing.split_arguments import split_rule
from tfrs_dlrm.data.preparing.workspace import ENCODED, Workspace, check_same
from tfrs_dlrm.data.raw.frames import Frame, RawInputs, expand_inputs, input_identity, is_frame
from tfrs_dlrm.messages.arguments import checked
from tfrs_dlrm.schema import SCHEMA_FILE, Schema
from tfrs_dlrm.stores import Mirror, Progress, Store, check_free, is_store_url, join
from tfrs_dlrm.stores.files import disk_full, read_json
from tfrs_dlrm.stores.lock import directory_lock


@checked
def prepare(
    schema: Schema | None,
    inputs: RawInputs,
    output: str,
    *,
    base: str | None = None,
    half_life: str | float | None = None,
    refresh_statistics: bool = False,
    day: str | None = None,
    eval_inputs: RawInputs = (),
    eval_fraction: float = 0.0,
    eval_after: str | None = None,
    time: str | None = None,
    time_format: str | None = None,
    keep_order: bool = False,
    split_by: str | None = None,
    seed: int = 0,
    keep_negatives: float | None = None,
    bad_rows: BadRows = "error",
    engine: EngineName = "duckdb",
    master: str | None = None,
    progress: Progress | None = None,
) -> PreparedManifest:
    """Prepares raw logs for training.

    Args:
      schema: describes the logs. With a base it may be None, which takes the base's; another one may differ from that
        only in `max_size`, which may be larger, and in the layout of text.
      inputs: the training logs. Paths, directories and glob patterns, on a disk, `s3://` or `gs://`, of text (TSV, CSV)
        and Parquet, known by their first bytes, and compressed as a whole or not. Data in memory: pandas and polars
        DataFrames, pyarrow Tables, DuckDB relations, and all else that has `__arrow_c_stream__`. One of them, or a list
        of any mixture. A frame gives the bytes that a Parquet file of it would give; a preparation that was killed
        resumes if it is called with equal values.
      output: the directory to write. It holds `train/` and `eval/` with Parquet shards, `schema.json` with the size
        of every table, `vocabulary/`, `counts/` and on a base `lineage/` for the next day, `statistics.json`,
        `profile.json`, `samples.jsonl`, and `prepared.json`, which is written last. For a URL such as
        `s3://BUCKET/PREFIX` the local copy is prepared first (see `tfrs_dlrm.stores`).
      base: a prepared directory, on a disk or in an object store, that is extended: known values keep their
        rows, and new values get rows behind them. If a table has `max_size` values, the value with the lowest count
        gives its row to a new value with a higher one. Values are counted over both logs, so that a value gets a row
        once it has occurred `min_count` times. Statistics stay the base's, and so do the means of labels.
      half_life: the time in which counts of the base halve: `7d` is days, `3` preparations. By default never.
      refresh_statistics: takes the statistics of numbers, edges of buckets and means of labels from the new rows.
        Models of earlier links of the chain cannot be evaluated on the result then.
      day: the date of the log, `YYYY-MM-DD`, for a half-life in days. A base with a later day is refused.
      eval_inputs: the evaluation logs, as `inputs`; or give
      eval_fraction: the share of the rows of `inputs` to set aside for evaluation, chosen at random by `seed`.
      eval_after: a date or time in ISO 8601, in UTC, such as `2026-11-25`: rows of `inputs` from this time on are for
        evaluation, earlier ones for training. Needs `time`.
      time: the column of the times, which need not be a feature. A row without a time is malformed, see `bad_rows`.
      time_format: how the times are written, see `Time.format`; by default as a feature of the schema reads the column,
        otherwise as the first rows are written.
      keep_order: whether to write the training rows in the order of their times; rows of equal times stay in the order
        of the log. Needs `time`.
      split_by: a column, such as the user: all rows of a value go to the same set, and `eval_fraction` is the share of
        values. A value's set depends on the value and on `seed` alone. Rows without a value are drawn one by one.
      seed: see `eval_fraction` and `keep_negatives`.
      keep_negatives: the share of the training rows with a first label of 0 to keep, drawn at random by `seed`; by
        default what the schema's label says, which is usually 1. Evaluation rows are all kept. Vocabularies and
        statistics are those of the kept rows. The written schema has the share, and models correct their
        probabilities by it; see `Label.keep_negatives`.
      bad_rows: `error` stops at the first malformed row; `quarantine` writes malformed rows to `quarantine.jsonl`
        with file, line, column and reason, and continues.
      engine: `duckdb` works on this machine, `spark` on a Spark cluster and on files only; both write the same bytes.
        See docs/guides/cluster.md.
      master: the Spark master: `local[*]` (all cores of this machine; the default), `spark://HOST:PORT`, `yarn`,
        `k8s://...`.
      progress: called with the progress of each pass.

    Returns:
      The manifest. Called again after it was killed, `prepare` resumes; after it has finished, it does nothing.

    Raises:
      FileNotFoundError: an input is missing; the base is missing, or its preparation did not finish.
      ValueError: an input is empty, damaged, lacks a column or has no usable row; a time or group leaves no row for
        training or evaluation; `output` holds something else, or another process prepares other data in it
        (`InUseError`; one that prepares the same data is waited for); the base is damaged, has another schema, is of a
        later day, or has seen an input already; on a base, all training rows have one label. After an error on a base
        nothing is left.
      BadRowError: a row is malformed, and `bad_rows` is `error`.
      ImportError: PySpark is not installed.
      OSError: the disk is full; Spark cannot be started or reached, or its executors lack something; a `StoreError`
        where an object store cannot be reached or refuses.
    """
    if not 0 <= eval_fraction < 1:
        raise ValueError(f"eval_fraction={eval_fraction} is not in [0, 1)")
    with_eval = is_frame(eval_inputs) or len(eval_inputs) > 0  # type: ignore[arg-type]
    if with_eval and eval_fraction:
        raise ValueError("give either eval_inputs or eval_fraction, not both")
    if bad_rows not in ("error", "quarantine"):
        raise ValueError(f"bad_rows={bad_rows!r} is neither 'error' nor 'quarantine'")
    if engine not in ("duckdb", "spark"):
        raise ValueError(f"engine={engine!r} is neither 'duckdb' nor 'spark'")
    if master is not None and engine != "spark":
        raise ValueError(f"master={master!r} is for engine='spark', this is engine={engine!r}")
    day = check_day(day)
    before = _base(base, half_life, refresh_statistics, day)
    if schema is None:
        if before is None:
            raise ValueError("schema=None takes the schema of a base; give schema=, or base=, a prepared directory")
        schema = before.schema
    train_files = expand_inputs(inputs, "inputs")
    rule = split_rule(
        schema,
        train_files,
        time=time,
        time_format=time_format,
        eval_after=eval_after,
        keep_order=keep_order,
        split_by=split_by,
        eval_fraction=eval_fraction,
        with_eval=with_eval,
    )
    if keep_negatives is not None:
        schema = schema.with_keep_negatives(keep_negatives)
    eval_files = expand_inputs(eval_inputs, "eval_inputs") if with_eval else ()
    job = PrepareJob(schema, train_files, eval_files, eval_fraction, seed, bad_rows, rule, day=day)
    if before is not None:
        job = job.on(before)
    training = set(map(input_identity, job.train_files))
    for file in job.eval_files:
        if input_identity(file) in training:
            raise ValueError(f"{file}: given for training and for evaluation")
    if engine == "spark" and (frames := [file for file in job.files if isinstance(file, Frame)]):
        raise ValueError(f"{frames[0]}: engine='spark' reads files; write it to Parquet, or leave out engine")
    report = progress or (lambda *_: None)
    with disk_full(output, "run the same command again, which resumes"):
        if is_store_url(output):
            return _in_store(job, output, report, engine, master)
        return _Preparation(job, output, report).run(engine, master)


def _base(base: str | None, half_life: str | float | None, refresh: bool, day: str) -> PreparedBase | None:
    if base is not None:
        return PreparedBase.load(base, HalfLife.parse(half_life), refresh, day)
    if half_life is not None or refresh:
        name = "refresh_statistics=True" if refresh else f"half_life={half_life!r}"
        raise ValueError(f"{name} is for a preparation on a base; give base=, a prepared directory, or leave it out")
    return None


def _in_store(
    job: PrepareJob, output: str, progress: Progress, engine: EngineName, master: str | None
) -> PreparedManifest:
    """Prepares the local copy of `output`, then publishes it."""
    mirror = Mirror(output, progress=progress)
    if mirror.listing() is not None:
        address = join(output, MANIFEST_FILE)
        manifest = PreparedManifest.of(read_json(address, PREPARE_AGAIN), address)
        check_same(output, job.fingerprint(), manifest.job)
        return manifest
    mirror.pull()  # raises if what was published is gone
    _check_free(output)
    manifest = _Preparation(job, mirror.path, progress).run(engine, master)
    mirror.push()
    return manifest


def _check_free(output: str) -> None:
    """Raises before the work if the place holds something else; parts of an interrupted upload may be in it."""
    store = Store(output)
    directories = tuple(f"{name}/" for name in (VOCABULARY_DIR, COUNTS_DIR, LINEAGE_DIR, "train", "eval"))
    files = (".json", ".jsonl")
    check_free(store, [n for n in store.files() if n.startswith(directories) or ("/" not in n and n.endswith(files))])


def _engine(name: EngineName, master: str | None) -> contextlib.AbstractContextManager[Engine]:
    if name == "duckdb":
        return contextlib.nullcontext(LocalEngine())
    from tfrs_dlrm.data.preparing.engines.spark import spark_engine

    return spark_engine(master)


class _Preparation:
    """One run of `prepare`."""

    def __init__(self, job: PrepareJob, output: str, progress: Progress):
        self._job, self._output, self._progress = job, output, progress
        self._workspace = Workspace(output)

    def run(self, engine: EngineName, master: str | None) -> PreparedManifest:
        fingerprint = self._job.fingerprint()
        if manifest := self._workspace.finished(fingerprint):
            return manifest
        key = hashlib.sha256(json.dumps(fingerprint, sort_keys=True).encode()).hexdigest()
        with directory_lock(self._output, "prepares data in it", key) as lock:
            lock.acquire(wait=lambda owner: owner.key == key)  # it does this work, so there may be nothing to do
            return self._workspace.finished(fingerprint) or self._prepare(fingerprint, engine, master)

    def _prepare(self, fingerprint: dict[str, Any], engine: EngineName, master: str | None) -> PreparedManifest:
        self._job.check_files()
        with _engine(engine, master) as running:
            self._workspace.begin(fingerprint)
            with self._cleared_if_useless():
                schema = count(self._job, self._workspace, running, self._progress)
                plan_sample(self._job, self._workspace)
                running.encode(self._job, self._workspace, schema, self._progress)
        with self._cleared_if_useless():
            if self._job.rule.keep_order:
                order_rows(self._workspace, self._progress)
            manifest = self._manifest(fingerprint)
        if not schema.weight:
            with_shares(schema, manifest.labels.get("train", {})).save(os.path.join(self._output, SCHEMA_FILE))
        write_profile(self._workspace, schema, manifest)
        write_samples(self._output, self._samples("eval" if manifest.eval else "train"))
        kept = kept_checksums(self._output)
        manifest = dataclasses.replace(manifest, checksums=checksums(self._output), counts=kept)
        self._workspace.end(manifest)
        return manifest

    @contextlib.contextmanager
    def _cleared_if_useless(self) -> Iterator[None]:
        """Removes the files if a rule leaves a set empty, or if a day on a base cannot be used."""
        try:
            yield
        except ValueError as e:
            if self._job.base or isinstance(e, EmptySetError):
                self._workspace.discard()  # so that the same output can be given with another rule or log
            raise

    def _manifest(self, fingerprint: dict[str, Any]) -> PreparedManifest:
        """Makes the manifest from the marks of the second pass, and joins the bad rows of all segments."""
        marks = self._workspace.marks(ENCODED)
        rows = {s: sum(m["rows"][s] for m in marks) for s in ("train", "eval")}
        sets = SetCounts.joined(SetCounts(**m["sets"]) for m in marks if "sets" in m)
        check_sets(self._job, sets)
        check_rows(self._job.train_files, rows["train"], "training", self._job.bad_rows)
        if self._job.eval_files:
            check_rows(self._job.eval_files, rows["eval"], "evaluation", self._job.bad_rows)
        shards = {
            s: tuple(PreparedShard(f"{s}/{m['name']}.parquet", m["rows"][s]) for m in marks if m["rows"][s])
            for s in rows
        }
        if self._job.rule.keep_order:
            shards["train"] = ordered_shards(self._workspace)
        unknown: dict[str, int] = collections.Counter()
        for mark in marks:
            unknown.update(mark["out_of_range"])
        self._workspace.join_rejects([m["name"] for m in marks if m["bad"]])
        bad, labels = sum(m["bad"] for m in marks), {}
        if all("labels" in m for m in marks):  # an earlier version marked without them
            labels = {s: joined(self._job.schema, [m["labels"][s] for m in marks]) for s in rows}
        if self._job.schema.label.keep_negatives < 1:
            labels[LOG] = joined(self._job.schema, [m["labels"][s] for m in marks for s in ("train", DROPPED)])
        unknown = dict(sorted(unknown.items()))
        split = split_description(self._job, sets)
        chain = self._job.base.chain if self._job.base else ()
        return PreparedManifest(
            shards["train"], shards["eval"], bad, unknown, fingerprint, labels, split=split, chain=chain
        )

    def _samples(self, split: str) -> list[dict[str, Any]]:
        """The first raw rows of a split, which the second pass has taken."""
        found: list[dict[str, Any]] = []
        for name in self._workspace.marked(ENCODED):
            if len(found) >= SAMPLES:
                break
            found += self._workspace.read_mark(ENCODED, name)["samples"][split]
        return found[:SAMPLES]
