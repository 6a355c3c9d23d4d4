"""Encodes raw logs as Parquet, with vocabularies and the schema; a run that was killed resumes when started again."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tfrs_dlrm.programs.commands import command
from tfrs_dlrm.programs.program_flags import ProgramFlags

if TYPE_CHECKING:
    from tfrs_dlrm.data.preparing.manifest import PreparedManifest
    from tfrs_dlrm.schema import Schema

FLAGS = ProgramFlags(__doc__)
_SCHEMA = FLAGS.string(
    "schema", None, "The schema of the log, a JSON file; `infer` proposes one. With --base, the base's by default."
)
_INPUT = FLAGS.multi_string("input", "A file, directory or glob pattern of the log; may be repeated.", required=True)
_EVAL_INPUT = FLAGS.multi_string("eval_input", "A file, directory or glob of the evaluation set; may be repeated.")
_EVAL_FRACTION = FLAGS.number("eval_fraction", 0.0, "The share of the input's rows to evaluate on, drawn at random.")
_EVAL_AFTER = FLAGS.string(
    "eval_after", None, "A date or time in UTC, such as 2026-11-25: the rows from then on are for evaluation."
)
_TIME = FLAGS.string("time", None, "The column of the times, for eval_after and keep_order; it need not be a feature.")
_TIME_FORMAT = FLAGS.string(
    "time_format",
    None,
    "How the times are written: iso8601, epoch_seconds, epoch_millis, or directives such as %y%m%d%H. By default the"
    " schema's, or as the first rows are written.",
)
_KEEP_ORDER = FLAGS.switch("keep_order", False, "Write the training rows in the order of their times.")
_SPLIT_BY = FLAGS.string(
    "split_by", None, "A column, such as the user: no value of it is in both sets; eval_fraction is a share of values."
)
_KEEP_NEGATIVES = FLAGS.number(
    "keep_negatives",
    None,
    "The share of the training rows with label 0 to keep, drawn at random; models correct for it. By default the"
    " schema's, usually 1.",
)
_SEED = FLAGS.integer("seed", 0, "The seed of these draws.")
_BAD_ROWS = FLAGS.enum("bad_rows", "error", ["error", "quarantine"], "Fail at a malformed row, or set it aside.")
_ENGINE = FLAGS.enum(
    "engine", "duckdb", ["duckdb", "spark"], "Run on this machine or on Spark; see docs/guides/cluster.md."
)
_MASTER = FLAGS.string(
    "master", None, "For Spark: spark://HOST:PORT, yarn or k8s://HOST; by default local[*], this machine."
)
_OUTPUT = FLAGS.string(
    "output",
    None,
    "The directory to write. Meanwhile it also holds parsed rows, half as much as the log, if the disk has room.",
    required=True,
)
_BASE = FLAGS.string(
    "base", None, "Prepared data of earlier days: its values keep their rows, and new values get rows behind them."
)
_HALF_LIFE = FLAGS.string(
    "half_life", None, "For --base: the time in which its counts halve: 7d is days, 3 preparations. By default never."
)
_REFRESH = FLAGS.switch(
    "refresh_statistics", False, "For --base: take means, deviations and edges of buckets from the new rows."
)
_DAY = FLAGS.string("day", None, "The date of the log, YYYY-MM-DD, for a half-life in days.")
_SHOWN = 10
FLAGS.stopped = lambda: f"What is finished is kept in {_OUTPUT.value}: the same command resumes."


def main() -> None:
    """Prepares the log, and prints the numbers of rows and the sizes of the tables."""
    from tfrs_dlrm.config.recipes import find_schema
    from tfrs_dlrm.data.preparing.prepare import prepare
    from tfrs_dlrm.data.preparing.workspace import QUARANTINE_FILE
    from tfrs_dlrm.programs.progress_bars import PrepareBar
    from tfrs_dlrm.schema import SCHEMA_FILE, Schema

    output = _OUTPUT.value
    with PrepareBar() as bar:
        manifest = prepare(
            Schema.load(find_schema(_SCHEMA.value)) if _SCHEMA.value else None,
            _INPUT.value,
            output,
            base=_BASE.value,
            half_life=_HALF_LIFE.value,
            refresh_statistics=_REFRESH.value,
            day=_DAY.value,
            eval_inputs=_EVAL_INPUT.value,
            eval_fraction=_EVAL_FRACTION.value,
            eval_after=_EVAL_AFTER.value,
            time=_TIME.value,
            time_format=_TIME_FORMAT.value,
            keep_order=_KEEP_ORDER.value,
            split_by=_SPLIT_BY.value,
            seed=_SEED.value,
            keep_negatives=_KEEP_NEGATIVES.value,
            bad_rows=_BAD_ROWS.value,
            engine=_ENGINE.value,
            master=_MASTER.value,
            progress=bar,
        )
    schema = Schema.load(os.path.join(output, SCHEMA_FILE))
    files, for_eval = len(manifest.job["files"]), manifest.job["eval_files"]
    _print_counts("Files", {"train": files - for_eval, "eval": for_eval})
    rows = {"train": manifest.rows("train"), "eval": manifest.rows("eval"), "bad": manifest.bad_rows}
    _print_counts("Rows", rows | _dropped(manifest))
    for split, (first, last) in _times(manifest).items():
        print(f"Times, {split}: {first} to {last}")
    _print_counts("Tables, in rows", {table.name: table.vocabulary_size or 0 for table in schema.tables})
    _print_counts("Values without a row", {n: c for n, c in manifest.out_of_range.items() if c})
    for note in _label_notes(manifest, schema):
        print(f"Note: {note}.")
    aside = f"; the bad rows are in {os.path.join(output, QUARANTINE_FILE)}" if manifest.bad_rows else ""
    print(f"Wrote {output}{aside}.\nNext:")
    name = os.path.basename(os.path.abspath(output))
    arguments = ["--config=configs/default.py", f"--config.data.path={output}", f"--workdir=runs/{name}"]
    print(f"  {command('train', *arguments)}")


def _times(manifest: PreparedManifest) -> dict[str, list[str]]:
    """Returns the first and last time of each split, where rows were split by times."""
    found = manifest.split.get("time", {})
    return {split: found[split] for split in ("train", "eval") if split in found}


def _dropped(manifest: PreparedManifest) -> dict[str, int]:
    """Counts the negative rows that were left out."""
    from tfrs_dlrm.data.preparing.manifest import LOG

    found = manifest.labels.get(LOG, {}).get("label")
    return {"dropped negatives": found.count - manifest.labels["train"]["label"].count} if found else {}


def _label_notes(manifest: PreparedManifest, schema: Schema) -> list[str]:
    """Says what the labels of the splits do not allow."""
    from tfrs_dlrm.data.preparing.label_counts import label_notes

    notes = label_notes(schema, manifest.labels)
    if (_EVAL_INPUT.value or _EVAL_FRACTION.value) and not manifest.eval:
        bad = f"; {manifest.bad_rows:,} malformed rows were set aside" if manifest.bad_rows else ""
        notes.append(f"the evaluation set has no row{bad}: a run then keeps its last checkpoint as the best")
    return notes


def _check_engine() -> None:
    """Fails at once if Spark is asked for and cannot be had."""
    if _ENGINE.value == "spark":
        from tfrs_dlrm.data.preparing.engines import spark_session

        spark_session.check(_MASTER.value)


def _check_schema() -> None:
    """Fails at once if nothing says what the log contains."""
    if not _SCHEMA.value and not _BASE.value:
        raise ValueError("--schema must be given, or --base, whose schema it then is; --help lists the flags")


FLAGS.before += [_check_schema, _check_engine]


def _print_counts(title: str, counts: dict[str, int]) -> None:
    """Prints the counts in a column: all in their order, or the largest of many."""
    shown = sorted(counts.items(), key=lambda item: -item[1])[:_SHOWN] if len(counts) > _SHOWN else list(counts.items())
    if not shown:
        return
    names, numbers = max(len(name) for name, _ in shown), max(len(f"{count:,}") for _, count in shown)
    print(f"{title}:")
    for name, count in shown:
        print(f"  {name:{names}}  {count:{numbers},}")
    if len(counts) > len(shown):
        print(f"  and {len(counts) - len(shown)} more")
