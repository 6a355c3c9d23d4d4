"""Joins the request log of a server with labels that came later, as a Parquet file for `prepare`."""

from tfrs_dlrm.programs.program_flags import ProgramFlags

FLAGS = ProgramFlags(__doc__, tensorflow=False)
_LOGS = FLAGS.multi_string("logs", "A file, directory or glob of the request log; may be repeated.", required=True)
_LABELS = FLAGS.string(
    "labels",
    None,
    "A file (TSV, CSV, Parquet) with the columns request_id, row and label, and those that are training_only.",
    required=True,
)
_SCHEMA = FLAGS.string("schema", None, "The schema.json of the served model.", required=True)
_OUTPUT = FLAGS.string("output", None, "The .parquet file to write.", required=True)
FLAGS.stopped = lambda: "Nothing was written: the same command joins again."


def main() -> None:
    """Writes the labelled rows, and prints how many were left out."""
    from tfrs_dlrm.schema import Schema
    from tfrs_dlrm.serving.request_logs.label_join import join_labels

    joined = join_labels(_LOGS.value, _LABELS.value, _OUTPUT.value, Schema.load(_SCHEMA.value))
    print(f"Wrote {joined.rows} labelled rows to {_OUTPUT.value}")
    print(f"Left out: {joined.unlabelled} rows without a label, {joined.duplicate_rows} that were logged twice,")
    print(f"  {joined.unmatched_labels} labels of rows that were not logged, {joined.duplicate_labels} second labels.")
    if joined.lacking:
        print(
            f"Missing in all rows: {', '.join(joined.lacking)}, which requests lack; add the columns to the labels if"
            " they are known."
        )
