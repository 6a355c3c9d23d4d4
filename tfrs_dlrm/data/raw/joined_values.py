"""Finds texts that join several values of one vocabulary, such as `sports|live`, for `infer_schema`."""

from __future__ import annotations

from tfrs_dlrm.data.raw.sampled_column import SampledColumn

_SEPARATORS = "|;,"


def find_separator(column: SampledColumn) -> tuple[str, int]:
    """Finds the separator of recurring values in the texts of a column, and the number of distinct values."""
    texts = [str(text) for text in column.counts] if column.is_text else []
    for separator in _SEPARATORS:
        joined = sum(n for text, n in column.counts.items() if separator in str(text))
        if not texts or joined < 0.05 * len(column.values):
            continue
        if all(text.count(separator) == text.count(f"{separator} ") for text in texts):
            separator += " "
        parts = [part for text in texts for part in text.split(separator)]
        distinct = len(set(parts))
        if distinct < len(texts) and 2 * distinct <= len(parts):
            return separator, distinct
    return "", 0
