"""Encodes raw numbers: missing values, logarithms, standardization and indicators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfrs_dlrm.data.encoding.statistics import DenseStatistics
from tfrs_dlrm.schema import DenseFeature


class DenseEncoding(NamedTuple):
    """The encoding of a dense feature: `fill` where missing, then log1p if set, then (x - mean) * scale.

    `fill`, `mean` and `scale` are float32 [K] of K numbers.
    """

    fill: np.ndarray
    log1p: bool
    mean: np.ndarray
    scale: np.ndarray
    indicator: bool


def dense_encoding(
    feature: DenseFeature, statistics: Mapping[str, DenseStatistics], transformed: Mapping[str, DenseStatistics]
) -> DenseEncoding:
    """Returns the encoding of a feature.

    Args:
      feature: the feature.
      statistics: of the numbers of the log, by name; needed for some encodings.
      transformed: of their logarithms; needed if the feature standardizes them.
    """
    log1p, standardize = ("log1p" in feature.transforms), ("standardize" in feature.transforms)
    used = transformed if log1p else statistics
    fill, mean, scale = [], [], []
    for name in feature.numbers:
        raw_mean = statistics[name].mean if name in statistics else 0.0
        of_mean = feature.fill_value == "mean"
        fill.append(raw_mean if of_mean else 0.0 if feature.fill_value is None else feature.fill_value)
        center, std = (used[name].mean, used[name].std) if standardize else (0.0, 1.0)
        mean.append(center)
        # A constant column holds no information; divided by its deviation, rounding errors would become noise.
        scale.append(1 / std if std > 1e-12 * max(1.0, abs(center)) else 0.0)
    return DenseEncoding(
        np.array(fill, np.float32),
        log1p,
        np.array(mean, np.float32),
        np.array(scale, np.float32),
        feature.indicator,
    )


def encode_dense(values: tf.Tensor, encodings: Sequence[DenseEncoding]) -> tf.Tensor:
    """Encodes raw numbers, float32 [N, K], NaN where missing, to [N, W], all columns at once."""
    present = tf.math.is_finite(values)
    x = tf.where(present, values, np.concatenate([f.fill for f in encodings]))
    log1p = np.concatenate([np.full(len(f.fill), f.log1p) for f in encodings])
    if log1p.any():
        logarithms = tf.math.log1p(tf.maximum(x, 0))
        x = logarithms if log1p.all() else tf.where(log1p, logarithms, x)
    mean, scale = (np.concatenate([getattr(f, name) for f in encodings]) for name in ("mean", "scale"))
    if mean.any() or (scale != 1).any():
        x = (x - mean) * scale
    return _with_indicators(x, present, encodings) if any(f.indicator for f in encodings) else x


def _with_indicators(x: tf.Tensor, present: tf.Tensor, encodings: Sequence[DenseEncoding]) -> tf.Tensor:
    """Puts the indicators, 1 where a number of a feature is missing, behind its numbers."""
    missing: list[tf.Tensor] = []  # [N, 1] each
    order: list[int] = []  # positions in x, followed by `missing`
    first, width = 0, sum(len(f.fill) for f in encodings)
    for f in encodings:
        end = first + len(f.fill)
        order += range(first, end)
        if f.indicator:
            order.append(width + len(missing))
            missing.append(~tf.reduce_all(present[:, first:end], axis=1, keepdims=True))
        first = end
    return tf.gather(tf.concat([x, *(tf.cast(m, tf.float32) for m in missing)], axis=1), order, axis=1)
