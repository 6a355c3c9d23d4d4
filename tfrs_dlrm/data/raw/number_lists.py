"""Splits texts that list numbers: `0.1|0.2`, `[0.1, 0.2]`, and `[0.1 0.2]` as NumPy prints arrays."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

_BRACKETS = r"(?s)^\s*\[(.*)\]\s*$"


def number_lists(text: pa.Array, separator: str) -> pa.Array:
    """Splits string [N] at a separator to lists of texts, with blanks around them; null, if empty, and `[]` are null.

    A blank separator stands for any number of blanks and line breaks.
    """
    inner = pc.utf8_trim_whitespace(pc.replace_substring_regex(text, _BRACKETS, r"\1"))
    inner = pc.if_else(pc.equal(inner, ""), pa.scalar(None, pa.string()), inner)
    return pc.utf8_split_whitespace(inner) if separator.isspace() else pc.split_pattern(inner, separator)
