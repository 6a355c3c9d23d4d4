"""Joins the request log of a server with labels that came later, to a Parquet file that train/prepare.py reads."""

from absl import flags

from tfrs_dlrm import cli

_LOGS = flags.DEFINE_multi_string("logs", None, "Files of the request log; patterns, may be repeated.", required=True)
_LABELS = flags.DEFINE_string("labels", None, "A .csv, .tsv or .parquet with request_id, row, label.", required=True)
_SCHEMA = flags.DEFINE_string("schema", None, "The schema.json of the model that was served.", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "The .parquet file to write.", required=True)


def main(argv: list[str]) -> None:
    """Runs what the flags say."""
    del argv
    from tfrs_dlrm.schema import Schema
    from tfrs_dlrm.serving.request_logs.labelled import join_labels

    joined = join_labels(_LOGS.value, _LABELS.value, _OUTPUT.value, Schema.load(_SCHEMA.value))
    print(f"Wrote {joined.rows} labelled rows to {_OUTPUT.value}")
    print(f"Left out: {joined.unlabelled} rows without a label, {joined.duplicate_rows} that were logged twice,")
    print(f"  {joined.unmatched_labels} labels of rows that were not logged, {joined.duplicate_labels} second labels.")


if __name__ == "__main__":
    cli.run(main, tensorflow=False)
