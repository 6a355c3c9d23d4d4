"""The schemas along a chain of preparations, which are equal but for what may grow."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from tfrs_dlrm.schema import CategoricalFeature, Schema


def as_before(grown: Schema, before: Schema) -> Schema:
    """Returns a schema with what may differ as an earlier one has it: sizes of counted tables, `max_size`, text layout.

    If both belong to one chain, the result equals `before`. Which values are missing, and whether blanks are stripped,
    may not differ.
    """
    counted = {f.table for f in before.categorical if f.encoding in ("vocabulary", "buckets")}
    sizes = {t.name: t.vocabulary_size for t in before.tables if t.name in counted and t.vocabulary_size}
    text = dataclasses.replace(before.text, missing=grown.text.missing, strip=grown.text.strip)
    alike = dataclasses.replace(grown.with_vocabulary_sizes(sizes), text=text)
    return with_max_sizes(alike, before.categorical)


def with_max_sizes(schema: Schema, features: Iterable[CategoricalFeature]) -> Schema:
    """Returns a schema with the `max_size` of other features of the same names."""
    sizes = {f.name: f.max_size for f in features}
    changed = (dataclasses.replace(f, max_size=sizes.get(f.name, f.max_size)) for f in schema.categorical)
    return dataclasses.replace(schema, categorical=tuple(changed))
