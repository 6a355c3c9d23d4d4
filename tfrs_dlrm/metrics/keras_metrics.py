"""Keras metrics of a model that returns logits, for `model.fit` and `tfrs.tasks.Ranking(metrics=default_metrics())`.

Each keeps only sums over examples, in one variable, so batches of any size on any number of replicas add up to the same
value: Keras sums the variable over the replicas before `result` reads it. Arguments of `update_state`: `y_true` the
label and `y_pred` the logit of each example, [B] or [B, 1] of any float or integer dtype; `sample_weight` of the same
shape, a scalar, or None for 1. Results are float32 scalars; nan if the data do not define them, or after a logit of
nan. `exact` defines each metric.

The sums are float64 under every Keras dtype policy: at 10^9 examples float32 has steps of 64. TPUs emulate float64, and
not in every operation, so on TPUs the sums are float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras

from tfrs_dlrm.metrics.exact import CALIBRATION_BINS

_register = keras.saving.register_keras_serializable(package="tfrs_dlrm")


class SumMetric(keras.metrics.Metric):
    """A metric that is a function (`_value`) of sums over examples of some statistics (`_sums_of_batch`).

    Args:
      name: the metric's name.
      shape: the shape of the sums.
    """

    def __init__(self, name: str, shape: tuple[int, ...]) -> None:
        # Under a float32 policy variables are no AutoCastVariables, which would read as bfloat16 inside a task's call.
        super().__init__(name=name, dtype=tf.float32)
        self._sums = self.add_weight("sums", shape, initializer="zeros", dtype=_accumulator_dtype())

    def update_state(
        self, y_true: tf.Tensor, y_pred: tf.Tensor, sample_weight: tf.Tensor | None = None
    ) -> tf.Operation:
        """Adds a batch.

        Raises:
          ValueError: `y_true` and `y_pred` have static shapes of different sizes.
        """
        labels, logits = _column(y_true), _column(y_pred)
        if not labels.shape.is_compatible_with(logits.shape):
            raise ValueError(
                f"metric {self.name!r}: {labels.shape[0]} values in y_true and {logits.shape[0]} in y_pred; expected"
                " one label and one logit per example"
            )
        weights = tf.ones_like(logits) if sample_weight is None else _column(sample_weight)
        weights = tf.broadcast_to(weights, tf.shape(logits))
        return self._sums.assign_add(self._sums_of_batch(labels, logits, weights))

    @tf.autograph.experimental.do_not_convert  # plain operations, which AutoGraph would rewrite for each metric
    def result(self) -> tf.Tensor:
        """Returns the metric over all batches since the last `reset_state`; a float32 scalar."""
        return tf.cast(self._value(tf.convert_to_tensor(self._sums)), tf.float32)

    def reset_state(self) -> None:
        """Forgets all batches."""
        keras.backend.batch_set_value([(self._sums, np.zeros(self._sums.shape))])

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {"name": self.name}

    def _sums_of_batch(self, labels: tf.Tensor, logits: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        """Returns the sums that a batch of three float32 [B] adds, in the dtype and shape of the variable."""
        raise NotImplementedError

    def _value(self, sums: tf.Tensor) -> tf.Tensor:
        """Returns the metric of the sums, a scalar of any float dtype."""
        raise NotImplementedError

    def _total(self, *statistics: tf.Tensor) -> tf.Tensor:
        """Returns [len(statistics)]: the sum of each [B]."""
        return tf.reduce_sum(tf.cast(tf.stack(statistics), self._sums.dtype), axis=1)

    def _total_by_bin(self, bin_of_example: tf.Tensor, bins: int, *statistics: tf.Tensor) -> tf.Tensor:
        """Returns [len(statistics), bins]: the sums of each [B] per bin."""
        # One op per statistic: with an inner dimension the kernel takes ten times as long.
        columns = [tf.cast(s, self._sums.dtype) for s in statistics]
        return tf.stack([tf.math.unsorted_segment_sum(column, bin_of_example, bins) for column in columns])


@_register
class StreamingAUC(SumMetric):
    """Area under the ROC curve, from a histogram of the logits of each class.

    The bins have equal width in the logit and cover [-16, 16], probabilities from 1e-7 to 1 - 1e-7; the outermost bins
    take all logits beyond. Bins of probability would be too coarse for rare clicks. A positive and a negative in one
    bin count half, as a tie does, so the error is at most half the share of pairs in one bin. Most of that cancels:
    8192 bins and 2 million examples gave errors below 2e-5 for logits with a standard deviation of 0.3 or more, and of
    about 1e-4 for one of 0.001, as in an untrained model.

    Args:
      bins: of the histogram; the variable holds two floats per bin.
      name: the metric's name.
    """

    _LIMIT = 16.0

    def __init__(self, bins: int = 8192, name: str = "auc") -> None:
        if bins < 2:
            raise ValueError(f"metric {name!r}: bins={bins}; at least 2 are needed to rank anything")
        self._bins = bins
        super().__init__(name, (2, bins))

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {**super().get_config(), "bins": self._bins}

    def _sums_of_batch(self, labels: tf.Tensor, logits: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        position = (logits + self._LIMIT) * (self._bins / (2.0 * self._LIMIT))
        # A nan would count as a score of some bin.
        weights = tf.where(tf.math.is_nan(logits), logits, weights)
        return self._total_by_bin(_bin(position, self._bins), self._bins, weights * (1.0 - labels), weights * labels)

    def _value(self, sums: tf.Tensor) -> tf.Tensor:
        negatives, positives = sums[0], sums[1]
        outscored = tf.cumsum(negatives, exclusive=True) + negatives / 2.0
        pairs = tf.reduce_sum(negatives) * tf.reduce_sum(positives)
        return tf.reduce_sum(positives * outscored) / pairs


@_register
class LogLoss(SumMetric):
    """Weighted mean log loss in nats."""

    def __init__(self, name: str = "log_loss") -> None:
        super().__init__(name, (2,))

    def _sums_of_batch(self, labels: tf.Tensor, logits: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        return self._total(weights * _log_loss(labels, logits), weights)

    def _value(self, sums: tf.Tensor) -> tf.Tensor:
        return sums[0] / sums[1]


@_register
class NormalizedEntropy(SumMetric):
    """Log loss over the entropy of the base rate seen so far; below 1 beats always predicting the base rate."""

    def __init__(self, name: str = "normalized_entropy") -> None:
        super().__init__(name, (3,))

    def _sums_of_batch(self, labels: tf.Tensor, logits: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        return self._total(weights * _log_loss(labels, logits), weights * labels, weights * (1.0 - labels))

    def _value(self, sums: tf.Tensor) -> tf.Tensor:
        loss, positives, negatives = sums[0], sums[1], sums[2]
        total = positives + negatives
        entropy = -tf.math.xlogy(positives, positives / total) - tf.math.xlogy(negatives, negatives / total)
        return ratio(loss, entropy)


@_register
class Calibration(SumMetric):
    """Mean prediction over mean label; 1 is best, above 1 is too many predicted clicks."""

    def __init__(self, name: str = "calibration") -> None:
        super().__init__(name, (2,))

    def _sums_of_batch(self, labels: tf.Tensor, logits: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        return self._total(weights * tf.sigmoid(logits), weights * labels)

    def _value(self, sums: tf.Tensor) -> tf.Tensor:
        return ratio(sums[0], sums[1])


@_register
class ExpectedCalibrationError(SumMetric):
    """Mean distance between predicted and observed click rates of the examples' bins of probability.

    Args:
      bins: of equal width in probability.
      name: the metric's name.
    """

    def __init__(self, bins: int = CALIBRATION_BINS, name: str = "expected_calibration_error") -> None:
        if bins < 1:
            raise ValueError(f"metric {name!r}: bins={bins}; at least 1 is needed")
        self._bins = bins
        super().__init__(name, (2, bins))

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {**super().get_config(), "bins": self._bins}

    def _sums_of_batch(self, labels: tf.Tensor, logits: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        probabilities = tf.sigmoid(logits)
        surplus = weights * (probabilities - labels)
        return self._total_by_bin(_bin(probabilities * self._bins, self._bins), self._bins, surplus, weights)

    def _value(self, sums: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(tf.abs(sums[0])) / tf.reduce_sum(sums[1])


@_register
class OutOfRangeIds(SumMetric):
    """The number of ids outside their tables; they follow the feature's `out_of_range` policy.

    Args:
      features: the names of the categorical features.
      name: the metric's name.
    """

    def __init__(self, features: Sequence[str], name: str = "out_of_range") -> None:
        self._features = list(features)
        super().__init__(name, (len(self._features),))

    def update_state(self, counts: tf.Tensor) -> tf.Operation:  # type: ignore[override]
        """Adds the counts of a batch, int [len(features)]."""
        return self._sums.assign_add(tf.cast(counts, self._sums.dtype))

    def by_feature(self) -> dict[str, int]:
        """Returns the counts above 0 by feature."""
        counts = tf.convert_to_tensor(self._sums).numpy()
        return {name: int(n) for name, n in zip(self._features, counts, strict=True) if n}

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {**super().get_config(), "features": self._features}

    def _value(self, sums: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(sums)


def default_metrics(suffix: str = "") -> list[keras.metrics.Metric]:
    """Creates metrics for training, named as the keys of `evaluate_scores`; call it in the strategy's scope.

    Args:
      suffix: appended to their names.
    """
    return [
        StreamingAUC(name=f"auc{suffix}"),
        LogLoss(name=f"log_loss{suffix}"),
        NormalizedEntropy(name=f"normalized_entropy{suffix}"),
        Calibration(name=f"calibration{suffix}"),
        ExpectedCalibrationError(name=f"expected_calibration_error{suffix}"),
    ]


def _accumulator_dtype() -> tf.DType:
    on_tpu = isinstance(tf.distribute.get_strategy(), tf.distribute.TPUStrategy)
    return tf.float32 if on_tpu else tf.float64


def _column(values: tf.Tensor) -> tf.Tensor:
    return tf.reshape(tf.cast(values, tf.float32), [-1])


def _bin(position: tf.Tensor, bins: int) -> tf.Tensor:
    # Clipped as a float, since casting one beyond int32 is undefined; and again, since nan passes the first.
    index = tf.cast(tf.clip_by_value(position, 0.0, bins - 1.0), tf.int32)
    return tf.clip_by_value(index, 0, bins - 1)


def _log_loss(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    return tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=logits)


def ratio(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """Returns `a` / `b`, nan where b is not positive."""
    return tf.where(b > 0.0, a / b, np.nan)
