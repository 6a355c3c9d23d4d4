"""Proposes a schema from the first rows of a log; read it and mend it before you prepare."""

import os

from absl import flags

from tfrs_dlrm import cli

_INPUT = flags.DEFINE_string("input", None, "A TSV, CSV (plain or .gz) or Parquet file.", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "The JSON file to write.", required=True)
_LABEL = flags.DEFINE_string("label", None, "The column of the label, where its name does not say so.")
_TASK = flags.DEFINE_enum(
    "task", "classification", ["classification", "regression"], "Whether the label is a 0 or 1, or any number."
)
_COLUMNS = flags.DEFINE_list("columns", [], "The names of the columns, for text files without a header line.")
_DELIMITER = flags.DEFINE_string("delimiter", None, "Between the fields of text files; found where not given.")
_ROWS = flags.DEFINE_integer("rows", 100_000, "How many rows to look at.", lower_bound=1)
_FORCE = flags.DEFINE_bool("force", False, "Overwrites the output where it exists.")


def main(argv: list[str]) -> None:
    """Runs what the flags say."""
    del argv
    from tfrs_dlrm.data.raw.infer import infer_schema
    from tfrs_dlrm.stores.files import local_path

    path = _OUTPUT.value
    if os.path.exists(path) and not _FORCE.value:
        raise FileExistsError(f"{path} exists, perhaps with changes of yours; --force overwrites it")
    delimiter = _DELIMITER.value and _DELIMITER.value.replace("\\t", "\t")
    proposal = infer_schema(
        _INPUT.value,
        label=_LABEL.value,
        columns=_COLUMNS.value,
        delimiter=delimiter,
        rows=_ROWS.value,
        task=_TASK.value,  # type: ignore[arg-type]
    )
    os.makedirs(os.path.dirname(os.path.abspath(local_path(path))), exist_ok=True)
    proposal.schema.save(path)
    kinds = proposal.kinds()
    columns, words = (max(map(len, texts)) for texts in (kinds, kinds.values()))
    for column, kind in kinds.items():
        print(f"{column:{columns}}  {kind:{words}}  {proposal.notes[column]}")
    print(f"\nWrote {path}. Read it and change what you know better.\nNext:")
    name = os.path.splitext(os.path.basename(path))[0]
    print(f"  python train/prepare.py --schema={path} --input={_INPUT.value} --eval_fraction=0.1 --output=data/{name}")


if __name__ == "__main__":
    cli.run(main, tensorflow=False)
