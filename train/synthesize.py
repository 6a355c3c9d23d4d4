"""Draws a click log in raw Criteo format from a planted model."""

from absl import flags

from tfrs_dlrm import cli

_OUTPUT = flags.DEFINE_string("output", None, "The directory to write.", required=True)
_TRAIN_ROWS = flags.DEFINE_integer("train_rows", 800_000, "Rows of train.tsv.", lower_bound=1)
_EVAL_ROWS = flags.DEFINE_integer("eval_rows", 100_000, "Rows of eval.tsv.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "Of the planted model and the rows.", lower_bound=0)


def main(argv: list[str]) -> None:
    """Runs what the flags say."""
    del argv
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
    print(f"The planted model itself has AUC {planted.auc:.5f} and log loss {planted.log_loss:.5f} on the latter.")
    print("Next:")
    print(f"  python train/prepare.py --schema={output}/schema.json --input={output}/train.tsv \\")
    print(f"    --eval_input={output}/eval.tsv --output=data/NAME")


if __name__ == "__main__":
    cli.run(main)
