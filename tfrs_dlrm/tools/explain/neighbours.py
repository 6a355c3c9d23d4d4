"""The rows of a table that are most like one of them."""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np

from tfrs_dlrm.data.encoding.row_names import encoding_of, find_row
from tfrs_dlrm.models.ranking import RankingModel
from tfrs_dlrm.schema import Schema
from tfrs_dlrm.schema.suggestions import did_you_mean
from tfrs_dlrm.tools.explain.vectors import all_vectors, vectors


@dataclasses.dataclass(frozen=True)
class Nearest:
    """The rows of a table that are most like one of them, which is not among them, the nearest first.

    Attributes:
      rows: which.
      measure: what is told of them: the `cosine` of their vectors to that of the one or, where vectors are single
        numbers, the `number`.
      values: these.
      number: that of the one; None where vectors have several.
    """

    rows: list[int]
    measure: Literal["cosine", "number"]
    values: list[float]
    number: float | None = None


def find(schema: Schema, directory: str, query: str) -> tuple[str, int]:
    """The table and the row that TABLE:VALUE means.

    Args:
      schema: of the model.
      directory: has the vocabularies.
      query: what was asked for.

    Raises:
      ValueError: it is not of that form; there is no such table or value, or the rows of the table have no vectors of
        their own to compare.
    """
    table, colon, value = query.partition(":")
    if not colon or not table:
        raise ValueError(f"neighbours {query!r}: TABLE:VALUE is needed, as in site:example.com")
    known = {t.name: t for t in schema.tables}
    if table not in known:
        home = next((f.table for f in schema.categorical if f.name == table), None)
        hint = f"feature {table!r} looks up table {home!r}" if home else did_you_mean(table, known)
        raise ValueError(f"no table {table!r}; {hint or 'there are ' + ', '.join(known)}")
    if encoding_of(schema, table) is None:
        raise ValueError(f"table {table!r} only stores the rows of other tables; it has no values")
    if known[table].stored_in or known[table].remainders is not None:
        raise ValueError(
            f"table {table!r} is compressed: its values share rows, so that neighbours say more of the compression than"
            " of the values; name a table without remainders and stored_in"
        )
    return table, find_row(schema, directory, table, value)


def nearest(model: RankingModel, table: str, row: int, count: int) -> Nearest:
    """The rows of a table with the largest cosine to one of them, without rows that are 0; ties by row.

    Where vectors are single numbers, whose cosines are 1 or -1, the rows with the nearest numbers. These are the
    weights of a logistic regression.

    Args:
      model: the trained model.
      table: the name of the table.
      row: of that.
      count: how many; fewer where the table has no more.

    Raises:
      ValueError: the vector of the row is 0.
    """
    query = vectors(model, table, row, row + 1)[0]
    single = len(query) == 1
    if not single and not query.any():
        raise ValueError(
            f"table {table!r}: the vector of row {row} is 0, which has no direction; was it never trained?"
        )
    rows, found = np.empty(0, np.int64), np.empty(0)
    for first, values in all_vectors(model, table):
        of_slice = values[:, 0] if single else _cosines(values, query)
        kept = np.flatnonzero(np.isfinite(of_slice))
        kept = kept[kept + first != row]
        rows, found = np.append(rows, kept + first), np.append(found, of_slice[kept])
        best = np.lexsort((rows, np.abs(found - query[0]) if single else -found))[:count]
        rows, found = rows[best], found[best]
    if single:
        return Nearest(rows.tolist(), "number", found.tolist(), float(query[0]))
    return Nearest(rows.tolist(), "cosine", found.tolist())


def _cosines(values: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Of each of the vectors to one; nan where it is 0."""
    lengths = np.linalg.norm(values, axis=1)
    out = np.full(len(values), np.nan)
    return np.divide(values @ query, lengths * np.linalg.norm(query), out=out, where=lengths > 0)
