"""How fast the counts of values decay along a chain of preparations."""

from __future__ import annotations

import dataclasses
import datetime
import math
import re


@dataclasses.dataclass(frozen=True)
class HalfLife:
    """The time in which a count halves.

    Attributes:
      length: how many days or preparations; infinite if counts do not decay.
      in_days: whether it is days.
    """

    length: float = math.inf
    in_days: bool = False

    @classmethod
    def parse(cls, text: str | float | None) -> HalfLife:
        """Reads `7d` (days), `3` (preparations), or None (no decay).

        Raises:
          ValueError: the text is neither, or not above 0.
        """
        if text is None or text == "":
            return cls()
        found = re.fullmatch(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(d?)", str(text).strip())
        if not found or not float(found[1]) > 0:
            raise ValueError(f"half_life={text!r}: give days, such as 7d, or a number of preparations, such as 3")
        return cls(float(found[1]), bool(found[2]))

    def factor(self, before: str, now: str) -> float:
        """Returns the factor of the counts of the preparation before.

        Args:
          before: the day of the base, `YYYY-MM-DD`; empty if it is not known.
          now: the day of this preparation.

        Raises:
          ValueError: the half-life is in days, and a day is not known.
        """
        if math.isinf(self.length):
            return 1.0
        if not self.in_days:
            return float(0.5 ** (1 / self.length))
        if not before or not now:
            which = "this preparation has no day; give --day=YYYY-MM-DD"
            if now:
                which = "the base was prepared without a day; give a number of preparations instead, such as 7"
            raise ValueError(f"half_life={self.length:g}d is in days, and {which}")
        passed = (datetime.date.fromisoformat(now) - datetime.date.fromisoformat(before)).days
        return float(0.5 ** (passed / self.length))


def check_day(day: str | None) -> str:
    """Returns a day as `YYYY-MM-DD`; empty for None.

    Raises:
      ValueError: it is no date.
    """
    if not day:
        return ""
    try:
        return datetime.date.fromisoformat(day).isoformat()
    except ValueError as e:
        raise ValueError(f"day={day!r} is no date; give YYYY-MM-DD, such as 2026-11-30") from e
