"""What the studies of models on planted logs share: flags, logs on disk, comparisons, and a report that is kept."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import flags
from machine import describe, machine

FLAGS = flags.FLAGS


def define_flags(rows: int, rows_help: str, seeds: int = 3) -> None:
    """Defines --quick, --rows, --seeds and --output of a study."""
    flags.DEFINE_bool("quick", False, "Few rows and one seed.")
    flags.DEFINE_integer("rows", rows, rows_help)
    flags.DEFINE_integer("seeds", seeds, "Runs of each model, or of each log.")
    flags.DEFINE_string("output", None, "Of logs, runs and results; default: benchmarks/results-STUDY.")


class Study:
    """One run of a study.

    Args:
      name: of its directory of results, if --output says nothing else.
      quick_rows: of the training log with --quick.

    Attributes:
      rows: of the training log.
      seeds: the number of runs of each model.
      report: the machine and the size of the study.
    """

    def __init__(self, name: str, quick_rows: int = 4_000) -> None:
        self.rows, self.seeds = (quick_rows, 1) if FLAGS.quick else (FLAGS.rows, FLAGS.seeds)
        self._output = FLAGS.output or f"benchmarks/results-{name}"
        self.report: dict[str, Any] = {"machine": machine(), "quick": FLAGS.quick, "rows": self.rows}
        print(describe(self.report["machine"]))

    def directory(self, log: str) -> str:
        """Returns the directory of a log and its runs."""
        return os.path.join(self._output, log)

    def save(self, report: dict[str, Any]) -> None:
        """Writes a report, `report` of this class and what was found."""
        with open(os.path.join(self._output, "results.json"), "w", encoding="utf-8") as f:
            json.dump(report, f, indent=2)


def prepared(directory: str, schema: Any, columns: dict[str, Any], rows: int) -> str:
    """Writes and prepares a log, unless the directory has it: `rows` rows to train on, the others for evaluation."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    import tfrs_dlrm as td

    output = os.path.join(directory, "prepared")
    if not os.path.isdir(output):
        os.makedirs(directory, exist_ok=True)
        files = [os.path.join(directory, name) for name in ("train.parquet", "eval.parquet")]
        table = pa.table(columns)
        for file, part in zip(files, (table.slice(0, rows), table.slice(rows)), strict=True):
            pq.write_table(part, file)
        td.prepare(schema, files[:1], output, eval_inputs=files[1:])
    return output


def recipe(data: str, rows: int, passes: int = 4, batch_size: int = 1024, constant: float = 0.5) -> Any:
    """Returns a recipe that suits planted logs, with a small DLRM.

    Args:
      data: the prepared directory.
      rows: of the training log.
      passes: over the log.
      batch_size: rows.
      constant: the share of the steps after which the rates begin to fall to zero.
    """
    from tfrs_dlrm.config import DataConfig, DLRMConfig, OptimizerConfig, RunConfig, TrainConfig

    steps = passes * rows // batch_size
    decay_start = int(steps * constant)
    return RunConfig(
        data=DataConfig(path=data),
        model=DLRMConfig(embedding_dim=16, bottom_mlp=(16,), top_mlp=(128, 64, 1)),
        optimizer=OptimizerConfig(
            dense="adam", learning_rate=0.003, embedding="adagrad", embedding_learning_rate=0.05,
            warmup_steps=min(20, steps // 4),
            decay_start_step=decay_start, decay_steps=steps - decay_start, decay_power=1.0,
        ),
        train=TrainConfig(batch_size=batch_size, steps=steps, eval_every_steps=steps, tensorboard=False),
    )  # fmt: skip


def compared(base: Any, models: Sequence[str], directory: str, seeds: int) -> dict[str, list[Any]]:
    """Returns the outcomes of each model, one per seed, by its label; see `tfrs_dlrm.tools.comparison`."""
    from tfrs_dlrm.tools import comparison

    contestants = comparison.contestants(base, models)
    options = comparison.ComparisonOptions(seeds=seeds, measure=False)
    outcomes, _ = comparison.compare(contestants, os.path.join(directory, "runs"), options, print)
    return {c.label: [x for x in outcomes if x.label == c.label] for c in contestants}


def reported(rows: int) -> slice:
    """Returns which rows of a log are reported: the odd ones of the evaluation log, on which no choice depends."""
    return slice(rows + 1, None, 2)


def listed(values: Sequence[float], form: str) -> str:
    """Returns the value of each seed, for the end of a line."""
    return ", ".join(format(float(x), form) for x in np.asarray(values))
