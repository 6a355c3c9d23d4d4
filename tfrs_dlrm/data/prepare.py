"""Raw logs to encoded Parquet, with the schema, vocabularies and statistics beside them.

Two passes over the files. The first counts values and sums numbers, of the training rows only; the second encodes.
Each works through segments, a few blocks of one file, and leaves a small file behind for each finished one: a run
that was killed and is started again skips those, and ends with the same bytes as one that was not.
"""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import dataclasses
import functools
import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
import pyarrow.parquet as pq
from absl import logging

from tfrs_dlrm.data import raw_files, sources
from tfrs_dlrm.data.blocks import BlockCounter, BlockEncoder, Counted, Encoded, encoded_schema, units
from tfrs_dlrm.data.encoder import (
    SCHEMA_FILE,
    STATISTICS_FILE,
    VOCABULARY_DIR,
    Encoder,
    needs_statistics,
    vocabulary_file,
)
from tfrs_dlrm.data.job import BadRows, Job
from tfrs_dlrm.data.manifest import MANIFEST_FILE, Manifest, Shard
from tfrs_dlrm.data.rows import BadRow, BadRowError, parse
from tfrs_dlrm.data.samples import SAMPLES, raw_values, write_samples
from tfrs_dlrm.data.segments import Reader, by_segment, segment_name, segment_of
from tfrs_dlrm.data.sources import Block
from tfrs_dlrm.data.vocabulary import Moments, ValueCounts, vocabulary_settings, write_vocabulary
from tfrs_dlrm.files import disk_full, read_json, write_json
from tfrs_dlrm.schema import Schema
from tfrs_dlrm.stores import Mirror, is_address, join

ROWS_PER_GROUP = 65_536
WORK_DIR = "unfinished"
QUARANTINE_FILE = "quarantine.jsonl"

R = TypeVar("R")


class Progress(Protocol):
    """Is told how far a pass has come."""

    def __call__(self, stage: str, done: int, total: int, rows: int) -> None:
        """`done` of `total` bytes of the raw files are read in this pass, and `rows` rows came of them."""


def prepare(
    schema: Schema,
    inputs: Sequence[str],
    output: str,
    *,
    eval_inputs: Sequence[str] = (),
    eval_fraction: float = 0.0,
    seed: int = 0,
    bad_rows: BadRows = "error",
    progress: Progress | None = None,
) -> Manifest:
    """Prepares raw logs for training.

    Args:
      schema: describes the logs.
      inputs: paths and glob patterns of the training logs, on a disk, `s3://` or `gs://`: .tsv, .csv (plain or .gz),
        .parquet; any mixture.
      output: the directory to write. It holds `train/` and `eval/` with Parquet shards, `schema.json` with the size
        of every table, `vocabulary/`, `statistics.json`, and `prepared.json`, which is written last. At an address
        such as `s3://BUCKET/PREFIX` it is prepared in the local copy first (see `tfrs_dlrm.stores`).
      eval_inputs: likewise for evaluation; or
      eval_fraction: the share of the rows of `inputs` to set aside for evaluation, chosen at random by `seed`.
      seed: see `eval_fraction`.
      bad_rows: what becomes of malformed rows: `error` stops at the first; `quarantine` writes them to
        `quarantine.jsonl` with file, line, column and reason, and goes on.
      progress: is told how far it is.

    Returns:
      What was written. Called again after it was killed, it goes on; called again after it finished, it does nothing.

    Raises:
      FileNotFoundError: an input is missing.
      ValueError: an input is empty, damaged, lacks a column or has no usable row; `output` holds something else.
      BadRowError: a malformed row, under `bad_rows="error"`.
      OSError: the disk is full; a `StoreError` where an object store cannot be reached or refuses.
    """
    if not 0 <= eval_fraction < 1:
        raise ValueError(f"eval_fraction={eval_fraction} is not in [0, 1)")
    if eval_inputs and eval_fraction:
        raise ValueError("give either eval_inputs or eval_fraction, not both")
    if bad_rows not in ("error", "quarantine"):
        raise ValueError(f"bad_rows={bad_rows!r} is neither 'error' nor 'quarantine'")
    eval_files = sources.expand(eval_inputs) if eval_inputs else []
    job = Job(schema, tuple(sources.expand(inputs)), tuple(eval_files), eval_fraction, seed, bad_rows)
    training = set(map(raw_files.identity, job.train_files))
    for path in job.eval_files:
        if raw_files.identity(path) in training:
            raise ValueError(f"{path}: given for training and for evaluation")
    report = progress or (lambda *_: None)
    with disk_full(f"{output}: run the same command again once there is room, and it goes on where it was"):
        return _in_store(job, output, report) if is_address(output) else _Preparation(job, output, report).run()


def _in_store(job: Job, output: str, progress: Callable[[str, int, int, int], None]) -> Manifest:
    """Prepares in the local copy of `output`, and publishes that when it is whole."""
    mirror = Mirror(output, progress=progress)
    if mirror.listing() is not None:
        manifest = Manifest.of(read_json(join(output, MANIFEST_FILE)))
        _check_same(output, job.fingerprint(), manifest.job)
        return manifest
    mirror.pull()  # says so where what was published is gone
    manifest = _Preparation(job, mirror.path, progress).run()
    mirror.push()
    return manifest


def _check_same(output: str, wanted: dict[str, Any], found: dict[str, Any]) -> None:
    """Makes sure that two jobs come to the same.

    Raises:
      ValueError: saying what differs.
    """
    differing = [key for key in wanted if json.loads(json.dumps(wanted[key])) != found.get(key)]
    if found.get("bad_rows") == "error" and "bad_rows" in differing:
        differing.remove("bad_rows")  # without a bad row, the two come to the same
    if differing:
        raise ValueError(
            f"{output}: already holds data prepared differently ({', '.join(differing)} changed);"
            " choose another output, or remove it"
        )


class _Preparation:
    """One run of `prepare`."""

    def __init__(self, job: Job, output: str, progress: Callable[[str, int, int, int], None]):
        self._job, self._output, self._progress = job, output, progress
        self._work = os.path.join(output, WORK_DIR)

    def run(self) -> Manifest:
        fingerprint = self._job.fingerprint()
        if os.path.exists(os.path.join(self._output, MANIFEST_FILE)):
            manifest = Manifest.load(self._output)
            _check_same(self._output, fingerprint, manifest.job)
            shutil.rmtree(self._work, ignore_errors=True)
            return manifest
        self._begin(fingerprint)
        schema = self._count()
        encoder = Encoder(schema, self._output)
        manifest = self._encode(schema, encoder, fingerprint)
        write_samples(self._output, self._samples(encoder, "eval" if manifest.eval else "train"))
        manifest.save(self._output)
        shutil.rmtree(self._work)
        return manifest

    def _begin(self, fingerprint: dict[str, Any]) -> None:
        started = os.path.join(self._work, "job.json")
        if os.path.exists(started):
            if self._marks("counted") or self._marks("encoded"):
                _check_same(self._output, fingerprint, read_json(started))
                logging.info("%s: going on with an unfinished preparation", self._output)
            else:
                self._discard()
            write_json(started, fingerprint)
            return
        if os.path.isdir(self._output) and set(os.listdir(self._output)) - {WORK_DIR}:
            raise ValueError(f"{self._output}: the directory exists and holds something else; choose another output")
        os.makedirs(self._work, exist_ok=True)
        write_json(started, fingerprint)

    def _discard(self) -> None:
        """Removes what a run left that finished no segment: nothing is lost, whatever it was to prepare."""
        for name in ("train", "eval", VOCABULARY_DIR):
            shutil.rmtree(os.path.join(self._output, name), ignore_errors=True)
        for name in (SCHEMA_FILE, STATISTICS_FILE):
            with contextlib.suppress(FileNotFoundError):
                os.remove(os.path.join(self._output, name))

    # ---- first pass --------------------------------------------------------------------------------------------------

    def _count(self) -> Schema:
        """Writes vocabularies and statistics, and the schema with the size of every table."""
        schema, path = self._job.schema, os.path.join(self._output, SCHEMA_FILE)
        if os.path.exists(path):
            return Schema.load(path)
        settings = {t.name: vocabulary_settings(schema, t) for t in schema.tables}
        if units(schema) or any(settings.values()) or any(needs_statistics(f) for f in schema.dense):
            self._count_segments(BlockCounter(schema))
        os.makedirs(os.path.join(self._output, VOCABULARY_DIR), exist_ok=True)
        counts_dir, rows = os.path.join(self._work, "counts"), {}
        for table in schema.tables:
            setting = settings[table.name]
            if setting:
                size = write_vocabulary(counts_dir, table, *setting, vocabulary_file(self._output, table.name))
                rows[table.name] = size + 1
                if table.rows is not None and table.rows != size + 1:
                    logging.info(
                        "table %r: rows=%d becomes %d, as its vocabulary has", table.name, table.rows, size + 1
                    )
        moments = self._moments()
        self._write_statistics(moments)
        schema = schema.with_rows(rows).with_units(self._units(moments))
        schema.save(path)
        return schema

    def _count_segments(self, counter: BlockCounter) -> None:
        def count(file: int, block: Block) -> Counted:
            return counter(block, lambda numbers: ~self._job.in_eval(file, numbers))

        def finish(name: str, parts: Iterator[Counted]) -> int:
            values, moments = ValueCounts(), self._no_moments()
            rows = kept = 0
            for part in parts:
                self._stop_at(part.bad)
                rows, kept = rows + part.rows, kept + part.kept
                for table, distinct, counts in part.values:
                    values.add(table, distinct, counts)
                moments += part.moments
            values.write(os.path.join(self._work, "counts"), name)
            mark = {"rows": kept, "moments": [moments.count, moments.mean, moments.m2]}
            write_json(self._mark("counted", name), mark)
            return rows

        self._pass("vocabulary", "counted", range(len(self._job.train_files)), count, finish)
        self._check_rows(sum(mark["rows"] for mark in self._marks("counted")))

    def _no_moments(self) -> Moments:
        schema = self._job.schema
        return Moments.of(np.zeros([0, len(schema.dense) + len(units(schema))]))

    def _units(self, moments: Moments) -> dict[str, tuple[float, float]]:
        """Mean and standard deviation of the labels of regressions."""
        found = {}
        for position, number in enumerate(units(self._job.schema), len(self._job.schema.dense)):
            mean, std = float(moments.mean[position]), float(moments.std[position])
            # Labels that are all equal, but for rounding, have no unit of their own.
            found[self._job.schema.label_columns[number]] = mean, std if std > 1e-6 * abs(mean) else 1.0
        return found

    def _moments(self) -> Moments:
        """Of the training rows, as `BlockCounter` counts them."""
        return sum((Moments(*mark["moments"]) for mark in self._marks("counted")), self._no_moments())

    def _write_statistics(self, moments: Moments) -> None:
        schema = self._job.schema
        dense = {}
        for i, f in enumerate(schema.dense):
            if moments.count[i] > 0:
                dense[f.name] = {"count": int(moments.count[i]), "mean": moments.mean[i], "std": moments.std[i]}
            elif needs_statistics(f):
                raise ValueError(f"feature {f.name!r}: no training row has a value in column {f.column!r}")
        write_json(os.path.join(self._output, STATISTICS_FILE), {"dense": dense})

    # ---- second pass -------------------------------------------------------------------------------------------------

    def _encode(self, schema: Schema, encoder: Encoder, fingerprint: dict[str, Any]) -> Manifest:
        encode_block = BlockEncoder(encoder)

        def encode(file: int, block: Block) -> tuple[Encoded, np.ndarray]:
            encoded = encode_block(block)
            return encoded, self._job.in_eval(file, encoded.numbers)

        def finish(name: str, parts: Iterator[tuple[Encoded, np.ndarray]]) -> int:
            return self._write_segment(schema, name, parts)

        self._pass("encode", "encoded", range(len(self._job.files)), encode, finish)
        marks = self._marks("encoded")
        rows = {s: sum(m["rows"][s] for m in marks) for s in ("train", "eval")}
        self._check_rows(rows["train"])
        shards = {
            s: tuple(Shard(f"{s}/{m['name']}.parquet", m["rows"][s]) for m in marks if m["rows"][s]) for s in rows
        }
        unknown: dict[str, int] = collections.Counter()
        for mark in marks:
            unknown.update(mark["out_of_range"])
        self._join_quarantine([f"{m['name']}.jsonl" for m in marks if m["bad"]])
        return Manifest(
            shards["train"], shards["eval"], sum(m["bad"] for m in marks), dict(sorted(unknown.items())), fingerprint
        )

    def _write_segment(self, schema: Schema, name: str, parts: Iterable[tuple[Encoded, np.ndarray]]) -> int:
        """Writes the shards of one segment; they get their final names when whole, and the mark follows them."""
        rows, bad, unknown = {"train": 0, "eval": 0}, 0, collections.Counter[str]()
        paths = {split: os.path.join(self._output, split, f"{name}.parquet") for split in rows}
        quarantine = os.path.join(self._work, f"{name}.jsonl")
        with contextlib.ExitStack() as stack:
            writers: dict[str, pq.ParquetWriter] = {}
            rejects = stack.enter_context(open(quarantine, "w", encoding="utf-8"))
            for encoded, in_eval in parts:
                self._stop_at(encoded.bad)
                rejects.writelines(json.dumps(dataclasses.asdict(b)) + "\n" for b in encoded.bad)
                bad += len(encoded.bad)
                unknown.update(encoded.out_of_range)
                for split, keep in (("train", ~in_eval), ("eval", in_eval)):
                    if not keep.any():
                        continue
                    if split not in writers:
                        os.makedirs(os.path.dirname(paths[split]), exist_ok=True)
                        # Without checksums most flipped bits in a page go unnoticed: they are other valid ids.
                        writers[split] = stack.enter_context(
                            pq.ParquetWriter(
                                paths[split] + ".tmp",
                                encoded_schema(schema),
                                compression="zstd",
                                write_page_checksum=True,
                            )
                        )
                    table = encoded.table if keep.all() else encoded.table.filter(keep)
                    writers[split].write_table(table, row_group_size=ROWS_PER_GROUP)
                    rows[split] += table.num_rows
        for split in writers:
            os.replace(paths[split] + ".tmp", paths[split])
        mark = {"name": name, "rows": rows, "bad": bad, "out_of_range": dict(unknown)}
        write_json(self._mark("encoded", name), mark)
        return sum(rows.values())

    def _join_quarantine(self, names: Sequence[str]) -> None:
        if not names:
            return
        path = os.path.join(self._output, QUARANTINE_FILE)
        with open(path + ".tmp", "wb") as out:
            for name in names:
                with open(os.path.join(self._work, name), "rb") as part:
                    shutil.copyfileobj(part, out)
        os.replace(path + ".tmp", path)

    def _samples(self, encoder: Encoder, split: str) -> list[dict[str, Any]]:
        """The raw form of the first rows of a split."""
        encode_block, samples = BlockEncoder(encoder), list[dict[str, Any]]()
        for file, path in enumerate(self._job.files):
            if split == "eval" and self._job.eval_files and file < len(self._job.train_files):
                continue
            for block in sources.blocks(path, encoder.schema):
                rows = parse(block, encoder.schema)
                keep = np.isin(rows.numbers, encode_block(block).numbers)
                keep &= self._job.in_eval(file, rows.numbers) == (split == "eval")
                samples += raw_values(rows.take(keep), encoder.schema, SAMPLES - len(samples))
                if len(samples) >= SAMPLES:
                    return samples
        return samples

    # ---- what both passes share --------------------------------------------------------------------------------------

    def _pass(
        self,
        stage: str,
        kind: str,
        files: Iterable[int],
        work: Callable[[int, Block], R],
        finish: Callable[[str, Iterator[R]], int],
    ) -> None:
        """Runs `work` on the blocks of all unfinished segments, side by side, and `finish` on each segment in order."""
        os.makedirs(os.path.join(self._work, kind), exist_ok=True)
        sizes = [raw_files.size(self._job.files[file]) for file in files]
        rows, ahead = 0, (os.cpu_count() or 1) + 1
        self._progress(stage, 0, sum(sizes), 0)
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            for file, before in zip(files, itertools.accumulate(sizes, initial=0), strict=False):
                reader = Reader(self._job.files[file], self._job.schema)
                todo = (b for b in reader if not self._is_done(kind, file, b))
                for segment, group in by_segment(pool, functools.partial(work, file), todo, ahead):
                    rows += finish(segment_name(file, segment), group)
                    self._progress(stage, before + reader.position, sum(sizes), rows)
        self._progress(stage, sum(sizes), sum(sizes), rows)

    def _mark(self, kind: str, name: str) -> str:
        return os.path.join(self._work, kind, f"{name}.json")

    def _is_done(self, kind: str, file: int, block: Block) -> bool:
        return os.path.exists(self._mark(kind, segment_name(file, segment_of(block))))

    def _marks(self, kind: str) -> list[dict[str, Any]]:
        directory = os.path.join(self._work, kind)
        names = sorted(os.listdir(directory)) if os.path.isdir(directory) else []
        return [read_json(os.path.join(directory, n)) for n in names if n.endswith(".json")]

    def _check_rows(self, rows: int) -> None:
        if rows == 0:
            more = f" and {len(self._job.train_files) - 1} more files" if len(self._job.train_files) > 1 else ""
            hint = "; bad_rows='error' says what is wrong with the first" if self._job.bad_rows == "quarantine" else ""
            raise ValueError(f"{self._job.train_files[0]}{more}: no usable row for training{hint}")

    def _stop_at(self, bad: Sequence[BadRow]) -> None:
        if bad and self._job.bad_rows == "error":
            raise BadRowError(bad[0])
