"""Schemas with other tables: compressed in one of the ways that `Table` describes, or with linear weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

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


def weights_only(schema: Schema) -> Schema:
    """With tables of dimension 1, whose rows begin at 0: a value that training never sees adds nothing."""

    def narrow(t: Table) -> Table:
        return dataclasses.replace(t, dim=1, initializer=t.initializer if t.stored_in else "zeros")

    return dataclasses.replace(schema, tables=tuple(narrow(t) for t in schema.tables))


def with_linear_weights(schema: Schema, features: Collection[str], dim: int = 0) -> Schema:
    """With one more number in each row than a vector has.

    Args:
      schema: any.
      features: whose rows these are. Those of other features become as short as they can be.
      dim: of the vectors; 0 keeps those of the schema.

    Raises:
      ValueError: another table stores such rows, in pieces of which they are no multiple any more.
    """
    used = {f.table for f in schema.categorical if f.name in features}
    unused = {f.table for f in schema.categorical} - used

    def fitted(t: Table) -> Table:
        piece = schema.table(t.stored_in).dim if t.stored_in else 1
        row = (dim or t.dim) + 1
        if t.name in used and row % piece:
            raise ValueError(
                f"table {t.name!r}: with a linear weight, a vector of {row - 1} takes {row} numbers, no multiple of the"
                f" dim={piece} of {t.stored_in!r}, which stores them; make the vector one shorter"
            )
        return dataclasses.replace(t, dim=row if t.name in used else piece if t.name in unused else t.dim)

    return dataclasses.replace(schema, tables=tuple(fitted(t) for t in schema.tables))
