"""What is told of many measurements."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np


def all_seconds(result: dict[str, Any]) -> list[float]:
    """Of every step of every round."""
    return list(itertools.chain.from_iterable(result["seconds"]))


def median(result: dict[str, Any] | None) -> float | None:
    """Seconds of a step; None where the worker was lost before it could tell."""
    return float(np.median(all_seconds(result))) if result and result["seconds"] else None


def spread(result: dict[str, Any]) -> tuple[float, float]:
    """The seconds that 10% and 90% of the steps stay below."""
    low, high = np.percentile(all_seconds(result), [10, 90])
    return float(low), float(high)


def ratio(numerator: float | None, denominator: float | None) -> float | None:
    return None if numerator is None or denominator is None else numerator / denominator


def largest_difference(losses: list[float], reference: list[float]) -> float:
    """The largest relative one of equally many losses."""
    return float(np.max(np.abs(np.array(losses) / np.array(reference) - 1)))
