"""Trains the model of a run on the log of a new day, and exports it; one that got worse is left out."""

import dataclasses
import os
import sys

from tfrs_dlrm.programs.commands import command
from tfrs_dlrm.programs.launch import EXIT_REJECTED, define_strategy
from tfrs_dlrm.programs.program_flags import ProgramFlags
from tfrs_dlrm.programs.update_flags import define_update_flags

FLAGS = ProgramFlags(__doc__)
_WORKDIR = FLAGS.string("workdir", None, "The directory of the run, which then has the new model.", required=True)
_INPUT = FLAGS.multi_string("input", "A file, directory or glob of the new log; may be repeated.", required=True)
_EXPORT = FLAGS.string("export", "", "The directory of the served model's versions; empty exports nothing.")
_OPTIONS = define_update_flags(FLAGS)
_TOLERANCE = FLAGS.number(
    "tolerance",
    0.01,
    "How much higher the log loss (or RMSE) of the new model may be than the current model's on the held-out rows, as a"
    " share of it.",
)
_REPLAY_DAYS = FLAGS.integer(
    "replay_days", 7, "Of how many days before rows are mixed in; their prepared logs are kept.", least=1
)
_HALF_LIFE = FLAGS.string(
    "half_life", "", "The time in which counts of values halve: 7d is days, 3 updates. By default never."
)
_DAY = FLAGS.string("day", "", "The date of the log, YYYY-MM-DD; earlier days than the last are refused.")
_BAD_ROWS = FLAGS.enum("bad_rows", "error", ["error", "quarantine"], "Fail at a malformed row, or leave it out.")
_KEEP = FLAGS.integer("keep", 0, "How many of the newest exported versions to keep; by default all.", least=0)
_STRATEGY = define_strategy(FLAGS, trains=True)
FLAGS.stopped = lambda: "The same command continues the update."
_SHOWN = 14


def main() -> None:
    """Updates the run, and prints what changed; the exit code is `EXIT_REJECTED` if the new model is worse."""
    from tfrs_dlrm import plots
    from tfrs_dlrm.programs.many_models import without_tracing_warnings
    from tfrs_dlrm.programs.progress_bars import PrepareBar
    from tfrs_dlrm.programs.resumable import resumable
    from tfrs_dlrm.tools.update import decision_line, read_updates, scores_table, update, updates_table
    from tfrs_dlrm.tools.update.places import UPDATES_PICTURE

    options = _OPTIONS(
        tolerance=_TOLERANCE.value,
        replay_days=_REPLAY_DAYS.value,
        half_life=_HALF_LIFE.value,
        day=_DAY.value,
        bad_rows=_BAD_ROWS.value,
        export=_EXPORT.value,
        keep_versions=_KEEP.value,
    )
    workdir = _WORKDIR.value
    with resumable("update"), PrepareBar() as bar, without_tracing_warnings():
        found = update(workdir, _INPUT.value, options, _STRATEGY(), bar, show_progress=True)
    record, records = found.record, read_updates(workdir)
    picture = os.path.join(workdir, UPDATES_PICTURE)
    plots.save_figure(plots.updates([dataclasses.asdict(each) for each in records]), picture)
    print(f"{workdir}, update {record.update}{' (done by an earlier command)' if found.earlier else ''}\n")
    print(f"{scores_table(record)}\n\n{updates_table(records[-_SHOWN:])}\n")
    print(f"{decision_line(record)}\nDrew {picture}.")
    if record.version:
        print(f"Exported version {record.version} to {record.options['export']}.")
    elif record.accepted and _EXPORT.value:
        print(f"Nothing was exported to {_EXPORT.value}: an update without --export used the log.")
    if not record.accepted:
        sys.exit(EXIT_REJECTED)
    print(f"Next:\n  {command('evaluate', f'--workdir={workdir}')}")
    if not record.version:
        output = f"--output=exports/{os.path.basename(os.path.abspath(workdir))}"
        print(f"  {command('export', f'--workdir={workdir}', output)}")
