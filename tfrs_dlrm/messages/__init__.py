"""Parts of error messages: similar names, and commands that install what is missing."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

from tfrs_dlrm.messages.causes import cause

__all__ = ["cause", "did_you_mean", "install_command"]

_HOME = Path(__file__).resolve().parents[2]


def did_you_mean(name: str, known: Iterable[str], most: int = 3) -> str:
    """Returns a question that proposes at most `most` known names; empty if no name is similar."""
    close = difflib.get_close_matches(name[:200], list(known), most)  # the time grows with the length
    return f"did you mean {' or '.join(map(repr, close))}?" if close else ""


def install_command(extra: str = "") -> str:
    """Returns the pip command that installs an extra of this package, from the checkout in use, if any.

    Without an extra, it installs the package itself.
    """
    suffix = f"[{extra}]" if extra else ""
    if not (_HOME / "setup.py").is_file():
        return f"pip install 'tfrs-dlrm{suffix}'"
    return f"pip install -e '{'.' if Path.cwd() == _HOME else _HOME}{suffix}'"
