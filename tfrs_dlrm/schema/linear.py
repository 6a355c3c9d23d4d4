"""Schemas of models that have a linear weight for each value."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

from tfrs_dlrm.schema.features import Table
from tfrs_dlrm.schema.schema import Schema


def weights_only(schema: Schema) -> Schema:
    """With tables of dimension 1, whose rows begin at 0: a value that training never sees adds nothing."""

    def narrow(t: Table) -> Table:
        return dataclasses.replace(t, dim=1, initializer=t.initializer if t.stored_in else "zeros")

    return dataclasses.replace(schema, tables=tuple(narrow(t) for t in schema.tables))


def with_linear_weights(schema: Schema, features: Collection[str]) -> Schema:
    """With one more number in each row that the named features look up; rows of other features have 1 number.

    Raises:
      ValueError: another table stores such rows, in pieces of which they are no multiple any more.
    """
    used = {f.table for f in schema.categorical if f.name in features}
    unused = {f.table for f in schema.categorical} - used

    def fitted(t: Table) -> Table:
        piece = schema.table(t.stored_in).dim if t.stored_in else 1
        if t.name in used and (t.dim + 1) % piece:
            raise ValueError(
                f"table {t.name!r}: with a linear weight, a vector of {t.dim} takes {t.dim + 1} numbers, no multiple of"
                f" the dim={piece} of {t.stored_in!r}, which stores them; make the vector one shorter"
            )
        return dataclasses.replace(t, dim=t.dim + 1 if t.name in used else piece if t.name in unused else t.dim)

    return dataclasses.replace(schema, tables=tuple(fitted(t) for t in schema.tables))
