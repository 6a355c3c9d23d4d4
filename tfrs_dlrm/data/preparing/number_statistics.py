"""The statistics of the numbers of the training rows, from their moments and sketches."""

from __future__ import annotations

from collections.abc import Mapping

from tfrs_dlrm.data.encoding.buckets import log2_edges, merged_edges
from tfrs_dlrm.data.encoding.statistics import (
    DenseStatistics,
    Moments,
    Statistics,
    bucket_features,
    day_features,
    measured_numbers,
    needs_statistics,
    needs_transformed,
)
from tfrs_dlrm.data.preparing.blocks import count_moments
from tfrs_dlrm.data.preparing.number_sketch import NumberSketch
from tfrs_dlrm.schema import CategoricalFeature, DenseFeature, Schema


def measure(schema: Schema, moments: Moments, sketches: Mapping[str, NumberSketch]) -> Statistics:
    """Returns the statistics of a schema.

    Args:
      schema: the schema.
      moments: of all training rows, see `count_moments`.
      sketches: by input of `sketched_inputs`, of all training rows; days count from 1970.

    Raises:
      ValueError: no training row has a value that a statistic needs.
    """
    origins = {f.name: _origin(f, sketches) for f in day_features(schema)}
    dense: dict[str, DenseStatistics] = {}
    transformed: dict[str, DenseStatistics] = {}
    measured = measured_numbers(schema)
    logarithms = count_moments(schema) - sum(map(needs_transformed, measured.values()))
    for i, (name, f) in enumerate(measured.items()):
        given = f.time.origin_days if f.time is not None else None
        # Where the origin was not known, days count from 1970.
        shift = origins[f.name] if f.time is not None and given is None else 0
        if moments.count[i] > 0:
            dense[name] = _statistics(moments, i, shift)
        elif needs_statistics(f) or needs_transformed(f):
            raise _no_value(f)
        if needs_transformed(f):
            transformed[name] = _statistics(moments, logarithms + len(transformed), 0)
    edges = {f.name: _edges(f, sketches, origins.get(f.name, 0)) for f in bucket_features(schema)}
    return Statistics(dense, transformed, edges, origins)


def _statistics(moments: Moments, i: int, shift: int) -> DenseStatistics:
    return DenseStatistics(int(moments.count[i]), float(moments.mean[i]) - shift, float(moments.std[i]))


def _origin(f: DenseFeature | CategoricalFeature, sketches: Mapping[str, NumberSketch]) -> int:
    given = f.time.origin_days if f.time is not None else None
    return int(_values(f, sketches).values[0]) if given is None else given


def _edges(f: CategoricalFeature, sketches: Mapping[str, NumberSketch], origin: int) -> tuple[float, ...]:
    if f.edges:
        return tuple(merged_edges(f.edges))
    found = _values(f, sketches)
    if isinstance(f.buckets, str) or f.buckets is None:
        return tuple(log2_edges(float(found.values[-1]) - origin))
    return tuple(merged_edges([x - origin for x in found.edges(f.buckets)]))


def _values(f: DenseFeature | CategoricalFeature, sketches: Mapping[str, NumberSketch]) -> NumberSketch:
    found = sketches[f.input_name]
    if not len(found.values):
        raise _no_value(f)
    return found


def _no_value(f: DenseFeature | CategoricalFeature) -> ValueError:
    return ValueError(f"feature {f.name!r}: no training row has a value in column {f.column!r}")
