"""Means and standard deviations of dense features in the training rows, which some encodings need."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable

import numpy as np

from tfrs_dlrm.schema import DenseFeature, Schema
from tfrs_dlrm.schema.plain import build
from tfrs_dlrm.stores.files import read_json, well_formed

STATISTICS_FILE = "statistics.json"
_PREPARE_AGAIN = "prepare the data again, or copy the file from the prepared directory"


@dataclasses.dataclass(frozen=True)
class DenseStatistics:
    """Statistics of the present values of one dense feature in the training rows, in the units of the log."""

    count: int
    mean: float
    std: float


@dataclasses.dataclass(frozen=True)
class _Statistics:
    """The content of the file."""

    dense: dict[str, DenseStatistics]


def needs_statistics(feature: DenseFeature) -> bool:
    """Whether the encoding of a feature needs the mean or standard deviation of the training rows."""
    return feature.transform == "standardize" or feature.fill_value == "mean"


def dense_statistics(schema: Schema, directory: str) -> dict[str, DenseStatistics]:
    """Reads the statistics of the dense features that need them from a prepared directory.

    Raises:
      FileNotFoundError: there are none.
      ValueError: the file is damaged, or lacks a feature.
    """
    needed = [f.name for f in schema.dense if needs_statistics(f)]
    if not needed:
        return {}
    path = os.path.join(directory, STATISTICS_FILE)
    content = read_json(path, _PREPARE_AGAIN)
    with well_formed(path, _PREPARE_AGAIN):
        found = build(_Statistics, content, "statistics").dense
    for name in needed:
        if name not in found:
            raise ValueError(f"{path}: no statistics of feature {name!r}; prepare the data with this schema")
    return {name: found[name] for name in needed}


class Moments:
    """Count, mean and standard deviation of columns of numbers, joined from parts (Chan et al. 1979).

    The result depends on the parts and their order only.
    """

    def __init__(self, count: Iterable[float], mean: Iterable[float], m2: Iterable[float]):
        self.count, self.mean, self.m2 = (np.array(list(x), np.float64) for x in (count, mean, m2))

    @classmethod
    def of(cls, values: np.ndarray) -> Moments:
        """Computes the moments of float [N, K]; NaN is skipped."""
        values = values.astype(np.float64)
        present = np.isfinite(values)
        count = present.sum(0)
        mean = np.where(present, values, 0).sum(0) / np.maximum(count, 1)
        m2 = np.where(present, (values - mean) ** 2, 0).sum(0)
        return cls(count, mean, m2)

    def __add__(self, other: Moments) -> Moments:
        count = self.count + other.count
        delta = other.mean - self.mean
        share = other.count / np.maximum(count, 1)
        return Moments(count, self.mean + delta * share, self.m2 + other.m2 + delta**2 * self.count * share)

    @property
    def std(self) -> np.ndarray:
        """The standard deviation of the population, float64 [K]."""
        return np.sqrt(self.m2 / np.maximum(self.count, 1))
