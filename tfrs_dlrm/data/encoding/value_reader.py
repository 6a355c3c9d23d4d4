"""Reads what needs no vocabulary: numbers, times and their parts, buckets, and the texts of crosses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import tensorflow as tf

from tfrs_dlrm.data.encoding.buckets import bucket_rows
from tfrs_dlrm.data.encoding.crosses import crossed
from tfrs_dlrm.data.encoding.time_parts import Minutes, days_since, part_rows
from tfrs_dlrm.data.encoding.tokenizer import Tokenizer
from tfrs_dlrm.schema import CategoricalFeature, DenseFeature, FeatureInput, Schema

# The values of an input: a tensor as in `Encoder.signature`, or `Minutes` of times that were read.
Value: TypeAlias = Any


class ValueReader:
    """Reads the inputs of a schema, and transforms numbers and times.

    Args:
      schema: has the features and members.
      tokenizer: of the schema.
      edges: by feature with encoding `buckets`, its edges.
      origins: by feature that counts days, its origin in days since 1970.
    """

    def __init__(
        self,
        schema: Schema,
        tokenizer: Tokenizer,
        edges: Mapping[str, Sequence[float]],
        origins: Mapping[str, int],
    ):
        self._schema, self._tokenizer, self._edges, self._origins = schema, tokenizer, edges, origins

    def read(self, given: FeatureInput, raw: tf.Tensor) -> Value:
        """Reads the times of an input; other values stay as they are."""
        return raw if given.time is None else self._tokenizer.minutes(given.time, raw)

    def number(self, feature: DenseFeature | CategoricalFeature, values: Value) -> tf.Tensor:
        """Returns the numbers that a feature transforms, float32 [N], NaN where missing: of a time, its days."""
        return days_since(values, self._origins[feature.name]) if isinstance(values, Minutes) else values

    def part_rows(self, feature: CategoricalFeature, values: Value) -> tf.Tensor:
        """Returns the rows of buckets or of a part of times, int32 [N]; a missing value has row 0."""
        if feature.encoding == "buckets":
            return bucket_rows(self.number(feature, values), self._edges[feature.name])
        if feature.time is None or not isinstance(values, Minutes):
            raise TypeError(f"feature {feature.name!r}: a part of times that were read is needed")
        return part_rows(values, feature.time.parts[0])

    def crossed(self, feature: CategoricalFeature, values: Mapping[str, Value]) -> tf.Tensor:
        """Returns the texts of a cross, string [N], of the values of its members by input."""
        members = (self._schema.value_feature(name) for name in feature.cross)
        return crossed([self.member_text(member, values[member.input_name]) for member in members])

    def member_text(self, member: CategoricalFeature, values: Value) -> tf.Tensor:
        """Returns the texts of a member of a cross, string [N]: of values as they are counted, otherwise of rows."""
        if member.encoding in ("buckets", "time"):
            return tf.strings.as_string(self.part_rows(member, values))
        return self._tokenizer.text(values)
