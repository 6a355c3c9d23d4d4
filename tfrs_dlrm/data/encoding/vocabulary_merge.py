"""The rows of new values in a vocabulary whose values keep their rows."""

from __future__ import annotations

import numpy as np


def assign_rows(known: np.ndarray, new: np.ndarray, max_size: int | None) -> np.ndarray:
    """Returns the rows of the first new values, int64 [A]; the others get none.

    New values get the rows behind the known ones while the vocabulary has fewer than `max_size` values. In a full one,
    the known value with the lowest count gives its row to the next new value, if the count of that is higher. If counts
    are equal, the value in the last row gives up first. All other values keep their rows.

    Args:
      known: float64 [N], the counts of the known values: entry k is the value of row k + 1.
      new: float64 [M], the counts of new values, falling.
      max_size: how many values the vocabulary may have; None is any number.
    """
    room = len(new) if max_size is None else max(0, max_size - len(known))
    behind = len(known) + 1 + np.arange(min(room, len(new)), dtype=np.int64)
    waiting = new[len(behind) :]
    weakest = len(known) - 1 - np.argsort(known[::-1], kind="stable")
    pairs = min(len(waiting), len(weakest))
    wins = waiting[:pairs] > known[weakest[:pairs]]  # true for the first ones only: one falls, the other rises
    return np.concatenate([behind, weakest[: int(np.count_nonzero(wins))] + 1])
