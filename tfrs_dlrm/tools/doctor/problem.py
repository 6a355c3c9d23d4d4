"""What is wrong and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Problem(NamedTuple):
    """Something that keeps a strategy from running here; both are sentences without a full stop."""

    what: str
    remedy: str


def remedies(problems: Iterable[Problem]) -> list[str]:
    """What to do about all of them, each thing once, in order."""
    return list(dict.fromkeys(p.remedy for p in problems))
