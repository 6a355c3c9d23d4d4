"""Checks what stands in for values that requests lack."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping

from tfrs_dlrm.schema.features import CategoricalFeature, DenseFeature
from tfrs_dlrm.schema.inputs import FeatureInput

_WORDS = {"float32": "a finite number", "int64": "a whole number", "string": "a text"}


def check_serving_values(
    features: Iterable[DenseFeature | CategoricalFeature], inputs: Collection[FeatureInput]
) -> None:
    """Checks `training_only` and `serving_value` of all features, and that features of one column agree."""
    by_input = {given.name: given for given in inputs}
    for f in features:
        if f.training_only:
            _check(f, by_input)
        elif f.serving_value is not None:
            raise ValueError(
                f"feature {f.name!r}: serving_value={f.serving_value!r} belongs to training_only=true; add it, or drop"
                " the value"
            )
    _check_columns(inputs)


def _check(f: DenseFeature | CategoricalFeature, by_input: Mapping[str, FeatureInput]) -> None:
    where, value = f"feature {f.name!r}", f.serving_value
    if isinstance(f, CategoricalFeature) and (f.multi_valued or f.cross):
        what = "a cross; let its members be training_only" if f.cross else "multi-valued"
        raise ValueError(f"{where}: training_only needs one value, and it is {what}")
    if isinstance(f, DenseFeature) and f.size is not None:
        raise ValueError(f"{where}: training_only needs one value, and it is a vector of {f.size}; drop training_only")
    given = by_input[f.input_name]
    if value is None:
        if given.needed or (isinstance(f, CategoricalFeature) and f.out_of_range == "error"):
            refusing = "fill_value=null" if given.needed else "out_of_range='error'"
            raise ValueError(f"{where}: training_only needs a serving_value, because {refusing} refuses missing values")
        return
    if not _fits(value, given.dtype):
        raise ValueError(
            f"{where}: serving_value={value!r}; {_WORDS[given.dtype]} is needed, or null for a missing value"
        )


def _fits(value: float | str, dtype: str) -> bool:
    if dtype == "string":
        return isinstance(value, str)
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    if dtype == "int64":
        return math.isfinite(value) and float(value).is_integer() and abs(value) < 2**63
    return math.isfinite(value)


def _check_columns(inputs: Collection[FeatureInput]) -> None:
    """Checks that no other input reads a column that requests lack."""
    only = {given.column: given for given in inputs if given.training_only}
    for given in inputs:
        if given.column in only and not given.training_only:
            lacking = only[given.column].features[0]
            raise ValueError(
                f"feature {given.features[0]!r} reads column {given.column!r}, which requests lack, because feature"
                f" {lacking!r} is training_only; set training_only of both, or of neither"
            )
