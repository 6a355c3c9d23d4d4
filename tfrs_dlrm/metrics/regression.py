"""Metrics of predicted numbers: exact on arrays, per group, and as Keras metrics for `model.fit`."""

from __future__ import annotations

import dataclasses

import numpy as np
import tensorflow as tf
import tf_keras as keras
from numpy.typing import ArrayLike

from tfrs_dlrm.metrics.exact import Floats, as_columns
from tfrs_dlrm.metrics.groups import GroupedExamples, Groups
from tfrs_dlrm.metrics.keras_metrics import SumMetric, ratio


def evaluate_predictions(
    labels: ArrayLike, predictions: ArrayLike, weights: ArrayLike | None = None
) -> dict[str, float]:
    """Returns all metrics of a model over a set of examples; all but the first two are in the unit of the labels.

    Args:
      labels: finite numbers, [N] or [N, 1].
      predictions: finite numbers, [N] or [N, 1].
      weights: not negative; None is 1 for all.

    Returns:
      In this order:
      - `examples`: the number of rows; `weight`: their total weight.
      - `label_mean` and `prediction_mean`, weighted.
      - `rmse`: the root of the weighted mean of the squared errors.
      - `mae`: the weighted mean of the absolute errors.
      Means over a total weight of 0 are nan.

    Raises:
      ValueError: a number is not finite, a weight is negative, or the lengths differ.
    """
    y, z, w = as_columns(labels, predictions, weights, binary=False)
    total = float(w.sum())

    def mean(values: np.ndarray) -> float:
        return float((values * w).sum()) / total if total > 0 else np.nan

    return {
        "examples": len(y),
        "weight": total,
        "label_mean": mean(y),
        "prediction_mean": mean(z),
        "rmse": float(np.sqrt(mean((z - y) ** 2))),
        "mae": mean(np.abs(z - y)),
    }


@dataclasses.dataclass(frozen=True)
class GroupErrors(Groups):
    """The errors of predicted numbers within each group, in the unit of the labels.

    Attributes:
      rmse: see `evaluate_predictions`.
      mae: see `evaluate_predictions`.
    """

    rmse: Floats
    mae: Floats


def group_errors(
    groups: ArrayLike, labels: ArrayLike, predictions: ArrayLike, weights: ArrayLike | None = None
) -> GroupErrors:
    """Returns the errors within each group.

    Args:
      groups: whole numbers [N]; examples with equal ones are a group.
      labels: finite numbers, [N].
      predictions: finite numbers, [N].
      weights: [N]; None is 1 for all.

    Raises:
      ValueError: see `evaluate_predictions`; or groups are not one whole number per example.
    """
    grouped = GroupedExamples(groups, *as_columns(labels, predictions, weights, binary=False))
    errors = grouped.scores - grouped.labels
    return GroupErrors(
        group=grouped.group,
        examples=grouped.examples,
        weight=grouped.weight,
        label_mean=grouped.means(grouped.labels),
        prediction_mean=grouped.means(grouped.scores),
        rmse=np.sqrt(grouped.means(errors**2)),
        mae=grouped.means(np.abs(errors)),
    )


@keras.saving.register_keras_serializable(package="tfrs_dlrm")
class RootMeanSquaredError(SumMetric):
    """The root of the weighted mean of the squared errors of predicted numbers."""

    def __init__(self, name: str = "rmse") -> None:
        super().__init__(name, (2,))

    def _sums_of_batch(self, labels: tf.Tensor, predictions: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        return self._total(weights * tf.square(predictions - labels), weights)

    def _value(self, sums: tf.Tensor) -> tf.Tensor:
        return tf.sqrt(ratio(sums[0], sums[1]))


@keras.saving.register_keras_serializable(package="tfrs_dlrm")
class MeanAbsoluteError(SumMetric):
    """The weighted mean of the absolute errors of predicted numbers."""

    def __init__(self, name: str = "mae") -> None:
        super().__init__(name, (2,))

    def _sums_of_batch(self, labels: tf.Tensor, predictions: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        return self._total(weights * tf.abs(predictions - labels), weights)

    def _value(self, sums: tf.Tensor) -> tf.Tensor:
        return ratio(sums[0], sums[1])


def regression_metrics(suffix: str = "") -> list[keras.metrics.Metric]:
    """Creates metrics for training, named as the keys of `evaluate_predictions`; call it in the strategy's scope.

    Args:
      suffix: appended to their names.
    """
    return [RootMeanSquaredError(f"rmse{suffix}"), MeanAbsoluteError(f"mae{suffix}")]
