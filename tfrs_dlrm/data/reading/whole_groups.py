"""Batches of whole groups: the order of the rows of a window, and batches that no group is cut by.

The rows of a window are gathered by group. A batch takes groups until the next does not fit, and is filled up with
copies of its last row that weigh 0. So batches have a fixed size, as TPUs need it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from absl import logging

from tfrs_dlrm.data.reading.columns import Columns

_WEIGHTS = 1  # the matrix of the weights, see `matrix_names`


def order_of_groups(ids: np.ndarray, permutation: Callable[[int], np.ndarray]) -> np.ndarray:
    """Returns the order, int64 [N], that puts groups in a random order and gathers the rows of each, in their order.

    Args:
      ids: int64 [N].
      permutation: of so many numbers.
    """
    groups, numbers, counts = np.unique(ids, return_inverse=True, return_counts=True)
    alone = np.count_nonzero(counts == 1)
    if 2 * alone > len(ids):
        logging.log_first_n(
            logging.WARNING,
            "%d of %d rows that are shuffled together are the only ones of their group, which teach nothing about the"
            " order of its rows: sort the log by group, raise shuffle_rows, or choose another group",
            1,
            *(alone, len(ids)),
        )
    places = np.empty(len(groups), np.int64)
    places[permutation(len(groups))] = np.arange(len(groups))
    return np.argsort(places[numbers], kind="stable")


def batches_of_groups(portions: Iterator[Columns], groups: int, size: int, parts: int = 1) -> Iterator[Columns]:
    """Yields batches of `size` rows, of which no group is cut.

    A group of more rows is cut, with a warning. R rows make at least R / size batches, rounded down.

    Args:
      portions: rows in order, of which those of a group are neighbours.
      groups: which of the matrices has the groups.
      size: a multiple of `parts`.
      parts: into how many parts of equal size batches are split for replicas; each has whole groups.
    """
    found: list[Columns] = []
    for part in _cut(portions, groups, size // parts):
        found.append(_filled(part, size // parts))
        if len(found) == parts:
            yield Columns.join(found)
            found = []


def _cut(portions: Iterator[Columns], groups: int, size: int) -> Iterator[Columns]:
    """Yields rows of whole groups, at most `size` at a time."""
    rest: Columns | None = None
    for portion in portions:
        rows = portion if rest is None else Columns.join([rest, portion])
        ids, begin = rows.matrices[groups], 0
        ends = np.append(np.flatnonzero(ids[1:] != ids[:-1]) + 1, len(ids))
        while len(rows) - begin > size:
            fitting = int(np.searchsorted(ends, begin + size, "right"))
            end = int(ends[fitting - 1]) if fitting else 0
            if end <= begin:
                end = begin + size
                logging.log_first_n(
                    logging.WARNING,
                    "a group has more than the %d rows of a batch of a replica, and is cut: raise the batch size",
                    1,
                    size,
                )
            yield rows.slice(begin, end)
            begin = end
        rest = rows.slice(begin, len(rows))
    if rest is not None and len(rest):
        yield rest


def _filled(rows: Columns, size: int) -> Columns:
    """Returns the rows, followed by copies of the last one that weigh 0: a copy looks up no further row of a table."""
    count = len(rows)
    if count == size:
        return rows
    filled = rows.take(np.minimum(np.arange(size), count - 1))
    filled.matrices[_WEIGHTS][count:] = 0
    return filled
