"""Draws a click log from a planted model, whose AUC is the best that a model can reach: one log, or day by day."""

from tfrs_dlrm.programs.commands import command
from tfrs_dlrm.programs.program_flags import ProgramFlags

FLAGS = ProgramFlags(__doc__)
_OUTPUT = FLAGS.string("output", None, "The directory to write.", required=True)
_TRAIN_ROWS = FLAGS.integer("train_rows", 800_000, "The number of rows of train.tsv, in raw Criteo format.", least=1)
_EVAL_ROWS = FLAGS.integer("eval_rows", 100_000, "The number of rows of eval.tsv.", least=1)
_DAYS = FLAGS.integer(
    "days", 0, "Write instead one CSV file for each of so many days, in which values and weights change.", least=0
)
_ROWS = FLAGS.integer("rows", 200_000, "With days: the number of rows of a day.", least=1)
_NEW_VALUES = FLAGS.number(
    "new_values", 0.1, "With days: the share of a day's rows with an item that is new on this day; so many items go."
)
_DRIFT = FLAGS.number(
    "drift", 0.07, "With days: how much popularity and true weights turn in a day; after 1 / drift days all is new."
)
_SEED = FLAGS.integer("seed", 0, "The seed of the planted model and of the rows.", least=0)
FLAGS.stopped = lambda: f"The log in {_OUTPUT.value} is not complete: the same command draws it again."


def main() -> None:
    """Writes the logs and their schema."""
    if _DAYS.value:
        _write_days()
    else:
        _write_log()


def _write_log() -> None:
    from tfrs_dlrm.data.synthetic.synthetic import generate
    from tfrs_dlrm.programs.progress_bars import PrepareBar

    output, total = _OUTPUT.value, _TRAIN_ROWS.value + _EVAL_ROWS.value
    with PrepareBar() as bar:
        planted = generate(
            output,
            _TRAIN_ROWS.value,
            _EVAL_ROWS.value,
            _SEED.value,
            lambda rows: bar("generate", rows, total, rows),
        )
    print(f"Wrote {_TRAIN_ROWS.value:,} rows to {output}/train.tsv and {planted.rows:,} to {output}/eval.tsv.")
    print(f"On eval.tsv, the planted model has AUC {planted.auc:.5f} and log loss {planted.log_loss:.5f}.")
    inputs = [f"--schema={output}/schema.json", f"--input={output}/train.tsv", f"--eval_input={output}/eval.tsv"]
    print(f"Next:\n  {command('prepare', *inputs, '--output=data/synthetic')}")


def _write_days() -> None:
    from tfrs_dlrm.data.synthetic.days import generate_days
    from tfrs_dlrm.programs.progress_bars import PrepareBar

    output, total = _OUTPUT.value, _DAYS.value * _ROWS.value
    with PrepareBar() as bar:
        days = generate_days(
            output,
            _DAYS.value,
            _ROWS.value,
            _SEED.value,
            _NEW_VALUES.value,
            _DRIFT.value,
            lambda rows: bar("generate", rows, total, rows),
        )
    print(f"{'file':16}{'rows':>10}{'best AUC':>10}{'clicks':>9}{'new items':>11}")
    for day in days:
        new = day.new_values["item"]
        print(f"{day.file:16}{day.rows:>10,}{day.auc:>10.5f}{day.label_mean:>9.1%}{new:>11.1%}")
    print(f"Wrote {output}; planted.json has these numbers.")
    inputs = [f"--schema={output}/schema.json", f"--input={output}/{days[0].file}"]
    print(f"Next:\n  {command('prepare', *inputs, f'--output=data/{days[0].day}')}")
