"""Metrics that the data do not define: an AUC of one class, or anything over no examples."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from tfrs_dlrm.metrics.names import title


def defined(metrics: Mapping[str, float]) -> dict[str, float]:
    """Returns the metrics without those that are nan, which the data do not define."""
    return {name: value for name, value in metrics.items() if not math.isnan(value)}


def why_undefined(
    metrics: Mapping[str, float], labels: NDArray[np.floating], weights: NDArray[np.floating] | None
) -> str:
    """Says which metrics the data do not define, and why; empty if all are defined.

    Args:
      metrics: of the labels; nan is undefined.
      labels: the finite labels, [N].
      weights: [N]; None is 1 for all.
    """
    missing = [title(name) for name, value in metrics.items() if math.isnan(value)]
    if not missing:
        return ""
    known = labels if weights is None else labels[weights > 0]
    if not len(labels):
        why = "no example has this label"
    elif not len(known):
        why = f"the weights of all {len(labels):,} examples are 0"
    elif known.min() == known.max():
        why = f"all {len(known):,} labels are {known[0]:g}"
    else:
        why = "the examples do not define them"
    return f"left out, because {why}: {', '.join(missing)}"
