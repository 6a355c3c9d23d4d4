"""What smaller tables cost in quality."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

from tfrs_dlrm.models.ranking import RankingModel
from tfrs_dlrm.serving.model import ServingModel
from tfrs_dlrm.training.evaluation import score


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """A served model beside the trained one, on the same examples.

    Attributes:
      examples: how many.
      metrics: by name, of the trained and of the served model: `auc` and `log_loss`, or `rmse` and `mae`.
      largest_change: of one probability or predicted number.
    """

    examples: int
    metrics: dict[str, tuple[float, float]]
    largest_change: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as they are in the manifest."""
        return {"examples": self.examples, **self.metrics, "largest_change": self.largest_change}


def accuracy(model: RankingModel, serving: ServingModel, data: tf.data.Dataset) -> Accuracy:
    """Scores a finite dataset of encoded batches `(features, label[, weight])` with both models.

    Raises:
      ValueError: the dataset has no examples.
    """
    trained = score(model, data)
    logits = tf.function(serving.encoded_logits, reduce_retracing=True)
    served = np.concatenate([logits(batch[0]).numpy() for batch in data])
    task = model.label_task
    a, b = (task.evaluate(trained.labels, values, trained.weights) for values in (trained.logits, served))
    answers = [task.served(tf.constant(values, tf.float64)).numpy() for values in (trained.logits, served)]
    metrics = {name: (a[name], b[name]) for name in task.shown[:2]}
    return Accuracy(len(served), metrics, float(np.abs(answers[0] - answers[1]).max()))
