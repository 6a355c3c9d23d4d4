"""Keeps lines of a log that would come again and again to one in some time."""

from __future__ import annotations

import time


class LogRate:
    """Says when a line may be logged again. Each kind of line has its own: absl counts by the place in the code.

    Args:
      seconds: between two lines.
    """

    def __init__(self, seconds: float):
        self._seconds, self._next = seconds, float("-inf")

    def due(self) -> bool:
        """Returns whether the line may be logged now, and counts it as logged."""
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + self._seconds
        return True
