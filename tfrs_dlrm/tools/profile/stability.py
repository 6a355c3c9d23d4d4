"""The population stability index of two samples of a column, and how large it may be by chance."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from tfrs_dlrm.data.preparing.profiling.column_profile import TOP, ColumnProfile, Distribution, TopValues

LIMIT = 0.2
_PARTS = 10
_LEAST_SHARE, _LEAST_ROWS = 0.01, 20
_FEWEST = 50  # rows of a sample that say something
_SIGMAS = 4.0


@dataclasses.dataclass(frozen=True)
class Stability:
    """How much a distribution has moved.

    Attributes:
      index: sum of (p - q) log(p / q) over the bins, where p and q are the shares of the two samples.
      bins: how many bins there are.
      rows: how many values each sample has.
    """

    index: float
    bins: int
    rows: tuple[int, int]

    @property
    def limit(self) -> float:
        """`LIMIT`, and what samples of these sizes differ by chance.

        For two samples of one distribution, index / (1 / n + 1 / m) is about chi-square distributed, with a degree of
        freedom less than there are bins (Yurdakul 2018, "Statistical Properties of Population Stability Index").
        """
        freedom, unit = self.bins - 1, sum(1 / n for n in self.rows)
        return LIMIT + unit * (freedom + _SIGMAS * math.sqrt(2 * freedom))


def stability(now: ColumnProfile, before: ColumnProfile) -> Stability | None:
    """Compares a column of two samples; None if they do not compare, or hold too few values.

    Missing values are left out. Times are not compared: days and weekdays of two logs differ in any case.
    """
    if now.kind in ("number", "vector") and before.kind == now.kind:
        return _of_numbers(now.distribution, before.distribution)
    if now.kind in ("category", "values") and before.kind == now.kind:
        return _of_values(now.top, before.top)
    return None


def _of_numbers(now: Distribution, before: Distribution) -> Stability | None:
    """Compares numbers in the tenths of the earlier ones; numbers below their least are a bin too."""
    sizes = sum(now.rows), sum(before.rows)
    if min(sizes) < _FEWEST:
        return None
    values, until = np.array(before.values), np.cumsum(before.rows)
    ranks = np.arange(1, _PARTS) * until[-1] / _PARTS
    edges = np.unique([np.nextafter(values[0], -np.inf), *values[np.searchsorted(until, ranks)]])
    return _compared(_in_bins(now, edges), _in_bins(before, edges), sizes)


def _in_bins(numbers: Distribution, edges: np.ndarray) -> np.ndarray:
    """Counts numbers up to each edge, and above the last."""
    return np.bincount(np.searchsorted(edges, numbers.values), numbers.rows, len(edges) + 1)


def _of_values(now: TopValues, before: TopValues) -> Stability | None:
    """Compares the values that are frequent in one of the samples; all others are one bin."""
    sizes = now.among, before.among
    if min(sizes) < _FEWEST:
        return None
    least = max(_LEAST_SHARE, _LEAST_ROWS / min(sizes))
    names = [
        v for top in (before, now) for v, rows in zip(top.values, top.rows, strict=True) if rows >= least * top.among
    ]
    names = list(dict.fromkeys(names))
    return _compared(_counts(now, names), _counts(before, names), sizes)


def _counts(top: TopValues, names: list[str]) -> np.ndarray:
    """Counts values; one that is not listed is rarer than all that are, and absent if the list is not full."""
    known, rest = dict(zip(top.values, top.rows, strict=True)), top.among - sum(top.rows)
    unlisted = min(min(top.rows) / 2, rest / max(1, len(names))) if len(known) >= TOP else 0.0
    counts = [float(known.get(name, unlisted)) for name in names]
    return np.array([*counts, max(0.0, top.among - sum(counts))])


def _compared(now: np.ndarray, before: np.ndarray, sizes: tuple[int, int]) -> Stability:
    """Half a row in each bin keeps the logarithm finite."""
    kept = (now + before) > 0
    p, q = ((counts[kept] + 0.5) / (counts[kept] + 0.5).sum() for counts in (now, before))
    return Stability(float(((p - q) * np.log(p / q)).sum()), int(kept.sum()), sizes)
