"""Exports a trained run as a SavedModel that takes the raw values of the log."""

import os

from absl import flags

from tfrs_dlrm import cli

_WORKDIR = flags.DEFINE_string("workdir", None, "The directory of the run.", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "The directory of the model's versions.", required=True)
_CHECKPOINT = flags.DEFINE_enum("checkpoint", "best", ["best", "latest"], "Which weights to export.")
_CONTEXT = flags.DEFINE_list(
    "context", [], "Features that all candidates of a request share, as of the user: makes the signature `rank`."
)
_TABLES = flags.DEFINE_enum("tables", "float32", ["float32", "float16", "int8"], "How the rows of tables are stored.")
_DATA = flags.DEFINE_string("data", None, "Prepared data to compare smaller tables on; by default those of the run.")
_KEEP = flags.DEFINE_integer("keep", None, "How many of the newest versions to keep; by default all.", lower_bound=1)


def main(argv: list[str]) -> None:
    """Runs what the flags say."""
    del argv
    from tfrs_dlrm.serving.bundle.bundle import EXAMPLE_FILE, Options, export
    from tfrs_dlrm.stores import is_store_url

    options = Options(tuple(_CONTEXT.value), _TABLES.value, _KEEP.value, _DATA.value)  # type: ignore[arg-type]
    exported = export(_WORKDIR.value, _OUTPUT.value, _CHECKPOINT.value, options)  # type: ignore[arg-type]
    found, name = exported.comparison, os.path.basename(os.path.abspath(_OUTPUT.value))
    print(f"Exported {exported.checkpoint}\n      to {exported.path}")
    print(
        f"Loaded it again: on {found.rows} raw rows and {found.odd_rows} rows of missing, unseen and malformed values,"
        f" its answers are within {found.largest_difference:.1e} of the training side's."
    )
    if cost := found.cost:
        changes = ", ".join(f"{name} {before:.6f} -> {after:.6f}" for name, (before, after) in cost.metrics.items())
        print(
            f"Tables in {_TABLES.value}, on {cost.examples:,} examples: {changes}, largest change of an answer"
            f" {cost.largest_change:.2g}."
        )
    print(f"{os.path.join(exported.path, 'MODEL.md')} says what can be asked of it.")
    print(f"Next, here:\n  python export/verify.py {_OUTPUT.value}\n  python export/serve.py {_OUTPUT.value}")
    if is_store_url(_OUTPUT.value):
        version = exported.path.rpartition("/")[2]
        copy = "aws s3 sync" if _OUTPUT.value.startswith("s3:") else "gcloud storage rsync --recursive"
        print(f"or copied to a disk, for TF Serving:\n  {copy} {exported.path} /models/{name}/{version}")
        return
    print("or with TF Serving in Docker:")
    print(f"  docker run -p 8501:8501 -v {os.path.abspath(_OUTPUT.value)}:/models/{name} -e MODEL_NAME={name} \\")
    print("    tensorflow/serving")
    request = os.path.join(exported.path, "assets.extra", EXAMPLE_FILE)
    print(f"  curl -d @{request} http://localhost:8501/v1/models/{name}:predict")


if __name__ == "__main__":
    cli.run(main)
