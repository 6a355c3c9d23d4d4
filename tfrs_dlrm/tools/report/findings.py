"""Collects what a report shows of a run."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfrs_dlrm.checkpoint.manifest import CheckpointManifest
from tfrs_dlrm.checkpoint.save import DENSE
from tfrs_dlrm.config import RunConfig
from tfrs_dlrm.data.preparing.manifest import PreparedManifest, Split
from tfrs_dlrm.data.reading.row_groups import open_row_groups
from tfrs_dlrm.schema import Schema
from tfrs_dlrm.serving.verification.verification_report import VerificationReport
from tfrs_dlrm.serving.verification.verify import verify
from tfrs_dlrm.stores import Progress, join, local_copy
from tfrs_dlrm.stores.files import exists, read_json
from tfrs_dlrm.tools.explain.explain_run import Questions, explain_run, stage
from tfrs_dlrm.training.evaluation import Evaluation, evaluate_run
from tfrs_dlrm.training.groups import GroupEvaluation, Grouping
from tfrs_dlrm.training.run import RESULT_FILE, RunRecords
from tfrs_dlrm.training.run_files import EXPLANATION_DIR, EXPLANATION_FILE
from tfrs_dlrm.training.workdir import METRICS_FILE, Which, Workdir

# About how many training rows the mean labels are taken over.
_LABEL_ROWS = 20_000_000
_MOST_GROUPINGS = 3


@dataclasses.dataclass(frozen=True)
class ReportOptions:
    """What a report is about.

    Attributes:
      data: a prepared directory; by default the one that the run trained on.
      split: which rows of it to score.
      which: the `best` checkpoint or the `latest`.
      group_by: features, to measure each of their values; by default the three one-valued ones with fewest rows.
      examples: how many examples to measure importance on, where `tfrs-dlrm explain` has not; 0 leaves it out.
      bundle: a bundle to verify, such as the directory of a served model's versions; empty for none.
      latency: whether to measure the latency of the bundle.
    """

    data: str = ""
    split: Split = "eval"
    which: Which = "best"
    group_by: tuple[str, ...] = ()
    examples: int = 10_000
    bundle: str = ""
    latency: bool = True


@dataclasses.dataclass(frozen=True)
class MeanLabel:
    """The weighted mean of a label, of a classification the share of positives, over `examples` that have it."""

    examples: int
    mean: float


@dataclasses.dataclass(frozen=True)
class Findings:
    """What a report shows of a run.

    Attributes:
      workdir: of the run, as it was given.
      options: of the report.
      config: of the run.
      schema: of the model.
      manifest: of the prepared directory.
      mean_labels: of each label, over training rows.
      checkpoint: the manifest of the checkpoint.
      layers: the shapes of the weights outside of tables, by name.
      history: the lines of `metrics.jsonl`.
      result: of the run, as `Result`; empty while it runs.
      evaluation: of the checkpoint.
      groups: of each label.
      explanation: the content of an `explanation.json`; empty if there is none and none was asked for.
      verification: of the bundle; None without one.
    """

    workdir: str
    options: ReportOptions
    config: RunConfig
    schema: Schema
    manifest: PreparedManifest
    mean_labels: list[MeanLabel]
    checkpoint: CheckpointManifest
    layers: dict[str, tuple[int, ...]]
    history: list[dict[str, Any]]
    result: Mapping[str, Any]
    evaluation: Evaluation
    groups: list[GroupEvaluation]
    explanation: Mapping[str, Any]
    verification: VerificationReport | None


def examine(workdir: str, options: ReportOptions = ReportOptions(), progress: Progress | None = None) -> Findings:
    """Collects the findings about a run, on one device.

    Args:
      workdir: the directory of the run.
      options: of the report.
      progress: called with the progress of evaluation and importance, in examples.

    Raises:
      FileNotFoundError: the run, its checkpoint or the data do not exist.
      ValueError: the data have another schema or vocabulary than the checkpoint, a feature of `group_by` does not exist
        or is a number, or there is no bundle.
    """
    home = Workdir(workdir)
    config, data_schema = home.config(), home.schema()
    group_by = options.group_by or _few_values(data_schema)
    labels = ["", *(label.name for label in data_schema.more_labels)]
    groupings = [Grouping(workdir, group_by, label=label) for label in labels]
    data = local_copy(options.data or config.data.path)
    if home.admits_values:
        home.check_data(data)  # which importance needs, late
    verification = verify(options.bundle, latency=options.latency) if options.bundle else None
    manifest = PreparedManifest.load(data)
    scored = stage(progress, "evaluate", manifest.rows(options.split))
    evaluation = evaluate_run(workdir, options.data, options.split, options.which, scored)
    checkpoint = home.checkpoint(options.which)
    result = home.file(RESULT_FILE)
    return Findings(
        workdir=workdir,
        options=options,
        config=config,
        schema=config.model.schema(data_schema),
        manifest=manifest,
        mean_labels=_mean_labels(data, data_schema, manifest.rows("train")),
        checkpoint=CheckpointManifest.read(checkpoint),
        layers=_layers(checkpoint),
        history=list(RunRecords(home.file(METRICS_FILE), "step")),
        result=_object(result, "the end of the training run writes it again", ("step", "best_step", "reason"))
        if os.path.isfile(result)
        else {},
        evaluation=evaluation,
        groups=[grouping.measure(evaluation, options.split) for grouping in groupings],
        explanation=_explanation(workdir, checkpoint, options, progress),
        verification=verification,
    )


def _few_values(schema: Schema) -> tuple[str, ...]:
    """Returns the one-valued features whose tables have the fewest rows."""
    rows = {f.name: schema.table_of(f).vocabulary_size or 0 for f in schema.one_hot}
    return tuple(sorted(rows, key=lambda name: rows[name])[:_MOST_GROUPINGS])


def _mean_labels(directory: str, schema: Schema, rows: int) -> list[MeanLabel]:
    """Reads the labels of the training rows; of very many `rows`, those of row groups at equal distances."""
    step = max(1, rows // _LABEL_ROWS)
    sums = np.zeros((len(schema.labels), 3))  # examples, weight, weight * label
    names = [*schema.label_columns, *(["weight"] if schema.weight else [])]
    for number, (file, i) in enumerate(open_row_groups(directory, "train")):
        if number % step == 0:
            columns = [c.to_numpy().astype(np.float64) for c in file.read_row_group(i, columns=names).columns]
            weights = columns.pop() if schema.weight else np.ones(len(columns[0]))
            for label, y in enumerate(columns):
                known = np.isfinite(y)
                w = weights[known]
                sums[label] += len(w), w.sum(), w @ y[known]
    return [MeanLabel(int(n), total / weight if weight else float("nan")) for n, weight, total in sums]


def _layers(checkpoint: str) -> dict[str, tuple[int, ...]]:
    """Reads the shapes of a model's weights outside of tables, without the slots and steps of optimizers."""
    suffix = "/.ATTRIBUTES/VARIABLE_VALUE"
    found: Sequence[tuple[str, list[int]]] = tf.train.list_variables(os.path.join(checkpoint, DENSE))
    kept = [(name.removesuffix(suffix).split("/"), shape) for name, shape in found if ".OPTIMIZER_SLOT" not in name]
    omitted = ("optimizer", "embedding_optimizer", "keras_api")
    return {"/".join(path[1:]): tuple(shape) for path, shape in kept if path[0] == "model" and path[1] not in omitted}


def _object(path: str, then: str, fields: Sequence[str]) -> Mapping[str, Any]:
    """Reads a JSON object with some fields."""
    found = read_json(path, f"remove it; {then}")
    if not isinstance(found, dict) or any(name not in found for name in fields):
        raise ValueError(f"{path}: damaged: an object with {', '.join(fields)} is expected; remove it; {then}")
    return found


def _explanation(workdir: str, checkpoint: str, options: ReportOptions, progress: Progress | None) -> Mapping[str, Any]:
    """Reads what `tfrs-dlrm explain` found about the checkpoint, or measures the importance of features."""
    path = join(workdir, f"{EXPLANATION_DIR}/{EXPLANATION_FILE}")
    if exists(path):
        found = _object(path, "tfrs-dlrm explain writes it again", ("checkpoint",))
        if os.path.basename(found["checkpoint"]) == os.path.basename(checkpoint):
            return found
    if not options.examples:
        return {}
    questions = Questions(parts=("importance",), examples=options.examples)
    return explain_run(workdir, questions, options.data, options.split, options.which, progress).to_dict()
