"""The rows of a table whose vectors point in the most similar direction."""

from __future__ import annotations

import numpy as np

from tfrs_dlrm.data.values import encoding_of, find_row
from tfrs_dlrm.models.ranking import RankingModel
from tfrs_dlrm.schema import Schema
from tfrs_dlrm.suggestions import did_you_mean
from tfrs_dlrm.understanding.rows import all_vectors, vectors


def find(schema: Schema, directory: str, query: str) -> tuple[str, int]:
    """The table and the row that TABLE:VALUE means.

    Args:
      schema: of the run.
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


def nearest(model: RankingModel, table: str, row: int, count: int) -> list[tuple[int, float]]:
    """The rows of a table with the largest cosine to one of them, without it and without rows that are 0.

    Args:
      model: the trained model.
      table: the name of the table.
      row: of that.
      count: how many; fewer where the table has no more.

    Returns:
      Rows and cosines, the largest first, ties by row.

    Raises:
      ValueError: the vector of the row is 0, or vectors of this table are single numbers.
    """
    if model.schema.table(table).dim == 1:
        raise ValueError(f"table {table!r}: its vectors are single numbers in this model, whose cosines are 1 or -1")
    query = vectors(model, table, row, row + 1)[0]
    length = np.linalg.norm(query)
    if length == 0:
        raise ValueError(
            f"table {table!r}: the vector of row {row} is 0, which has no direction; was it never trained?"
        )
    rows, cosines = np.empty(0, np.int64), np.empty(0)
    for first, values in all_vectors(model, table):
        lengths = np.linalg.norm(values, axis=1)
        kept = np.flatnonzero(lengths > 0)
        kept = kept[kept + first != row]
        rows = np.append(rows, kept + first)
        cosines = np.append(cosines, values[kept] @ query / (lengths[kept] * length))
        best = np.lexsort((rows, -cosines))[:count]
        rows, cosines = rows[best], cosines[best]
    return list(zip(rows.tolist(), cosines.tolist(), strict=True))
