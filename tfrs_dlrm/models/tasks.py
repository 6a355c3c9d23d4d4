"""The task of a label: its loss, its metrics, and the meaning of predictions."""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Mapping
from typing import ClassVar

import numpy as np
import tensorflow as tf
import tf_keras as keras
from numpy.typing import ArrayLike

from tfrs_dlrm.metrics import (
    Groups,
    default_metrics,
    evaluate_predictions,
    evaluate_scores,
    group_errors,
    group_metrics,
    regression_metrics,
)
from tfrs_dlrm.metrics.defined import defined
from tfrs_dlrm.schema import Label

# Where all training labels are 1, predictions begin at 1 minus this.
_LEAST_SHARE = 1e-6
# Of the range in which `move_to_mean` looks, at most some hundred wide: to 1e-13.
_HALVINGS = 50


class Task(abc.ABC):
    """The task of a label: what is predicted, and how predictions are judged.

    An example has three numbers: the output of `RankingModel.compute_logits`; the score (`scores`), which
    `RankingModel.logits` returns and loss and metrics take; and the answer of the model, also when served (`served`).

    Attributes:
      unit: the name of a score.
      output: the name of the answer in the signatures of an exported model.
      best: the metric that chooses the best checkpoint.
      tuned: the metric that tuning minimizes; for short runs it is less noisy than `best`.
      shown: the metrics of a progress line, the best one first.
      keras_loss: the loss in Keras, as a function and as a class.
      precision_factor: of the loss divided by a variance, in the negative log-likelihood; see `LabelLosses`.
    """

    unit: ClassVar[str]
    output: ClassVar[str]
    best: ClassVar[str]
    tuned: ClassVar[str]
    shown: ClassVar[tuple[str, ...]]
    keras_loss: ClassVar[tuple[Callable[..., tf.Tensor], type[keras.losses.Loss]]]
    precision_factor: ClassVar[float]

    @property
    @abc.abstractmethod
    def first_output(self) -> float:
        """Where the output of `compute_logits` begins: the best prediction that is the same for all examples."""

    @abc.abstractmethod
    def scores(self, outputs: tf.Tensor) -> tf.Tensor:
        """Returns scores, float32 [B], from the output of `compute_logits`."""

    @abc.abstractmethod
    def served(self, scores: tf.Tensor) -> tf.Tensor:
        """Returns what the model answers, float32 [B], from scores."""

    @abc.abstractmethod
    def move_to_mean(self, scores: np.ndarray, mean: float, weights: np.ndarray | None = None) -> float:
        """Returns the number which, added to all outputs, makes predictions of training rows average to `mean`.

        Args:
          scores: [N], at least one.
          mean: of the labels of the training rows.
          weights: [N]; for a weighted mean of the predictions.
        """

    def on_kept_rows(self, scores: tf.Tensor) -> tf.Tensor:
        """Returns scores among the training rows, where `Label.keep_negatives` may have dropped some."""
        return scores

    @abc.abstractmethod
    def loss(self) -> keras.losses.Loss:
        """Makes the loss, summed over examples; `loss_arguments` returns its arguments."""

    @abc.abstractmethod
    def loss_arguments(self, labels: tf.Tensor, scores: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns `y_true` and `y_pred` for `loss`. Mixed precision casts `y_true` to bfloat16."""

    @abc.abstractmethod
    def metrics(self, suffix: str = "") -> list[keras.metrics.Metric]:
        """Makes metrics of (label, score, weight), whose names end in `suffix`."""

    @abc.abstractmethod
    def evaluate(self, labels: ArrayLike, scores: ArrayLike, weights: ArrayLike | None = None) -> dict[str, float]:
        """Returns exact metrics of arrays in memory."""

    @abc.abstractmethod
    def by_group(
        self, groups: ArrayLike, labels: ArrayLike, scores: ArrayLike, weights: ArrayLike | None = None
    ) -> Groups:
        """Returns exact metrics per group; `groups` are whole numbers [N]."""

    @abc.abstractmethod
    def worsening(self, before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
        """Returns how much worse `after` is than `before`, both from `evaluate`; the main change comes first.

        The names are those of metrics with `_drop` or `_rise`, whichever is the worse direction. Metrics that the
        examples do not define are left out.
        """

    @abc.abstractmethod
    def quality(self, metrics: Mapping[str, float]) -> float:
        """Returns one number from the metrics of `evaluate`; more is better."""


class BinaryClassification(Task):
    """Predicts the probability that the label is 1. The score is its logit, and the loss is the log loss.

    If only a share of the negatives is in the training rows, odds there are 1 / share times those of the full log, in
    every part of the feature space: for p among the kept rows, p / (p + (1 - p) / share) is the probability in the log.
    So the score is the output of `compute_logits` plus log(share) (He et al. 2014, "Practical Lessons from Predicting
    Clicks on Ads at Facebook", section 6.3), and the training loss is without it.

    Args:
      mean: the share of 1s among the training labels; 0 if unknown.
      keep_negatives: the share of the negatives that is in the training rows.
    """

    unit = "logit"
    output = "probability"
    best = "auc"
    tuned = "log_loss"
    shown = ("auc", "log_loss", "normalized_entropy", "calibration")
    keras_loss = (keras.losses.binary_crossentropy, keras.losses.BinaryCrossentropy)
    precision_factor = 1.0

    def __init__(self, mean: float = 0.0, keep_negatives: float = 1.0) -> None:
        self.mean = mean
        self.logit_shift = math.log(keep_negatives)

    @property
    def first_output(self) -> float:
        """The logit of the share of 1s among the training rows; 0 if that is unknown."""
        share = min(self.mean, 1 - _LEAST_SHARE)
        return math.log(share / (1 - share)) if share > 0 else 0.0

    def scores(self, outputs: tf.Tensor) -> tf.Tensor:
        """Returns logits in the full log."""
        return outputs + self.logit_shift if self.logit_shift else outputs

    def on_kept_rows(self, scores: tf.Tensor) -> tf.Tensor:
        """Returns logits among the training rows."""
        return scores - self.logit_shift if self.logit_shift else scores

    def served(self, scores: tf.Tensor) -> tf.Tensor:
        """Returns probabilities."""
        return tf.sigmoid(scores)

    def move_to_mean(self, scores: np.ndarray, mean: float, weights: np.ndarray | None = None) -> float:
        """Bisects; 0 if all labels are the same, for which no number is enough."""
        if not 0 < mean < 1:
            return 0.0
        outputs = self.on_kept_rows(np.asarray(scores, np.float64))
        least, most = math.log(mean / (1 - mean)) - outputs.max(), math.log(mean / (1 - mean)) - outputs.min()
        for _ in range(_HALVINGS):
            middle = (least + most) / 2
            sigmoid = (1 + np.tanh((outputs + middle) / 2)) / 2  # which no output overflows
            low = np.average(sigmoid, weights=weights) < mean
            least, most = (middle, most) if low else (least, middle)
        return float((least + most) / 2)

    def loss(self) -> keras.losses.Loss:
        """Makes the log loss."""
        return keras.losses.BinaryCrossentropy(from_logits=True, reduction="sum")

    def loss_arguments(self, labels: tf.Tensor, scores: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns both unchanged; bfloat16 represents 0 and 1 exactly."""
        return labels, scores

    def metrics(self, suffix: str = "") -> list[keras.metrics.Metric]:
        """Makes AUC, log loss and others; see `tfrs_dlrm.metrics.default_metrics`."""
        return default_metrics(suffix)

    def evaluate(self, labels: ArrayLike, scores: ArrayLike, weights: ArrayLike | None = None) -> dict[str, float]:
        """Returns AUC, log loss and others; see `tfrs_dlrm.metrics.evaluate_scores`."""
        return evaluate_scores(labels, scores, weights)

    def by_group(
        self, groups: ArrayLike, labels: ArrayLike, scores: ArrayLike, weights: ArrayLike | None = None
    ) -> Groups:
        """Returns AUC and others per group; see `tfrs_dlrm.metrics.group_metrics`."""
        return group_metrics(groups, labels, scores, weights)

    def worsening(self, before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
        """Returns the changes of AUC and log loss."""
        drop, rise = before["auc"] - after["auc"], after["log_loss"] - before["log_loss"]
        return defined({"auc_drop": drop, "log_loss_rise": rise})

    def quality(self, metrics: Mapping[str, float]) -> float:
        """Returns the AUC."""
        return metrics["auc"]


class Regression(Task):
    """Predicts a number. The output of `compute_logits` is in standard deviations of the labels above their mean.

    The loss is the squared error in that unit, (prediction - label)^2 / std^2. So learning rates and L2 do not depend
    on the unit of the labels, and always predicting the mean has a loss of 1. The metrics are in the unit of the
    labels.

    Args:
      mean: the mean of the training labels; 0 if unknown.
      std: the standard deviation of the training labels; 1 if unknown, for the plain squared error.
    """

    unit = "prediction"
    output = "prediction"
    best = "rmse"
    tuned = "rmse"
    shown = ("rmse", "mae")
    keras_loss = (keras.losses.mean_squared_error, keras.losses.MeanSquaredError)
    precision_factor = 0.5

    def __init__(self, mean: float = 0.0, std: float = 1.0) -> None:
        self.mean, self.std = mean, std

    @property
    def first_output(self) -> float:
        """0, the mean of the labels."""
        return 0.0

    def scores(self, outputs: tf.Tensor) -> tf.Tensor:
        """Returns predictions in the unit of the labels."""
        return self.mean + self.std * outputs

    def served(self, scores: tf.Tensor) -> tf.Tensor:
        """Returns the predictions unchanged."""
        return scores

    def move_to_mean(self, scores: np.ndarray, mean: float, weights: np.ndarray | None = None) -> float:
        """Returns the difference of the means, in standard deviations of the labels."""
        return float(mean - np.average(np.asarray(scores, np.float64), weights=weights)) / self.std

    def loss(self) -> keras.losses.Loss:
        """Makes the squared error."""
        return keras.losses.MeanSquaredError(reduction="sum")

    def loss_arguments(self, labels: tf.Tensor, scores: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns zeros and the errors, since labels would be rounded to bfloat16."""
        errors = (scores - labels) / self.std
        return tf.zeros_like(errors), errors

    def metrics(self, suffix: str = "") -> list[keras.metrics.Metric]:
        """Makes RMSE and MAE."""
        return regression_metrics(suffix)

    def evaluate(self, labels: ArrayLike, scores: ArrayLike, weights: ArrayLike | None = None) -> dict[str, float]:
        """Returns RMSE and others; see `tfrs_dlrm.metrics.evaluate_predictions`."""
        return evaluate_predictions(labels, scores, weights)

    def by_group(
        self, groups: ArrayLike, labels: ArrayLike, scores: ArrayLike, weights: ArrayLike | None = None
    ) -> Groups:
        """Returns the errors per group; see `tfrs_dlrm.metrics.group_errors`."""
        return group_errors(groups, labels, scores, weights)

    def worsening(self, before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
        """Returns the changes of RMSE and MAE."""
        return defined({"rmse_rise": after["rmse"] - before["rmse"], "mae_rise": after["mae"] - before["mae"]})

    def quality(self, metrics: Mapping[str, float]) -> float:
        """Returns the negated RMSE."""
        return -metrics["rmse"]


def task_of(label: Label) -> Task:
    """Returns the task of a label."""
    if label.task == "regression":
        return Regression(label.mean, label.std)
    return BinaryClassification(label.mean, label.keep_negatives)
