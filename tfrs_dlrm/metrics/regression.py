"""How good predicted numbers are: exact on arrays, in all and by groups, and streamed through `model.fit`."""

from __future__ import annotations

import dataclasses

import numpy as np
import tensorflow as tf
import tf_keras as keras
from numpy.typing import ArrayLike

from tfrs_dlrm.metrics.exact import Floats, as_columns
from tfrs_dlrm.metrics.groups import ByGroup, Groups
from tfrs_dlrm.metrics.streaming import Sums, ratio


def evaluate_predictions(
    labels: ArrayLike, predictions: ArrayLike, weights: ArrayLike | None = None
) -> dict[str, float]:
    """All metrics of one model over one set of examples; all but the first two in the unit of the labels.

    Args:
      labels: finite numbers, [N] or [N, 1].
      predictions: likewise.
      weights: not negative; without them every example weighs 1.

    Returns:
      In this order:
      - `examples`: rows, whatever they weigh; `weight`: their total weight.
      - `label_mean` and `prediction_mean`, weighted.
      - `rmse`: the root of the weighted mean of the squared errors.
      - `mae`: the weighted mean of the absolute errors.
      Over no weight at all, means are nan.

    Raises:
      ValueError: a number is not as it should be, or there are not equally many of each.
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
    """How good predicted numbers are within each group, in the unit of the labels.

    Attributes:
      rmse: as in `evaluate_predictions`.
      mae: likewise.
    """

    rmse: Floats
    mae: Floats


def group_errors(
    groups: ArrayLike, labels: ArrayLike, predictions: ArrayLike, weights: ArrayLike | None = None
) -> GroupErrors:
    """The metrics within each group.

    Args:
      groups: whole numbers [N]; examples with equal ones are a group.
      labels: finite numbers, [N].
      predictions: likewise.
      weights: [N]; None is 1 for all.

    Raises:
      ValueError: as `evaluate_predictions`, or groups are not one whole number per example.
    """
    by_group = ByGroup(groups, *as_columns(labels, predictions, weights, binary=False))
    errors = by_group.scores - by_group.labels
    return GroupErrors(
        group=by_group.group,
        examples=by_group.examples,
        weight=by_group.weight,
        label_mean=by_group.means(by_group.labels),
        prediction_mean=by_group.means(by_group.scores),
        rmse=np.sqrt(by_group.means(errors**2)),
        mae=by_group.means(np.abs(errors)),
    )


@keras.saving.register_keras_serializable(package="tfrs_dlrm")
class RootMeanSquaredError(Sums):
    """The root of the weighted mean of the squared errors of predicted numbers."""

    def __init__(self, name: str = "rmse") -> None:
        super().__init__(name, (2,))

    def _sums_of_batch(self, labels: tf.Tensor, predictions: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        return self._total(weights * tf.square(predictions - labels), weights)

    def _value(self, sums: tf.Tensor) -> tf.Tensor:
        return tf.sqrt(ratio(sums[0], sums[1]))


@keras.saving.register_keras_serializable(package="tfrs_dlrm")
class MeanAbsoluteError(Sums):
    """The weighted mean of the absolute errors of predicted numbers."""

    def __init__(self, name: str = "mae") -> None:
        super().__init__(name, (2,))

    def _sums_of_batch(self, labels: tf.Tensor, predictions: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        return self._total(weights * tf.abs(predictions - labels), weights)

    def _value(self, sums: tf.Tensor) -> tf.Tensor:
        return ratio(sums[0], sums[1])


def regression_metrics(suffix: str = "") -> list[keras.metrics.Metric]:
    """New metrics for training, named as the keys of `evaluate_predictions`; create them in the strategy's scope.

    Args:
      suffix: of their names.
    """
    return [RootMeanSquaredError(f"rmse{suffix}"), MeanAbsoluteError(f"mae{suffix}")]
