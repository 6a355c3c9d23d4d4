"""Raw logs to encoded Parquet, with the schema and vocabularies beside them. Killed, it goes on when started again."""

import os
from typing import cast

from absl import flags

from tfrs_dlrm import cli

_SCHEMA = flags.DEFINE_string("schema", None, "The description of the log; see train/infer_schema.py.", required=True)
_INPUT = flags.DEFINE_multi_string("input", None, "A file or glob pattern; may be repeated.", required=True)
_EVAL_INPUT = flags.DEFINE_multi_string("eval_input", [], "Likewise, for evaluation; or")
_EVAL_FRACTION = flags.DEFINE_float("eval_fraction", 0.0, "the share of the input's rows to evaluate on, at random.")
_SEED = flags.DEFINE_integer("seed", 0, "Of that choice.")
_BAD_ROWS = flags.DEFINE_enum(
    "bad_rows", "error", ["error", "quarantine"], "Stop at malformed rows, or set them aside."
)
_ENGINE = flags.DEFINE_enum("engine", "duckdb", ["duckdb", "spark"], "On this machine, or on Spark: docs/cluster.md.")
_MASTER = flags.DEFINE_string("master", None, "Of Spark: local[*] (the default), spark://HOST:PORT, yarn, k8s://HOST.")
_OUTPUT = flags.DEFINE_string("output", None, "The directory to write.", required=True)
_SHOWN = 10


def main(argv: list[str]) -> None:
    """Runs what the flags say."""
    del argv
    from tfrs_dlrm.data.preparing.engines import EngineName
    from tfrs_dlrm.data.preparing.prepare import BadRows, prepare
    from tfrs_dlrm.data.preparing.workspace import QUARANTINE_FILE
    from tfrs_dlrm.programs.progress_bars import PrepareBar
    from tfrs_dlrm.schema import SCHEMA_FILE, Schema

    output = _OUTPUT.value
    with PrepareBar() as bar:
        manifest = prepare(
            Schema.load(_SCHEMA.value),
            _INPUT.value,
            output,
            eval_inputs=_EVAL_INPUT.value,
            eval_fraction=_EVAL_FRACTION.value,
            seed=_SEED.value,
            bad_rows=cast(BadRows, _BAD_ROWS.value),
            engine=cast(EngineName, _ENGINE.value),
            master=_MASTER.value,
            progress=bar,
        )
    tables = Schema.load(os.path.join(output, SCHEMA_FILE)).tables
    _print_counts("Rows", {"train": manifest.rows("train"), "eval": manifest.rows("eval"), "bad": manifest.bad_rows})
    _print_counts("Tables, in rows", {table.name: table.vocabulary_size or 0 for table in tables})
    _print_counts("Values without a row of their own", {n: c for n, c in manifest.out_of_range.items() if c})
    aside = f"; the bad rows are in {os.path.join(output, QUARANTINE_FILE)}" if manifest.bad_rows else ""
    print(f"Wrote {output}{aside}.\nNext:")
    name = os.path.basename(os.path.abspath(output))
    print(f"  python train/main.py --config=configs/default.py --config.data.path={output} --workdir=runs/{name}")


def check_engine() -> None:
    """Ends at once where Spark is asked for and cannot be had."""
    if _ENGINE.value == "spark":
        from tfrs_dlrm.data.preparing.engines import spark_session

        spark_session.check(_MASTER.value)


def _print_counts(title: str, counts: dict[str, int]) -> None:
    """The largest counts, lined up; nothing where there are none. Rows keep their order."""
    shown = sorted(counts.items(), key=lambda item: -item[1])[:_SHOWN] if len(counts) > _SHOWN else list(counts.items())
    if not shown:
        return
    names, numbers = max(len(name) for name, _ in shown), max(len(f"{count:,}") for _, count in shown)
    print(f"{title}:")
    for name, count in shown:
        print(f"  {name:{names}}  {count:{numbers},}")
    if len(counts) > len(shown):
        print(f"  and {len(counts) - len(shown)} more")


if __name__ == "__main__":
    cli.run(main, before=check_engine)
