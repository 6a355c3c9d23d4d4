"""What smaller tables cost in quality."""

from __future__ import annotations

import dataclasses

import numpy as np
import tensorflow as tf

from tfrs_dlrm.metrics import evaluate_scores
from tfrs_dlrm.metrics.exact import sigmoid
from tfrs_dlrm.models.ranking import RankingModel
from tfrs_dlrm.serving.model import ServingModel
from tfrs_dlrm.training.evaluation import score


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """A served model beside the trained one, on the same examples.

    Attributes:
      examples: how many.
      auc: of the trained and of the served model.
      log_loss: likewise.
      largest_change: of one probability.
    """

    examples: int
    auc: tuple[float, float]
    log_loss: tuple[float, float]
    largest_change: float


def accuracy(model: RankingModel, serving: ServingModel, data: tf.data.Dataset) -> Accuracy:
    """Scores a finite dataset of encoded batches `(features, label[, weight])` with both models.

    Raises:
      ValueError: the dataset has no examples.
    """
    trained = score(model, data)
    logits = tf.function(serving.encoded_logits, reduce_retracing=True)
    served = np.concatenate([logits(batch[0]).numpy() for batch in data])
    a = evaluate_scores(trained.labels, trained.logits, trained.weights)
    b = evaluate_scores(trained.labels, served, trained.weights)
    change = np.abs(sigmoid(trained.logits.astype(np.float64)) - sigmoid(served.astype(np.float64)))
    return Accuracy(len(served), (a["auc"], b["auc"]), (a["log_loss"], b["log_loss"]), float(change.max()))
