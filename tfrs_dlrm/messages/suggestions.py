"""Proposals for names that do not exist."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str], most: int = 3) -> str:
    """Returns a question that proposes at most `most` known names; empty if no name is similar."""
    close = difflib.get_close_matches(name[:200], list(known), most)  # the time grows with the length
    return f"did you mean {' or '.join(map(repr, close))}?" if close else ""
