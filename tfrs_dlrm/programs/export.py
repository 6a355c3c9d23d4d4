"""Exports a trained run as a SavedModel that takes the raw values of the log, for TF Serving."""

import os
import shlex

from tfrs_dlrm.programs.commands import command
from tfrs_dlrm.programs.program_flags import ProgramFlags

FLAGS = ProgramFlags(__doc__)
_WORKDIR = FLAGS.string("workdir", None, "The directory of the run.", required=True)
_OUTPUT = FLAGS.string("output", None, "The directory of the model's versions.", required=True)
_CHECKPOINT = FLAGS.enum("checkpoint", "best", ["best", "latest"], "The checkpoint to export.")
_CONTEXT = FLAGS.texts(
    "context", [], "Features that all candidates of a request share, such as the user; adds the signature `rank`."
)
_TABLES = FLAGS.enum("tables", "float32", ["float32", "float16", "int8"], "How to store the rows of the tables.")
_DATA = FLAGS.string("data", None, "Prepared data to measure smaller tables on; by default the data of the run.")
_KEEP = FLAGS.integer("keep", None, "How many of the newest versions to keep; by default all.", least=1)
FLAGS.stopped = lambda: f"{_OUTPUT.value} has no new version: the same command exports again."


def main() -> None:
    """Exports the run, and prints how to serve it."""
    from tfrs_dlrm.serving.bundle.manifest import EXAMPLE
    from tfrs_dlrm.serving.exporting.export import ExportOptions, export
    from tfrs_dlrm.stores import is_store_url

    options = ExportOptions(tuple(_CONTEXT.value), _TABLES.value, _KEEP.value, _DATA.value)
    exported = export(_WORKDIR.value, _OUTPUT.value, _CHECKPOINT.value, options)
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
    print(f"{os.path.join(exported.path, 'MODEL.md')} lists the requests that it answers.")
    print(f"Next, on this machine:\n  {command('verify', _OUTPUT.value)}\n  {command('serve', _OUTPUT.value)}")
    if is_store_url(_OUTPUT.value):
        version = exported.path.rpartition("/")[2]
        copy = "aws s3 sync" if _OUTPUT.value.startswith("s3:") else "gcloud storage rsync --recursive"
        target = shlex.quote(f"/models/{name}/{version}")
        print(f"or copied to a disk, for TF Serving:\n  {copy} {shlex.quote(exported.path)} {target}")
        return
    volume = shlex.quote(f"{os.path.abspath(_OUTPUT.value)}:/models/{name}")
    request = shlex.quote(f"@{os.path.join(exported.path, EXAMPLE)}")
    print("or with TF Serving in Docker:")
    print(f"  docker run -p 8501:8501 -v {volume} -e MODEL_NAME={shlex.quote(name)} \\")
    print("    tensorflow/serving")
    print(f"  curl -d {request} {shlex.quote(f'http://localhost:8501/v1/models/{name}:predict')}")
