"""Shows evaluations as a text table."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from tfrs_dlrm.messages.aligned import aligned


def table(columns: Mapping[str, Mapping[str, float]], exponents: bool = True) -> str:
    """Lines up evaluations side by side: a row per metric, in order of first mention, and a column per evaluation.

                  this model   planted
        examples        1000      1000
        auc         0.801234  0.812345

    A metric that an evaluation lacks, or does not define, is `-`. No newline at the end.

    Args:
      columns: the metrics of each evaluation.
      exponents: whether numbers so small that six decimals say little are shown with one.
    """

    def cell(value: float) -> str:
        if math.isnan(value):
            return "-"
        return _number(value) if exponents or abs(value) >= 1e-3 or not value else f"{value:.6f}"

    metrics = list(dict.fromkeys(name for column in columns.values() for name in column))
    rows = [["", *columns]]
    for name in metrics:
        rows.append([name, *(cell(column[name]) if name in column else "-" for column in columns.values())])
    return "\n".join(aligned(rows))


def _number(value: float) -> str:
    """Formats a metric: six decimals, none for counts, an exponent for very small or very large numbers."""
    if float(value).is_integer() and (isinstance(value, (int, np.integer)) or abs(value) >= 1000):
        return str(int(value))
    return f"{value:.3e}" if 0 < abs(value) < 1e-3 or 1e6 <= abs(value) < math.inf else f"{value:.6f}"
