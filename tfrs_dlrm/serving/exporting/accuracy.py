"""Measures what smaller tables cost in quality."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import tensorflow as tf

from tfrs_dlrm.models.ranking import RankingModel
from tfrs_dlrm.models.tracing import as_written
from tfrs_dlrm.serving.exporting.serving_model import ServingModel
from tfrs_dlrm.training.evaluation import Scores, score_rows


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """The metrics of a trained and of a served model on the same examples.

    Attributes:
      examples: the number of examples.
      metrics: by name, of the trained and of the served model: `auc` and `log_loss`, or `rmse` and `mae`; without
        those that the examples do not define.
      largest_change: of one probability or predicted number.
      more: the accuracy of further labels by name, on the examples that have them.
      changes: the largest change of any example, by name of the output.
    """

    examples: int
    metrics: dict[str, tuple[float, float]]
    largest_change: float
    more: dict[str, Accuracy] = dataclasses.field(default_factory=dict)
    changes: dict[str, float] = dataclasses.field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values for the manifest."""
        first = {"examples": self.examples, **self.metrics, "largest_change": self.largest_change}
        return first | ({"more": {name: x.to_dict() for name, x in self.more.items()}} if self.more else {})


def accuracy(model: RankingModel, serving: ServingModel, data: tf.data.Dataset) -> Accuracy:
    """Scores a finite dataset of encoded batches `(features, label[, weight])` with both models.

    Raises:
      ValueError: the dataset has no examples.
    """
    trained, tasks = score_rows(model, data), model.label_tasks
    logits = tf.function(as_written(serving.encoded_logits, model), reduce_retracing=True)
    batches = [(logits(features), *targets) for features, *targets in data]
    served, labels, *weights = [np.concatenate(column) for column in zip(*batches, strict=True)]
    of_served = Scores.of(tasks, labels, served, weights[0] if weights else None)
    answers, others = (
        tasks.named(tasks.served(tf.constant(logits, tf.float64))) for logits in (trained.logits, served)
    )
    changes = {name: float(tf.reduce_max(tf.abs(answer - others[name]))) for name, answer in answers.items()}
    return dataclasses.replace(_compared(Scores.of(tasks, *trained), of_served), changes=changes)


def _compared(trained: Scores, served: Scores) -> Accuracy:
    a, b = (scores.task.evaluate(scores.labels, scores.logits, scores.weights) for scores in (trained, served))
    answers = [trained.task.served(tf.constant(s.logits, tf.float64)).numpy() for s in (trained, served)]
    return Accuracy(
        len(served.logits),
        {name: (a[name], b[name]) for name in trained.task.shown[:2] if not math.isnan(a[name] + b[name])},
        float(np.abs(answers[0] - answers[1]).max(initial=0.0)),
        {name: _compared(scores, served.more[name]) for name, scores in trained.more.items()},
    )
