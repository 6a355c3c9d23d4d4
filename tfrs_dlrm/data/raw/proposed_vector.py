"""Finds vectors, such as embeddings: lists of floats of one length, and their texts, for `infer_schema`."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfrs_dlrm.data.raw.number_lists import number_lists
from tfrs_dlrm.data.raw.sampled_column import SampledColumn
from tfrs_dlrm.data.raw.values import as_number

_SEPARATORS = ("|", ";", ",", " ")
# Distinct texts whose numbers are all read.
_READ = 1000


class FoundVector(NamedTuple):
    """The length of each vector, and the separator of its text; None of a list column."""

    size: int
    separator: str | None


def find_vector(column: SampledColumn) -> FoundVector | None:
    """Returns what the vectors of a column are; None if it has others than lists of floats of one length."""
    if column.is_list:
        if not pa.types.is_floating(column.values.type.value_type):
            return None
        size = _one_length(column.values)
        return FoundVector(size, None) if size else None
    if not column.is_text or column.numbers is not None or not column.texts:
        return None
    return next((found for separator in _SEPARATORS if (found := _of_texts(column.texts, separator))), None)


def lengths(values: pa.Array) -> np.ndarray:
    """Returns the different lengths of lists that are not empty, rising."""
    found = np.unique(pc.list_value_length(values).drop_null().to_numpy())
    return np.asarray(found[found > 0])


def _one_length(values: pa.Array) -> int:
    """Returns the one length above 1 of all lists; 0 if they have several."""
    found = lengths(values)
    return int(found[0]) if len(found) == 1 and found[0] > 1 else 0


def _of_texts(texts: list[str], separator: str) -> FoundVector | None:
    first = texts[0]
    if separator not in first:
        return None
    read = number_lists(pa.array(texts[:_READ], pa.string()), separator)
    if not _one_length(read):
        return None
    items = [item.strip() for item in pc.list_flatten(read).to_pylist()]
    numbers = [as_number(item) for item in items if item]
    fractions = any("." in item or "e" in item.lower() for item in items)
    if not fractions or any(n is None or not np.isfinite(n) for n in numbers):
        return None
    size = _one_length(number_lists(pa.array(texts, pa.string()), separator))
    return FoundVector(size, separator) if size else None
