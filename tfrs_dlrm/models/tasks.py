"""The tasks of labels: their losses, their metrics, and the meaning of predictions."""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf
import tf_keras as keras
from numpy.typing import ArrayLike

from tfrs_dlrm.messages import did_you_mean
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
from tfrs_dlrm.schema import Label, Schema

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
    """

    unit: ClassVar[str]
    output: ClassVar[str]
    best: ClassVar[str]
    tuned: ClassVar[str]
    shown: ClassVar[tuple[str, ...]]
    keras_loss: ClassVar[tuple[Callable[..., tf.Tensor], type[keras.losses.Loss]]]

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


class Tasks:
    """The tasks of all labels of a schema.

    Predictions are [B] for one label, and [B, L] for L labels.

    Args:
      schema: of the model.

    Attributes:
      first: the task of `schema.label`.
      more: the tasks of `schema.more_labels`, by name.
      loss_weights: the factor of each label's loss.
    """

    def __init__(self, schema: Schema) -> None:
        self.first = task_of(schema.label)
        self.more = {label.name: task_of(label) for label in schema.more_labels}
        self.loss_weights = [label.loss_weight for label in schema.labels]

    @property
    def all(self) -> tuple[Task, ...]:
        """The tasks in the order of the labels."""
        return (self.first, *self.more.values())

    @property
    def first_outputs(self) -> list[float]:
        """`Task.first_output` of each label."""
        return [task.first_output for task in self.all]

    @property
    def suffixes(self) -> tuple[str, ...]:
        """The endings of each label's metrics and outputs: empty for the first label, `_NAME` for others."""
        return ("", *(f"_{name}" for name in self.more))

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the answers in the signatures of an exported model."""
        return tuple(task.output + suffix for task, suffix in zip(self.all, self.suffixes, strict=True))

    @property
    def shown(self) -> tuple[str, ...]:
        """The metrics of a progress line."""
        return (*self.first.shown, *(f"{task.best}_{name}" for name, task in self.more.items()))

    def scores(self, outputs: tf.Tensor) -> tf.Tensor:
        """Applies `Task.scores` to each label's column."""
        columns = zip(self.all, self.columns(outputs), strict=True)
        return self._joined([task.scores(column) for task, column in columns])

    def served(self, scores: tf.Tensor) -> tf.Tensor:
        """Applies `Task.served` to each label's column."""
        columns = zip(self.all, self.columns(scores), strict=True)
        return self._joined([task.served(column) for task, column in columns])

    def named(self, served: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the columns by the names of the outputs."""
        return dict(zip(self.outputs, self.columns(served), strict=True))

    def columns(self, values: tf.Tensor) -> list[tf.Tensor]:
        """Splits predictions into a tensor per label."""
        return tf.unstack(values, axis=-1) if self.more else [values]

    def _joined(self, columns: list[tf.Tensor]) -> tf.Tensor:
        return tf.stack(columns, axis=-1) if self.more else columns[0]


def of_labels(argument: str, given: Mapping[str, Any], schema: Schema) -> list[Any]:
    """Returns what a mapping by label name gives each label of a schema; None for labels that it does not name.

    Raises:
      ValueError: the mapping names a label that the schema does not have; `argument` begins the message.
    """
    names = [label_name(label) for label in schema.labels]
    for name in given:
        if name not in names:
            mend = did_you_mean(str(name), names) or f"the labels are {names}"
            raise ValueError(f"{argument}: no label is called {name!r}; {mend}")
    return [given.get(name) for name in names]


def label_name(label: Label) -> str:
    """Returns the name of a label; the first label has that of its column, unless it is given another."""
    return label.name or label.column


def task_of(label: Label) -> Task:
    """Returns the task of a label."""
    if label.task == "regression":
        return Regression(label.mean, label.std)
    return BinaryClassification(label.mean, label.keep_negatives)
