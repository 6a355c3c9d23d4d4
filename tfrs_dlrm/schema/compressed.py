"""Schemas whose larger tables take less memory than rows x dim, in one of the two ways that `Table` describes."""

from __future__ import annotations

import dataclasses

from tfrs_dlrm.schema.features import Table
from tfrs_dlrm.schema.schema import Schema

SHARED = "shared_rows"


def with_remainders(schema: Schema, remainders: int, above: int) -> Schema:
    """With the tables of more than `above` rows stored as quotients and `remainders` remainders.

    Raises:
      ValueError: a table that is to be compressed has no rows yet, or is compressed otherwise.
    """
    large = _large(schema, above)

    def stored(t: Table) -> Table:
        return dataclasses.replace(t, remainders=remainders) if t.name in large else t

    return dataclasses.replace(schema, tables=tuple(stored(t) for t in schema.tables))


def with_shared_rows(schema: Schema, rows: int, above: int) -> Schema:
    """With the rows of all tables of more than `above` rows stored in one table of `rows` rows, by hashing.

    Raises:
      ValueError: a table that is to be compressed has no rows yet, or is compressed otherwise, or the dimensions of
        such tables differ.
    """
    large = _large(schema, above)
    if not large:
        return schema
    dims = {t.dim for t in schema.tables if t.name in large}
    if len(dims) > 1:
        raise ValueError(f"tables of dimensions {sorted(dims)} cannot share rows; give them one dimension")
    plain = {"initializer": "uniform", "scale": None, "dtype": "float32", "stored_in": SHARED}
    (first, *_) = (t for t in schema.tables if t.name in large)
    home = Table(SHARED, dims.pop(), rows, initializer=first.initializer, scale=first.scale, dtype=first.dtype)
    tables = tuple(dataclasses.replace(t, **plain) if t.name in large else t for t in schema.tables)  # type: ignore[arg-type]
    return dataclasses.replace(schema, tables=(*tables, home))


def _large(schema: Schema, above: int) -> set[str]:
    used = {f.table for f in schema.categorical}
    missing = [t.name for t in schema.tables if t.name in used and t.vocabulary_size is None]
    if missing:
        raise ValueError(f"tables {missing} have no vocabulary_size yet; take the schema that `prepare` wrote")
    large = {t.name for t in schema.tables if t.name in used and (t.vocabulary_size or 0) > above}
    for t in schema.tables:
        if t.name in large and (t.remainders is not None or t.stored_in):
            raise ValueError(f"table {t.name!r} is compressed in the schema already; choose one way")
    return large
