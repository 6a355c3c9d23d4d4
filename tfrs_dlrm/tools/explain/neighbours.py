"""The nearest rows of a table to one of its rows."""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np

from tfrs_dlrm.data.encoding.row_names import encoding_of, find_row
from tfrs_dlrm.messages import did_you_mean
from tfrs_dlrm.models.ranking import RankingModel
from tfrs_dlrm.schema import Schema
from tfrs_dlrm.tools.explain.table_usage import all_row_vectors, row_vectors


@dataclasses.dataclass(frozen=True)
class NearestRows:
    """The nearest rows of a table to one of its rows, which is left out, the nearest first.

    Attributes:
      rows: the rows.
      measure: `cosine` to the vector of the row or, if vectors are single numbers, `number`.
      values: the measure of each of `rows`.
      number: the number of the row; None if vectors have several.
    """

    rows: list[int]
    measure: Literal["cosine", "number"]
    values: list[float]
    number: float | None = None


def find_row_of(schema: Schema, directory: str, query: str) -> tuple[str, int]:
    """Returns the table and the row of a query TABLE:VALUE.

    Args:
      schema: the schema of the model.
      directory: the directory of its vocabularies.
      query: TABLE:VALUE.

    Raises:
      ValueError: the query has another form, the table or the value does not exist, or the table is compressed.
    """
    table, colon, value = query.partition(":")
    if not colon or not table:
        raise ValueError(f"neighbours {query!r}: TABLE:VALUE is needed, as in site:example.com")
    known = {t.name: t for t in schema.tables}
    if table not in known:
        home = next((f.table for f in schema.categorical if f.name == table), None)
        hint = f"feature {table!r} looks up table {home!r}" if home else did_you_mean(table, known)
        raise ValueError(f"no table {table!r}; {hint or 'name one of ' + ', '.join(known)}")
    if encoding_of(schema, table) is None:
        raise ValueError(f"table {table!r} only stores the rows of other tables; name a table that a feature looks up")
    if known[table].stored_in or known[table].remainders is not None:
        raise ValueError(
            f"table {table!r} is compressed: its values share rows, so neighbours show the compression, not the values;"
            " name a table without remainders and stored_in"
        )
    return table, find_row(schema, directory, table, value)


def nearest_rows(model: RankingModel, table: str, row: int, count: int) -> NearestRows:
    """Returns the rows of a table with the largest cosine to a row, without rows that are 0; ties by row.

    If vectors are single numbers, as the weights of a logistic regression, returns the rows with the nearest numbers.

    Args:
      model: the trained model.
      table: the name of the table.
      row: the row.
      count: how many rows to return; fewer if the table has fewer.

    Raises:
      ValueError: the vector of the row is 0.
    """
    query = row_vectors(model, table, row, row + 1)[0]
    single = len(query) == 1
    if not single and not query.any():
        raise ValueError(f"table {table!r}: the vector of row {row} is 0, which has no direction; name a trained value")
    rows, found = np.empty(0, np.int64), np.empty(0)
    for first, values in all_row_vectors(model, table):
        of_slice = values[:, 0] if single else _cosines(values, query)
        kept = np.flatnonzero(np.isfinite(of_slice))
        kept = kept[kept + first != row]
        rows, found = np.append(rows, kept + first), np.append(found, of_slice[kept])
        best = np.lexsort((rows, np.abs(found - query[0]) if single else -found))[:count]
        rows, found = rows[best], found[best]
    if single:
        return NearestRows(rows.tolist(), "number", found.tolist(), float(query[0]))
    return NearestRows(rows.tolist(), "cosine", found.tolist())


def _cosines(values: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Returns the cosine of each vector to `query`; nan for vectors of 0."""
    lengths = np.linalg.norm(values, axis=1)
    out = np.full(len(values), np.nan)
    return np.divide(values @ query, lengths * np.linalg.norm(query), out=out, where=lengths > 0)
