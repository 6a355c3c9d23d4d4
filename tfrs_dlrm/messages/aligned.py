"""Tables in text."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence


def aligned(rows: Sequence[Sequence[str]], left: Collection[int] = (0,)) -> list[str]:
    """Returns a line for each row, with aligned columns.

    Args:
      rows: the cells; a row may lack the last ones.
      left: the indices of the columns that are aligned to the left; all others to the right.
    """
    widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(max(map(len, rows)))]

    def cells(row: Sequence[str]) -> Iterator[str]:
        for i, cell in enumerate(row):
            yield cell.ljust(widths[i]) if i in left else cell.rjust(widths[i])

    return ["  ".join(cells(row)).rstrip() for row in rows]
