"""Draws a click log in raw Criteo format from a planted model, whose AUC is the best that a model can reach."""

from tfrs_dlrm.programs.commands import command
from tfrs_dlrm.programs.program_flags import ProgramFlags

FLAGS = ProgramFlags(__doc__)
_OUTPUT = FLAGS.string("output", None, "The directory to write.", required=True)
_TRAIN_ROWS = FLAGS.integer("train_rows", 800_000, "The number of rows of train.tsv.", least=1)
_EVAL_ROWS = FLAGS.integer("eval_rows", 100_000, "The number of rows of eval.tsv.", least=1)
_SEED = FLAGS.integer("seed", 0, "The seed of the planted model and of the rows.", least=0)
FLAGS.stopped = lambda: f"The log in {_OUTPUT.value} is not complete: the same command draws it again."


def main() -> None:
    """Writes the logs and their schema."""
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
