"""How far the answers of two models may be apart that should be one."""

from __future__ import annotations

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """A largest difference.

    Probabilities end at 1, but predicted numbers have no bounds, and those for values that were never seen may be huge,
    while float32 has seven digits.

    Attributes:
      absolute: it may be this, where the expected number is
      usual: at most this; above, in proportion to it.
    """

    absolute: float
    usual: float = 1.0

    def met(self, found: np.ndarray, expected: np.ndarray) -> np.ndarray:
        """Where two arrays of one shape are close enough, bool; NaN never is."""
        found, expected = found.astype(np.float64), expected.astype(np.float64)
        with np.errstate(invalid="ignore"):
            return np.abs(found - expected) <= self.absolute * np.maximum(1.0, np.abs(expected) / self.usual)

    def __str__(self) -> str:
        return f"{self.absolute:g}" + (f", in proportion above {self.usual:g}" if self.usual != 1.0 else "")
