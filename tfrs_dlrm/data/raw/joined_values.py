"""Finds texts that join several values of one vocabulary, such as `sports|live`, for `infer_schema`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tfrs_dlrm.data.raw.sampled_column import SampledColumn

_SEPARATORS = "|;,"
_LEAST_JOINED = 0.05
# Blanks are within names and sentences as well: more rows must have them, and each word come again more often.
_LEAST_WITH_BLANKS, _LEAST_REPEATS = 0.2, 5


def find_separator(column: SampledColumn) -> tuple[str, int]:
    """Finds the separator of recurring values in the texts of a column, and the number of distinct values."""
    texts = [str(text) for text in column.counts] if column.is_text else []
    if not texts:
        return "", 0
    for separator in _SEPARATORS:
        if _joined(column, separator) < _LEAST_JOINED:
            continue
        if all(text.count(separator) == text.count(f"{separator} ") for text in texts):
            separator += " "
        parts = [part for text in texts for part in text.split(separator)]
        distinct = len(set(parts))
        if distinct < len(texts) and 2 * distinct <= len(parts):
            return separator, distinct
    if _joined(column, " ") >= _LEAST_WITH_BLANKS and (distinct := _words(texts)):
        return " ", distinct
    return "", 0


def _joined(column: SampledColumn, separator: str) -> float:
    """Returns the share of rows with a separator."""
    return sum(n for text, n in column.counts.items() if separator in str(text)) / len(column.values)


def _words(texts: Sequence[str]) -> int:
    """Counts the words that texts are sets of, such as genres; 0 if they are names or sentences.

    Members of a set stand at any place, some alone, none twice. A first name stands before a last one, and what all
    texts have is part of a name.
    """
    sets = [text.split(" ") for text in texts]
    counts = Counter(word for words in sets for word in words)
    total = sum(counts.values())
    if "" in counts or 2 * len(counts) > len(texts) or _LEAST_REPEATS * len(counts) > total:
        return 0
    if max(counts.values()) > 0.9 * len(texts) or sum(len(set(words)) < len(words) for words in sets) > 0.01 * len(
        sets
    ):
        return 0
    alone = {words[0] for words in sets if len(words) == 1}
    first = {words[0] for words in sets if len(words) > 1}
    later = {word for words in sets for word in words[1:]}
    moving = sum(counts[word] for word in (first | alone) & later)
    return len(counts) if len(alone) >= 0.2 * len(counts) and moving >= 0.5 * total else 0
