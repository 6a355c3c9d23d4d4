"""The task of a label: its loss, its metrics, and the meaning of predictions."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import ClassVar

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
from tfrs_dlrm.schema import Label, Schema


class Task(abc.ABC):
    """The task of a label.

    Three numbers of an example are told apart: what `RankingModel.compute_logits` computes; what the model returns
    (`returned`), which loss and metrics take; and what an exported model answers (`served`).

    Attributes:
      unit: what a number that the model returns is called.
      output: what the answer is called in the signatures of an exported model.
      best: the metric that the best checkpoint is chosen by.
      tuned: the metric that tuning makes small; it says more of a short run than the best one.
      shown: the metrics that a line of progress has room for, the best one first.
    """

    unit: ClassVar[str]
    output: ClassVar[str]
    best: ClassVar[str]
    tuned: ClassVar[str]
    shown: ClassVar[tuple[str, ...]]

    @abc.abstractmethod
    def returned(self, scores: tf.Tensor) -> tf.Tensor:
        """Returns what the model returns, float32 [B], from the output of `compute_logits`."""

    @abc.abstractmethod
    def served(self, returned: tf.Tensor) -> tf.Tensor:
        """Returns what an exported model answers, float32 [B], from what the model returns."""

    @abc.abstractmethod
    def loss(self) -> keras.losses.Loss:
        """Makes the loss, summed over examples; `loss_arguments` returns its arguments."""

    @abc.abstractmethod
    def loss_arguments(self, labels: tf.Tensor, returned: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns `y_true` and `y_pred` of the loss. Mixed precision casts `y_true` to bfloat16."""

    @abc.abstractmethod
    def metrics(self, suffix: str = "") -> list[keras.metrics.Metric]:
        """Makes metrics of (label, what the model returns, weight), whose names end in `suffix`."""

    @abc.abstractmethod
    def evaluate(self, labels: ArrayLike, returned: ArrayLike, weights: ArrayLike | None = None) -> dict[str, float]:
        """Returns exact metrics of arrays in memory."""

    @abc.abstractmethod
    def by_group(
        self, groups: ArrayLike, labels: ArrayLike, returned: ArrayLike, weights: ArrayLike | None = None
    ) -> Groups:
        """Returns exact metrics per group; `groups` are whole numbers [N]."""

    @abc.abstractmethod
    def worsening(self, before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
        """Returns how much worse `after` is than `before`, both from `evaluate`, by name; the main change first.

        A name is that of a metric, and `_drop` or `_rise`, whichever is for the worse.
        """

    @abc.abstractmethod
    def quality(self, metrics: Mapping[str, float]) -> float:
        """Returns one number from the metrics of `evaluate`; more is better."""


class BinaryClassification(Task):
    """The probability of a 1. The model returns its logit, and the loss is the log loss."""

    unit = "logit"
    output = "probability"
    best = "auc"
    tuned = "log_loss"
    shown = ("auc", "log_loss", "normalized_entropy", "calibration")

    def returned(self, scores: tf.Tensor) -> tf.Tensor:
        """Returns logits."""
        return scores

    def served(self, returned: tf.Tensor) -> tf.Tensor:
        """Returns probabilities."""
        return tf.sigmoid(returned)

    def loss(self) -> keras.losses.Loss:
        """Makes the log loss."""
        return keras.losses.BinaryCrossentropy(from_logits=True, reduction="sum")

    def loss_arguments(self, labels: tf.Tensor, returned: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns both unchanged; bfloat16 represents 0 and 1 exactly."""
        return labels, returned

    def metrics(self, suffix: str = "") -> list[keras.metrics.Metric]:
        """See `tfrs_dlrm.metrics.default_metrics`."""
        return default_metrics(suffix)

    def evaluate(self, labels: ArrayLike, returned: ArrayLike, weights: ArrayLike | None = None) -> dict[str, float]:
        """See `tfrs_dlrm.metrics.evaluate_scores`."""
        return evaluate_scores(labels, returned, weights)

    def by_group(
        self, groups: ArrayLike, labels: ArrayLike, returned: ArrayLike, weights: ArrayLike | None = None
    ) -> Groups:
        """See `tfrs_dlrm.metrics.group_metrics`."""
        return group_metrics(groups, labels, returned, weights)

    def worsening(self, before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
        """Returns the changes of AUC and log loss."""
        return {"auc_drop": before["auc"] - after["auc"], "log_loss_rise": after["log_loss"] - before["log_loss"]}

    def quality(self, metrics: Mapping[str, float]) -> float:
        """Returns the AUC."""
        return metrics["auc"]


class Regression(Task):
    """A number. What `compute_logits` computes is how many standard deviations of the labels it is above their mean.

    The loss is the mean squared error in that unit, (prediction - label)^2 / std^2, so that learning rates and L2 mean
    the same whatever the labels are measured in: always predicting the mean has a loss of 1. The metrics are in the
    unit of the labels.

    Args:
      mean: of the training labels; 0 where it is not known.
      std: the standard deviation of the training labels; 1, if it is not known, gives the plain mean squared error.
    """

    unit = "prediction"
    output = "prediction"
    best = "rmse"
    tuned = "rmse"
    shown = ("rmse", "mae")

    def __init__(self, mean: float = 0.0, std: float = 1.0) -> None:
        self.mean, self.std = mean, std

    def returned(self, scores: tf.Tensor) -> tf.Tensor:
        """Returns predictions in the unit of the labels."""
        return self.mean + self.std * scores

    def served(self, returned: tf.Tensor) -> tf.Tensor:
        """Returns the predictions unchanged."""
        return returned

    def loss(self) -> keras.losses.Loss:
        """Makes the squared error."""
        return keras.losses.MeanSquaredError(reduction="sum")

    def loss_arguments(self, labels: tf.Tensor, returned: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns zeros and the errors, since labels would be rounded to bfloat16."""
        errors = (returned - labels) / self.std
        return tf.zeros_like(errors), errors

    def metrics(self, suffix: str = "") -> list[keras.metrics.Metric]:
        """Makes RMSE and MAE."""
        return regression_metrics(suffix)

    def evaluate(self, labels: ArrayLike, returned: ArrayLike, weights: ArrayLike | None = None) -> dict[str, float]:
        """See `tfrs_dlrm.metrics.evaluate_predictions`."""
        return evaluate_predictions(labels, returned, weights)

    def by_group(
        self, groups: ArrayLike, labels: ArrayLike, returned: ArrayLike, weights: ArrayLike | None = None
    ) -> Groups:
        """See `tfrs_dlrm.metrics.group_errors`."""
        return group_errors(groups, labels, returned, weights)

    def worsening(self, before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
        """Returns the changes of RMSE and MAE."""
        return {"rmse_rise": after["rmse"] - before["rmse"], "mae_rise": after["mae"] - before["mae"]}

    def quality(self, metrics: Mapping[str, float]) -> float:
        """Returns the negated RMSE."""
        return -metrics["rmse"]


class Tasks:
    """The tasks of all labels of a schema.

    A model has one column of numbers for each label, [B, len(schema.labels)]; where there is one label, [B].

    Args:
      schema: of the model.

    Attributes:
      first: the task of `schema.label`.
      more: by name, those of `schema.more_labels`.
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
    def suffixes(self) -> tuple[str, ...]:
        """What stands behind the names of a label's metrics and outputs: nothing for the first, `_NAME` for others."""
        return ("", *(f"_{name}" for name in self.more))

    @property
    def outputs(self) -> tuple[str, ...]:
        """What the answers are called in the signatures of an exported model."""
        return tuple(task.output + suffix for task, suffix in zip(self.all, self.suffixes, strict=True))

    @property
    def shown(self) -> tuple[str, ...]:
        """The metrics that a line of progress has room for."""
        return (*self.first.shown, *(f"{task.best}_{name}" for name, task in self.more.items()))

    def returned(self, scores: tf.Tensor) -> tf.Tensor:
        """Applies `Task.returned` to each label's column."""
        columns = zip(self.all, self.columns(scores), strict=True)
        return self._joined([task.returned(column) for task, column in columns])

    def served(self, returned: tf.Tensor) -> tf.Tensor:
        """Applies `Task.served` to each label's column."""
        columns = zip(self.all, self.columns(returned), strict=True)
        return self._joined([task.served(column) for task, column in columns])

    def named(self, served: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the columns by the names of the outputs."""
        return dict(zip(self.outputs, self.columns(served), strict=True))

    def columns(self, values: tf.Tensor) -> list[tf.Tensor]:
        """Splits predictions into a tensor per label."""
        return tf.unstack(values, axis=-1) if self.more else [values]

    def _joined(self, columns: list[tf.Tensor]) -> tf.Tensor:
        return tf.stack(columns, axis=-1) if self.more else columns[0]


def task_of(label: Label) -> Task:
    """Returns the task of a label."""
    return Regression(label.mean, label.std) if label.task == "regression" else BinaryClassification()
