"""Derives schemas with other tables: compressed in a way that `Table` describes, or of linear weights alone."""

from __future__ import annotations

import dataclasses

from tfrs_dlrm.schema.features import Table
from tfrs_dlrm.schema.schema import Schema

SHARED = "shared_rows"


def with_remainders(schema: Schema, remainders: int, above: int) -> Schema:
    """Returns the schema with tables of more than `above` rows stored as quotients and `remainders` remainders.

    Raises:
      ValueError: a large table has no `vocabulary_size` yet, or is compressed already.
    """
    large = _large(schema, above)

    def stored(t: Table) -> Table:
        return dataclasses.replace(t, remainders=remainders) if t.name in large else t

    return dataclasses.replace(schema, tables=tuple(stored(t) for t in schema.tables))


def with_shared_rows(schema: Schema, rows: int, above: int) -> Schema:
    """Returns the schema with tables of more than `above` rows stored in one table of `rows` rows, by hashing.

    Raises:
      ValueError: a large table has no `vocabulary_size` yet, or is compressed already, or the large tables differ in
        dimension.
    """
    large = _large(schema, above)
    if not large:
        return schema
    dims = {t.dim for t in schema.tables if t.name in large}
    if len(dims) > 1:
        raise ValueError(f"tables of dimensions {sorted(dims)} cannot share rows; give them the same dimension")
    plain = {"initializer": "uniform", "scale": None, "dtype": "float32", "stored_in": SHARED}
    (first, *_) = (t for t in schema.tables if t.name in large)
    home = Table(SHARED, dims.pop(), rows, initializer=first.initializer, scale=first.scale, dtype=first.dtype)
    tables = tuple(dataclasses.replace(t, **plain) if t.name in large else t for t in schema.tables)  # type: ignore[arg-type]
    return dataclasses.replace(schema, tables=(*tables, home))


def _large(schema: Schema, above: int) -> set[str]:
    used = {f.table for f in schema.categorical}
    missing = [t.name for t in schema.tables if t.name in used and t.vocabulary_size is None]
    if missing:
        raise ValueError(
            f"tables {missing} have no vocabulary_size yet; take the schema that `prepare` wrote, or"
            " `td.fit_encoder(...).schema`"
        )
    large = {t.name for t in schema.tables if t.name in used and (t.vocabulary_size or 0) > above}
    for t in schema.tables:
        if t.name in large and (t.remainders is not None or t.stored_in):
            raise ValueError(f"table {t.name!r} is compressed in the schema already; choose one way")
    return large


def weights_only(schema: Schema) -> Schema:
    """Returns the schema with tables of dimension 1, initialized with 0: unseen values contribute nothing."""

    def narrow(t: Table) -> Table:
        return dataclasses.replace(t, dim=1, initializer=t.initializer if t.stored_in else "zeros")

    return dataclasses.replace(schema, tables=tuple(narrow(t) for t in schema.tables))
