"""Plays days through, and compares a model that stays, one that is updated, and one that is trained from scratch."""

import dataclasses
import os

from tfrs_dlrm.programs.program_flags import ProgramFlags
from tfrs_dlrm.programs.update_flags import define_update_flags

FLAGS = ProgramFlags(__doc__)
_CONFIG = FLAGS.config("default")
_SCHEMA = FLAGS.string("schema", None, "The schema of the logs, a JSON file.", required=True)
_INPUT = FLAGS.multi_string(
    "input", "Logs: files, directories or globs, a file a day in order; repeatable.", required=True
)
_DAYS_BY = FLAGS.string("days_by", "", "The column of times that tells the day of a row, if files are not days.")
_TIME_FORMAT = FLAGS.string("time_format", "", "How these times are written; by default it is found in the first rows.")
_OUTPUT = FLAGS.string("output", "runs/backtest", "The directory of runs and results.")
_SCRATCH = FLAGS.switch("scratch", True, "Also train on all days before from scratch each day, which takes longest.")
_OPTIONS = define_update_flags(FLAGS)
_HALF_LIFE = FLAGS.string("half_life", "", "Of updates: in how many updates counts of values halve.")
FLAGS.stopped = lambda: f"Finished days are kept in {_OUTPUT.value}: the same command continues."


def main() -> None:
    """Plays the days through, and writes a table and a picture."""
    from tfrs_dlrm import plots
    from tfrs_dlrm.config.recipes import find_schema
    from tfrs_dlrm.data.preparing.days import split_into_days
    from tfrs_dlrm.data.raw.frames import expand_inputs
    from tfrs_dlrm.programs.many_models import without_tracing_warnings
    from tfrs_dlrm.programs.resumable import resumable
    from tfrs_dlrm.schema import Schema
    from tfrs_dlrm.tools.update.backtest import Backtest, backtest_table

    options = _OPTIONS(half_life=_HALF_LIFE.value)
    schema = Schema.load(find_schema(_SCHEMA.value))
    if column := _DAYS_BY.value:
        directory = os.path.join(_OUTPUT.value, "days")
        days = split_into_days(schema, _INPUT.value, column, directory, _TIME_FORMAT.value or None)
        print(f"{directory}: {len(days)} days", flush=True)
    else:
        days = [str(file) for file in expand_inputs(_INPUT.value, "input")]
    test = Backtest(_CONFIG.value, schema, days, _OUTPUT.value, options, _SCRATCH.value)
    with resumable("backtest"), without_tracing_warnings():
        results = test.run(lambda line: print(line, flush=True))
    picture = os.path.join(_OUTPUT.value, "backtest.png")
    plots.save_figure(plots.backtest([dataclasses.asdict(result) for result in results]), picture)
    print(f"\n{backtest_table(results)}\n\nDrew {picture}.")
