"""Scores a model on a whole evaluation set, and measures the scores."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfrs_dlrm.data.preparing.manifest import PreparedManifest, Split
from tfrs_dlrm.data.preparing.on_demand import REFERENCE_FILE
from tfrs_dlrm.data.reading.labels import group_ids
from tfrs_dlrm.distribute.strategies import distribution_of
from tfrs_dlrm.metrics import mean_ranking, ranking_metrics
from tfrs_dlrm.metrics.defined import defined, why_undefined
from tfrs_dlrm.models.label_tasks import Tasks
from tfrs_dlrm.models.missing_labels import weights_of_known
from tfrs_dlrm.models.ranking import RankingModel
from tfrs_dlrm.models.tasks import BinaryClassification, Regression, Task
from tfrs_dlrm.schema import SCHEMA_FILE, Schema
from tfrs_dlrm.stores import local_copy
from tfrs_dlrm.stores.files import read_json
from tfrs_dlrm.training.asynchronous import server_lost
from tfrs_dlrm.training.factory import load_run
from tfrs_dlrm.training.inputs import evaluation_dataset, evaluation_order
from tfrs_dlrm.training.run_calibration import read_calibration
from tfrs_dlrm.training.tpu import fixed_batches
from tfrs_dlrm.training.workdir import Which, Workdir

if TYPE_CHECKING:  # Matplotlib takes a third of a second
    from matplotlib.figure import Figure

_REMOVE_REFERENCE = "remove it, to evaluate without a comparison"


@dataclasses.dataclass(frozen=True)
class Scores:
    """The scores of a model on a set of examples.

    Attributes:
      labels: float32 [N].
      logits: float32 [N]; of a regression, the predicted numbers.
      weights: float32 [N], or None where the examples have none. If a label that comes after another is missing in rows
        where that one is 1, others stand for these: see `tfrs_dlrm.models.missing_labels`.
      task: of the label.
      more: by name, what it says of each further label, where that is known.
      examples: the numbers of the examples among those that were scored, int64 [N]; None is all. A further label may
        be known of some only, and a calibrated model is measured on those that it was not fitted on.
      groups: int64 [N], the group of each example, if the schema has one; see `with_groups`.
    """

    labels: np.ndarray
    logits: np.ndarray
    weights: np.ndarray | None
    task: Task = dataclasses.field(default_factory=BinaryClassification)
    more: Mapping[str, Scores] = dataclasses.field(default_factory=dict)
    examples: np.ndarray | None = None
    groups: np.ndarray | None = None

    @classmethod
    def of(cls, tasks: Tasks, labels: np.ndarray, logits: np.ndarray, weights: np.ndarray | None) -> Scores:
        """Makes scores of labels and logits float32 [N] or, with several labels, [N, labels]."""
        if not tasks.more:
            return cls(labels, logits, weights, tasks.first)
        labels = tasks.over_all_rows(tf.constant(labels)).numpy()
        more = {}
        for i, (name, task) in enumerate(tasks.more.items(), 1):
            known = np.flatnonzero(np.isfinite(labels[:, i]))
            mine = _weights(tasks, labels, weights, i)
            known_weights = None if mine is None else mine[known]
            more[name] = cls(labels[known, i], logits[known, i], known_weights, task, examples=known)
        return cls(labels[:, 0], logits[:, 0], weights, tasks.first, more)

    def on(self, kept: np.ndarray) -> Scores:
        """Returns the scores of the examples where `kept`, bool over all that were scored, is true."""
        more = {name: scores.on(kept) for name, scores in self.more.items()}
        return dataclasses.replace(self.where(kept if self.examples is None else kept[self.examples]), more=more)

    def where(self, mine: np.ndarray) -> Scores:
        """Returns the scores of this label alone where `mine`, bool [N], is true."""
        numbers = np.arange(len(mine)) if self.examples is None else self.examples
        weights = None if self.weights is None else self.weights[mine]
        groups = None if self.groups is None else self.groups[mine]
        return Scores(self.labels[mine], self.logits[mine], weights, self.task, examples=numbers[mine], groups=groups)

    def of_label(self, number: int) -> Scores:
        """Returns the scores of one label, by its position in the schema."""
        return (self, *self.more.values())[number]

    def metrics(self) -> dict[str, float]:
        """Returns exact metrics, in float64; see `evaluate_scores` and `evaluate_predictions` in `tfrs_dlrm.metrics`.

        With groups, `ndcg` is the NDCG@10 of the first label, averaged over the groups that have a 1. The names of
        further labels' metrics end in `_NAME`. Metrics that the examples do not define are left out.
        """
        return self._with_more(defined(self._evaluate() | self._ranking()), Scores.metrics)

    def left_out(self) -> list[str]:
        """Says, a line per label, which metrics the examples do not define, and why."""
        found = {"": self, **{f"label {name}: ": scores for name, scores in self.more.items()}}
        notes = {of: why_undefined(x._evaluate(), x.labels, x.weights) for of, x in found.items()}
        return [of + note for of, note in notes.items() if note]

    def _evaluate(self) -> dict[str, float]:
        return self.task.evaluate(self.labels, self.logits, self.weights)

    def _ranking(self) -> dict[str, float]:
        if self.groups is None or not isinstance(self.task, BinaryClassification):
            return {}
        found = ranking_metrics(self.groups, self.labels, self.logits, self.weights)
        return {"ndcg": mean_ranking(found).ndcg}

    def of_the_mean(self) -> dict[str, float]:
        """Returns the metrics of always predicting the mean training label, for labels that are regressions."""
        constant = np.full(len(self.labels), self.task.mean) if isinstance(self.task, Regression) else None
        first = {} if constant is None else defined(self.task.evaluate(self.labels, constant, self.weights))
        return self._with_more(first, Scores.of_the_mean)

    def _with_more(self, first: dict[str, float], function: Callable[[Scores], dict[str, float]]) -> dict[str, float]:
        more = {f"{key}_{name}": v for name, scores in self.more.items() for key, v in function(scores).items()}
        return first | more


def _weights(tasks: Tasks, labels: np.ndarray, weights: np.ndarray | None, number: int) -> np.ndarray | None:
    """Returns the weights of all rows for the metrics of one label, [N]; None if all are 1."""
    if tasks.earlier[number] is None or np.isfinite(labels[:, number]).all():
        return weights
    rows = np.ones(len(labels)) if weights is None else weights
    found = weights_of_known(tf.constant(labels, tf.float64), tf.constant(rows, tf.float64), tasks.earlier)
    return np.asarray(found[:, number], np.float32)


class NonFiniteError(FloatingPointError):
    """A loss, a weight or a score became NaN or infinite."""


class ScoredRows(NamedTuple):
    """Labels and logits float32 [N] or, with several labels, [N, labels]; weights float32 [N] or None."""

    labels: np.ndarray
    logits: np.ndarray
    weights: np.ndarray | None


def score(
    model: RankingModel,
    data: tf.data.Dataset,
    progress: Callable[[int], None] | None = None,
    order: np.ndarray | None = None,
) -> Scores:
    """Scores every example of a finite dataset, label by label; see `score_rows`."""
    return Scores.of(model.label_tasks, *score_rows(model, data, progress, order))


def score_split(model: RankingModel, data: str, batch_size: int, split: Split = "eval") -> Scores:
    """Scores every example of a split of prepared data, in the order of the log if the schema has a group.

    Args:
      model: the trained model.
      data: the prepared directory.
      batch_size: over all replicas together.
      split: which rows.

    Raises:
      NonFiniteError: a score is NaN or infinite.
    """
    order = evaluation_order(data, split) if model.schema.group else None
    return with_groups(score(model, evaluation_dataset(data, batch_size, split), order=order), data, split)


def with_groups(scores: Scores, data: str, split: Split) -> Scores:
    """Returns the scores of all rows of a split, in the order of the log, with their groups, if the schema has one."""
    schema = Schema.load(os.path.join(local_copy(data), SCHEMA_FILE))
    return dataclasses.replace(scores, groups=group_ids(data, split)) if schema.group else scores


def score_rows(
    model: RankingModel,
    data: tf.data.Dataset,
    progress: Callable[[int], None] | None = None,
    order: np.ndarray | None = None,
) -> ScoredRows:
    """Scores every example of a finite dataset, in its order, on all devices of the strategy of the model.

    Args:
      model: the trained model.
      data: batches of `(features, label[, weight])`, as `evaluation_dataset` makes them. Under a
        `MultiWorkerMirroredStrategy` each process has a part of them, and gets the scores of all.
      progress: called with the number of examples of each batch that is done.
      order: the numbers of the examples in the order of the processes, int64 [N], by which the scores are put in order;
        None is the order of the processes.

    Raises:
      NonFiniteError: a score is NaN or infinite.
      ValueError: the dataset has no examples.
    """
    distribution = distribution_of(model.distribute_strategy)
    if distribution.fixed_batches:
        data = fixed_batches(data, model.embeddings)
    parts: list[tuple[np.ndarray, ...]] = []
    failure: Exception | None = None
    try:
        for part in distribution.score(model.scores, data):
            parts.append(part)
            if progress:
                progress(len(part[0]))
    except Exception as e:
        failure = e
    if distribution.any_process(failure is not None):  # the others would wait for this one
        raise failure or OSError("the evaluation failed in another process, which says why")
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    columns = distribution.of_all_processes(columns)
    if not columns or not len(columns[0]):
        raise ValueError("the evaluation set is empty")
    if order is not None:
        in_order = np.argsort(order)
        columns = [column[in_order] for column in columns]
    logits, labels, *weights = columns
    bad = np.count_nonzero(~np.isfinite(logits))
    if bad:
        raise NonFiniteError(f"{bad} of {len(logits)} scores are not finite")
    return ScoredRows(labels, logits, weights[0] if weights else None)


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The evaluation of one checkpoint.

    Attributes:
      scores: the scores of the model.
      checkpoint: its path.
      data: the prepared directory.
      reference: a name and the metrics of something to compare with, where the data come with one.
      note: what to know of the scores: which examples of a calibrated run were scored, and which features are
        `training_only`. Empty if there is nothing.
    """

    scores: Scores
    checkpoint: str
    data: str
    reference: dict[str, dict[str, float]]
    note: str = ""

    def columns(self) -> dict[str, dict[str, float]]:
        """Returns the metrics by name."""
        mean = self.scores.of_the_mean()
        return {"this model": self.scores.metrics(), **({"training mean": mean} if mean else {}), **self.reference}

    def figure(self, label: int = 0) -> Figure:
        """Draws the figure of one label, by its position in the schema: `td.plots.classification` or `regression`."""
        from tfrs_dlrm.plots import classification, regression

        scores = self.scores.of_label(label)
        draw = regression if isinstance(scores.task, Regression) else classification
        title = f"{self.checkpoint}, {list(self.scores.more)[label - 1]}" if label else self.checkpoint
        return draw(scores.labels, scores.logits, scores.weights, title=title)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values."""
        return {"checkpoint": self.checkpoint, "data": self.data, "metrics": self.columns()}


def evaluate_run(
    workdir: str,
    data: str = "",
    split: Split = "eval",
    which: Which = "best",
    progress: Callable[[int], None] | None = None,
    strategy: tf.distribute.Strategy | None = None,
) -> Evaluation:
    """Scores a checkpoint of a run on a prepared set; a calibrated one on the rows that it was not calibrated on.

    Args:
      workdir: the directory of the run.
      data: a prepared directory; by default the one that the run trained on. It may extend that, see the `base` of
        `prepare`: then values that the run does not know are its unseen value.
      split: which rows of it.
      which: the `best` checkpoint or the `latest`.
      progress: as in `score`.
      strategy: where to compute; by default the strategy in scope. It need not be the strategy of the run.

    Raises:
      FileNotFoundError: the run, its checkpoint or the data do not exist.
      ValueError: the data have another schema or vocabulary than the checkpoint, or the calibration is of another
        checkpoint.
      ServerLost: a parameter server does not answer.
    """
    with (strategy or tf.distribute.get_strategy()).scope(), server_lost():
        model, config, checkpoint = load_run(workdir, which)
        name = data or config.data.path
        data, home = local_copy(name), Workdir(workdir)
        PreparedManifest.load(data)
        of_model = home.model_rows(data, checkpoint)
        fitted = _calibrated_on(home, data, split)
        rows = evaluation_dataset(data, config.train.eval_batch_size, split, of_model)
        scores = with_groups(score(model, rows, progress, evaluation_order(data, split)), data, split)
    notes = [] if of_model is None else [_unknown_note(name, of_model, home.admits_values)]
    if fitted is not None:
        scores = scores.on(~fitted)
        notes.append(f"The {len(scores.labels):,} rows that it was not calibrated on")
    if only := [given.name for given in home.schema().inputs if given.training_only]:
        notes.append(f"Scored with the log's values of {', '.join(only)}, which requests lack")
    path = os.path.join(data, REFERENCE_FILE)
    reference: Any = read_json(path, _REMOVE_REFERENCE) if split == "eval" and os.path.isfile(path) else {}
    if not isinstance(reference, dict) or not all(isinstance(column, dict) for column in reference.values()):
        raise ValueError(f"{path}: damaged: metrics by name are expected; {_REMOVE_REFERENCE}")
    return Evaluation(scores, home.shown(checkpoint), name, reference, ".\n".join(notes))


def _unknown_note(name: str, of_model: Mapping[str, np.ndarray], admits_values: bool) -> str:
    unknown = sum(int(np.count_nonzero(rows[1:] == 0)) for rows in of_model.values())
    if admits_values:
        return f"{unknown:,} values of {name} have no row any more along the stream, and count as unseen"
    return f"{name} extends the data of the run: {unknown:,} values of its tables are new, and count as unseen"


def _calibrated_on(home: Workdir, data: str, split: Split) -> np.ndarray | None:
    """Returns which rows of a split the calibration of the run was fitted on; None if none."""
    found = read_calibration(home)
    if found is None or split != "eval" or not found.is_of(data):
        return None
    return found.fitted(PreparedManifest.load(data).rows(split))
