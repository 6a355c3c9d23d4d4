"""The first rows of one column, and what they are, for `infer_schema`."""

from __future__ import annotations

import dataclasses
import functools
import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfrs_dlrm.data.raw import notations, times
from tfrs_dlrm.data.raw.number_evidence import ValueCounts
from tfrs_dlrm.data.raw.values import ANY_WHOLE, FALSE, MAX_INT64, TRUE, as_number, as_whole, exact_up_to
from tfrs_dlrm.schema import Notation

_MAX_FLOAT = float(np.finfo(np.float32).max)


@dataclasses.dataclass(frozen=True)
class SampledColumn:
    """The first rows of one column.

    Attributes:
      name: as in the file.
      values: strings, or the type that Parquet gives; null where missing.
    """

    name: str
    values: pa.Array

    @property
    def is_text(self) -> bool:
        """Whether the values are strings."""
        return pa.types.is_string(self.values.type)

    @property
    def is_list(self) -> bool:
        """Whether each value is a list."""
        types, kind = pa.types, self.values.type
        return types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)

    @property
    def missing(self) -> float:
        """The share of rows without a value."""
        return self.values.null_count / len(self.values)

    @property
    def distinct(self) -> int:
        """The number of distinct values; 0 for lists and other types whose values cannot be compared."""
        return 0 if pa.types.is_nested(self.values.type) or self.missing == 1 else len(self.counts)

    @functools.cached_property
    def counts(self) -> dict[object, int]:
        """The number of occurrences of each value, the most frequent first; empty if Arrow cannot compare them."""
        try:
            pairs = pc.value_counts(self.values.drop_null())
        except pa.ArrowNotImplementedError:  # extension types, such as UUIDs
            return {}
        values, counts = pairs.field(0).to_pylist(), pairs.field(1).to_pylist()
        return dict(sorted(zip(values, counts, strict=True), key=lambda pair: (-pair[1], str(pair[0]))))

    @functools.cached_property
    def texts(self) -> list[str]:
        """The distinct finite values of a column of strings; empty for other columns."""
        return [str(v) for v in self.counts if not _is_infinite(v)] if self.is_text else []

    @functools.cached_property
    def notation(self) -> Notation:
        """How the numbers of a column of strings are written."""
        return notations.recognize(self.texts) or Notation()

    @functools.cached_property
    def numbers(self) -> np.ndarray | None:
        """The present finite values as float64; None if a value is no number, or a code with a leading zero.

        Only for ranges and moments: float64 holds whole numbers up to 2^53; `whole` has them all.
        """
        types, kind = pa.types, self.values.type
        if any(is_kind(kind) for is_kind in (types.is_boolean, types.is_integer, types.is_floating, types.is_decimal)):
            values = self.values.drop_null().cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
            finite = values[np.isfinite(values)]
            return finite if len(finite) or not len(values) else None
        if not self.is_text or any(re.match(r"[+-]?0[0-9]", text) for text in self.texts):
            return None
        words = {*TRUE, *FALSE}
        if not words.isdisjoint(self.texts) and not self.is_boolean:
            return None
        plain = notations.plain_numbers(pa.array(self.texts, pa.string()), self.notation).to_pylist()
        numbers = [as_number(text) for text in plain]
        if any(n is None or not abs(n) <= _MAX_FLOAT for n in numbers) or (self.counts and not numbers):
            return None
        return np.repeat(np.array(numbers, np.float64), [self.counts[text] for text in self.texts])

    @property
    def infinite(self) -> int:
        """The number of rows whose value is infinite."""
        return sum(n for value, n in self.counts.items() if _is_infinite(value))

    @property
    def is_boolean(self) -> bool:
        """Whether all values are true or false, in a bool column or in words."""
        words = {*TRUE, *FALSE}
        spelled = bool(self.texts) and {as_whole(t) for t in self.texts} <= {0, 1} and not words.isdisjoint(self.texts)
        return pa.types.is_boolean(self.values.type) or spelled

    @functools.cached_property
    def whole(self) -> list[int] | None:
        """The distinct finite values as whole numbers of any size; None if one is something else, or may be rounded."""
        kind = self.values.type
        if self.numbers is None or self.notation != Notation():
            return None
        if pa.types.is_floating(kind):
            exact = (self.numbers == np.round(self.numbers)) & (np.abs(self.numbers) <= exact_up_to(kind.bit_width))
            return [int(n) for n in np.unique(self.numbers)] if exact.all() else None
        if self.is_boolean:
            return sorted({int(as_number(str(v).lower()) or 0) for v in self.counts})
        values = [str(v) for v in self.counts if not _is_infinite(v)]
        if not all(re.fullmatch(ANY_WHOLE, v) for v in values):
            return None
        return sorted({int(v.partition(".")[0]) for v in values})

    def value_counts(self) -> ValueCounts:
        """Counts whole numbers, and returns which of them each row has.

        Raises:
          ValueError: the column does not hold whole numbers.
        """
        if self.whole is None:
            raise ValueError(f"column {self.name!r} does not hold whole numbers")
        encoded = self.values.dictionary_encode()
        read = np.array([_finite(str(v).lower()) for v in encoded.dictionary.to_pylist()], np.float64)
        values, places = np.unique(read, return_inverse=True)
        codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
        known = int((~np.isnan(values)).sum())  # NaN is the last
        rows = np.where(codes >= 0, places[codes], -1)
        rows[rows >= known] = -1
        return ValueCounts(values[:known], np.bincount(rows[rows >= 0], minlength=known), rows)

    @property
    def is_rounded(self) -> bool:
        """Whether the values are whole numbers beyond what a float tells apart, so that different ones may be equal."""
        numbers = self.numbers
        if numbers is None or self.whole is not None or not len(numbers) or self.notation != Notation():
            return False
        exact = exact_up_to(self.values.type.bit_width) if pa.types.is_floating(self.values.type) else 2**53
        return bool((numbers == np.round(numbers)).all() and np.abs(numbers).max() > exact)

    @property
    def is_large(self) -> bool:
        """Whether whole numbers are too large for float64, as only names of things are."""
        return self.whole is not None and max(map(abs, self.whole), default=0) > 2**53

    @property
    def fits_int64(self) -> bool:
        """Whether int64 holds all whole numbers, and none is -1, which stands for a missing value there."""
        whole = self.whole or [0]
        return -1 not in whole and whole[0] >= -MAX_INT64 - 1 and whole[-1] <= MAX_INT64

    @functools.cached_property
    def time(self) -> str | None:
        """What dates or times the values are, with an example; None if they are something else."""
        if pa.types.is_temporal(self.values.type):
            return f"of type {self.values.type}"
        if not self.counts or self.is_list or self.is_boolean:
            return None
        kind = times.time_of_texts(self.texts)
        if kind is None and self.numbers is not None and self.notation == Notation():
            kind = times.time_of_numbers(np.unique(self.numbers).tolist())
        return f"{kind}, such as {str(next(iter(self.counts)))[:40]!r}" if kind else None


def _finite(text: str) -> float:
    """Parses a number or boolean; NaN if it is none, or infinite."""
    number = as_number(text)
    return np.nan if number is None or np.isinf(number) else number


def _is_infinite(value: object) -> bool:
    return str(value).lower().lstrip("+-") in ("inf", "infinity")
