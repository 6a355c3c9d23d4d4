"""Statistics of numbers in the training rows, which some encodings need: means, deviations, edges and first days."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable
from typing import Any

import numpy as np

from tfrs_dlrm.schema import CategoricalFeature, DenseFeature, Schema
from tfrs_dlrm.schema.plain import build
from tfrs_dlrm.stores.files import read_json, well_formed

STATISTICS_FILE = "statistics.json"
_WHAT = {"dense": "statistics", "transformed": "statistics", "edges": "edges", "origins": "origin"}
_PREPARE_AGAIN = "prepare the data again, or copy the file from the prepared directory"


@dataclasses.dataclass(frozen=True)
class DenseStatistics:
    """Statistics of the present values of one number of the training rows, in the units of the log.

    Those of a time are in days since its origin.
    """

    count: int
    mean: float
    std: float


@dataclasses.dataclass(frozen=True)
class Statistics:
    """What an encoder knows of the numbers of the training rows, by feature: the content of `statistics.json`.

    Attributes:
      dense: statistics of the numbers of the log, by `DenseFeature.numbers`.
      transformed: statistics of their logarithms.
      edges: the edges of buckets, as float32.
      origins: the days from which a time counts, in days since 1970.
    """

    dense: dict[str, DenseStatistics] = dataclasses.field(default_factory=dict)
    transformed: dict[str, DenseStatistics] = dataclasses.field(default_factory=dict)
    edges: dict[str, tuple[float, ...]] = dataclasses.field(default_factory=dict)
    origins: dict[str, int] = dataclasses.field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """Returns JSON values, without what is empty, except `dense`."""
        found = dataclasses.asdict(self)
        return {name: value for name, value in found.items() if value or name == "dense"}


def needs_statistics(feature: DenseFeature) -> bool:
    """Whether the encoding of a feature needs the mean or standard deviation of the numbers of the training rows."""
    return feature.transforms == ("standardize",) or feature.fill_value == "mean"


def needs_transformed(feature: DenseFeature) -> bool:
    """Whether the encoding of a feature needs the statistics of logarithms."""
    return feature.transforms == ("log1p", "standardize")


def measured_numbers(schema: Schema) -> dict[str, DenseFeature]:
    """The numbers whose statistics are computed, each with its feature: of vectors only those that are needed."""
    measured = (f for f in schema.dense if f.size is None or needs_statistics(f) or needs_transformed(f))
    return {name: f for f in measured for name in f.numbers}


def bucket_features(schema: Schema) -> list[CategoricalFeature]:
    """The features, and members of crosses, that put numbers into buckets."""
    return [f for f in (*schema.categorical, *schema.members) if f.encoding == "buckets"]


def day_features(schema: Schema) -> list[DenseFeature | CategoricalFeature]:
    """The features that count days from an origin."""
    dense = [f for f in schema.dense if f.time is not None]
    return [*dense, *(f for f in bucket_features(schema) if f.time is not None)]


def read_statistics(schema: Schema, directory: str) -> Statistics:
    """Reads the statistics that the encoding of a schema needs from a prepared directory.

    Raises:
      FileNotFoundError: there are none.
      ValueError: the file is damaged, or lacks a feature.
    """
    needed = {
        "dense": [name for f in schema.dense if needs_statistics(f) for name in f.numbers],
        "transformed": [name for f in schema.dense if needs_transformed(f) for name in f.numbers],
        "edges": [f.name for f in bucket_features(schema)],
        "origins": [f.name for f in day_features(schema)],
    }
    if not any(needed.values()):
        return Statistics()
    path = os.path.join(directory, STATISTICS_FILE)
    content = read_json(path, _PREPARE_AGAIN)
    with well_formed(path, _PREPARE_AGAIN):
        found = build(Statistics, content, "statistics")
    kept = {}
    for kind, names in needed.items():
        for name in names:
            if name not in getattr(found, kind):
                raise ValueError(f"{path}: no {_WHAT[kind]} of feature {name!r}; prepare the data with this schema")
        kept[kind] = {name: getattr(found, kind)[name] for name in names}
    return Statistics(**kept)


class Moments:
    """Count, mean and standard deviation of columns of numbers, joined from parts (Chan et al. 1979).

    The result depends on the parts and their order only.
    """

    def __init__(self, count: Iterable[float], mean: Iterable[float], m2: Iterable[float]):
        self.count, self.mean, self.m2 = (np.array(list(x), np.float64) for x in (count, mean, m2))

    @classmethod
    def of(cls, values: np.ndarray) -> Moments:
        """Computes the moments of float [N, K]; NaN is skipped."""
        values = values.astype(np.float64)  # a copy, which is changed in place: blocks are large
        missing = ~np.isfinite(values)
        count = len(values) - missing.sum(0)
        np.copyto(values, 0, where=missing)
        mean = values.sum(0) / np.maximum(count, 1)
        values -= mean
        np.copyto(values, 0, where=missing)
        values *= values
        return cls(count, mean, values.sum(0))

    def __add__(self, other: Moments) -> Moments:
        count = self.count + other.count
        delta = other.mean - self.mean
        share = other.count / np.maximum(count, 1)
        return Moments(count, self.mean + delta * share, self.m2 + other.m2 + delta**2 * self.count * share)

    @property
    def std(self) -> np.ndarray:
        """The standard deviation of the population, float64 [K]."""
        return np.sqrt(self.m2 / np.maximum(self.count, 1))
