"""Encodes raw numbers: missing values, logarithms, standardization and indicators."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfrs_dlrm.data.encoding.statistics import DenseStatistics
from tfrs_dlrm.schema import DenseFeature


class DenseColumn(NamedTuple):
    """The encoding of one dense feature: `fill` where missing, then log1p if set, then (x - mean) * scale."""

    fill: np.float32
    log1p: bool
    mean: np.float32
    scale: np.float32
    indicator: bool


def dense_column(
    feature: DenseFeature, statistics: DenseStatistics | None, transformed: DenseStatistics | None = None
) -> DenseColumn:
    """Returns the encoding of a feature.

    Args:
      feature: the feature.
      statistics: of the numbers of the log; may be None if the feature needs none.
      transformed: of their logarithms; may be None if the feature does not standardize them.
    """
    raw_mean = statistics.mean if statistics else 0.0
    fill = 0.0 if feature.fill_value is None else raw_mean if feature.fill_value == "mean" else feature.fill_value
    standardize, log1p = ("standardize" in feature.transforms), ("log1p" in feature.transforms)
    used = transformed if log1p else statistics
    mean, std = (used.mean, used.std) if used else (0.0, 1.0)
    # A constant column holds no information; divided by its deviation, rounding errors would become noise.
    scale = 1 / std if std > 1e-12 * max(1.0, abs(mean)) else 0.0
    return DenseColumn(
        np.float32(fill),
        log1p,
        np.float32(mean if standardize else 0.0),
        np.float32(scale if standardize else 1.0),
        feature.indicator,
    )


def encode_dense(values: tf.Tensor, columns: Sequence[DenseColumn]) -> tf.Tensor:
    """Encodes raw numbers, float32 [N, F], NaN where missing, to [N, W], all columns at once."""
    present = tf.math.is_finite(values)
    x = tf.where(present, values, np.array([c.fill for c in columns]))
    log1p = np.array([c.log1p for c in columns])
    if log1p.any():
        logarithms = tf.math.log1p(tf.maximum(x, 0))
        x = logarithms if log1p.all() else tf.where(log1p, logarithms, x)
    mean, scale = np.array([c.mean for c in columns]), np.array([c.scale for c in columns])
    if mean.any() or (scale != 1).any():
        x = (x - mean) * scale
    if not any(c.indicator for c in columns):
        return x
    order = []  # positions in the columns of x, followed by the indicators
    for i, c in enumerate(columns):
        order += [i, len(columns) + i] if c.indicator else [i]
    return tf.gather(tf.concat([x, tf.cast(~present, tf.float32)], axis=1), order, axis=1)
