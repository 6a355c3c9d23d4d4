"""Names like one that does not exist."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str], most: int = 3) -> str:
    """A question that proposes at most `most` of the known names; empty where there is none like it."""
    close = difflib.get_close_matches(name[:200], list(known), most)  # the time grows with the length
    return f"did you mean {' or '.join(map(repr, close))}?" if close else ""
