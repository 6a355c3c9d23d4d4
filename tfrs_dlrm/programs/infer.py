"""Proposes a schema from the first rows of a log: read it, and correct it before you prepare the log."""

import os

from tfrs_dlrm.programs.commands import command
from tfrs_dlrm.programs.program_flags import ProgramFlags

FLAGS = ProgramFlags(__doc__, tensorflow=False)
_INPUT = FLAGS.string("input", None, "A file (TSV, CSV, Parquet), directory or glob pattern.", required=True)
_OUTPUT = FLAGS.string("output", None, "The JSON file to write.", required=True)
_LABEL = FLAGS.string("label", None, "The column of the label; by default found by its name.")
_TASK = FLAGS.enum(
    "task", "classification", ["classification", "regression"], "Whether the label is 0 or 1, or any number."
)
_COLUMNS = FLAGS.texts("columns", [], "The names of the columns of a text file without a header line.")
_DELIMITER = FLAGS.string("delimiter", None, "What separates the fields of a text file; by default found in the file.")
_ROWS = FLAGS.integer("rows", 100_000, "How many rows to look at, of the first files.", least=1)
_FORCE = FLAGS.switch("force", False, "Overwrites an existing output.")
FLAGS.stopped = lambda: "No schema was written: the same command looks again."


def main() -> None:
    """Writes the schema, and prints what each column was taken for."""
    from tfrs_dlrm.data.raw.infer import infer_schema
    from tfrs_dlrm.stores.files import check_writable_place, local_path

    path = _OUTPUT.value
    if os.path.exists(path) and not _FORCE.value:
        raise FileExistsError(f"{path} exists and may hold your changes; --force overwrites it")
    check_writable_place(os.path.dirname(local_path(path)))
    delimiter = _DELIMITER.value and _DELIMITER.value.replace("\\t", "\t")
    proposal = infer_schema(
        _INPUT.value,
        label=_LABEL.value,
        columns=_COLUMNS.value,
        delimiter=delimiter,
        rows=_ROWS.value,
        task=_TASK.value,
    )
    os.makedirs(os.path.dirname(os.path.abspath(local_path(path))), exist_ok=True)
    proposal.schema.save(path)
    kinds = proposal.kinds()
    rows = [(column, kind, proposal.certainty[column], proposal.notes[column]) for column, kind in kinds.items()]
    rows.sort(key=lambda row: row[2] != "guess")  # guesses first: they are what to look at
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    for *cells, note in rows:
        print("  ".join([*(f"{cell:{width}}" for cell, width in zip(cells, widths, strict=True)), note]))
    guesses = sum(certainty == "guess" for certainty in proposal.certainty.values())
    if guesses:
        print(
            f"\nLook at the first {guesses}: guesses that you know better."
            if guesses > 1
            else "\nLook at the first: a guess that you know better."
        )
    of_files = f" of {proposal.files} of {proposal.all_files} files" if proposal.all_files > 1 else ""
    print(
        f"\nLooked at {proposal.rows:,} rows{of_files}.\nWrote {path}. Read it, and change what you know better.\nNext:"
    )
    name = os.path.splitext(os.path.basename(path))[0]
    inputs = [f"--schema={path}", f"--input={_INPUT.value}", "--eval_fraction=0.1"]
    print(f"  {command('prepare', *inputs, f'--output=data/{name}')}")
