"""Reads the first rows of a log by column, and finds its layout, for `infer_schema`."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tfrs_dlrm.data.raw import raw_files, sources
from tfrs_dlrm.data.raw.frames import Frame, RawInput
from tfrs_dlrm.data.raw.parsing import as_number, fields
from tfrs_dlrm.schema import CategoricalFeature, Label, Schema, TextFormat
from tfrs_dlrm.stores import StoreError

# Texts that mean "no value" in any column, and further ones in a column of numbers.
_MISSING = ("?", "NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "\\N", "#N/A")
_MISSING_AMONG_NUMBERS = frozenset({"none", "unknown", "-", "missing"})
_DELIMITERS = "\t,;|"


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
    def numbers(self) -> np.ndarray | None:
        """The present finite values as float64; None if a value is no number, or a code with a leading zero."""
        types, kind = pa.types, self.values.type
        if any(is_kind(kind) for is_kind in (types.is_boolean, types.is_integer, types.is_floating, types.is_decimal)):
            values = self.values.drop_null().cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
            finite = values[np.isfinite(values)]
            return finite if len(finite) or not len(values) else None
        if not self.is_text or any(re.match(r"[+-]?0[0-9]", str(text)) for text in self.counts):
            return None
        counts = {text: n for text, n in self.counts.items() if not _is_infinite(text)}
        numbers = [as_number(str(text)) for text in counts]
        if any(n is None or not abs(n) <= np.finfo(np.float32).max for n in numbers) or (self.counts and not counts):
            return None
        return np.repeat(np.array(numbers, np.float64), list(counts.values()))

    @property
    def infinite(self) -> int:
        """The number of rows whose value is infinite."""
        return sum(n for value, n in self.counts.items() if _is_infinite(value))

    @property
    def is_whole(self) -> bool:
        """Whether all values are whole numbers that int64 holds."""
        if self.is_text:
            return all(re.fullmatch(r"-?[0-9]{1,18}", str(text)) for text in self.counts if not _is_infinite(text))
        return self.numbers is not None and bool((self.numbers == np.round(self.numbers)).all())


def read_first_rows(
    path: RawInput, columns: Sequence[str], delimiter: str | None, rows: int
) -> tuple[TextFormat, dict[str, SampledColumn]]:
    """Reads the layout of a log, and its first `rows` rows by column. Lines that are no rows are left out.

    Args:
      path: a file or frame, as `sources.blocks` reads it.
      columns: the names of the columns of a text file without a header line.
      delimiter: of a text file; None finds it.
      rows: how many rows to read.

    Raises:
      ValueError: the file is empty, damaged, or has no header; the message names it.
    """
    if isinstance(path, Frame):
        names, text = list(path.columns), TextFormat()
    elif raw_files.is_parquet(path):
        names, text = _parquet_names(path), TextFormat()
    else:
        line = sources.first_line(path)
        text = TextFormat(columns=tuple(columns), delimiter=_delimiter(path, line, delimiter))
        split = sources.split_line(line, text.delimiter or raw_files.usual_delimiter(path))
        _check_header(path, split, columns)
        names = list(columns or split)
    arrays = {name: _clean(array) for name, array in _arrays(path, names, text, rows).items()}
    if not arrays or len(arrays[names[0]]) == 0:
        raise ValueError(f"{path}: none of the first lines is a row of {len(names)} fields: {', '.join(names)[:200]}")
    strip = any(_has_blanks(array) for array in arrays.values())
    if strip:
        arrays = {name: pc.ascii_trim_whitespace(a) if _is_string(a) else a for name, a in arrays.items()}
    missing = _missing_texts(list(arrays.values()))
    text = dataclasses.replace(text, strip=strip, missing=missing)
    nothing = pa.array(["", *missing], pa.string())
    first_rows: dict[str, SampledColumn] = {}
    for name, array in arrays.items():
        if _is_string(array):
            array = pc.if_else(pc.is_in(array, nothing), pa.scalar(None, pa.string()), array)
        name = name.strip() if strip else name
        first_rows[name] = SampledColumn(name, array)
    return text, first_rows


def _parquet_names(path: str) -> list[str]:
    try:
        return list(pq.read_schema(raw_files.open_file(path)).names)
    except StoreError:
        raise
    except (pa.ArrowException, OSError) as e:
        raise ValueError(f"{path}: not a readable Parquet file: {e}") from e


def _delimiter(path: str, line: str, given: str | None) -> str | None:
    """Finds the delimiter; None if it is the usual one for the name of the file."""
    usual = raw_files.usual_delimiter(path)
    found = given or (usual if usual in line else max(_DELIMITERS, key=line.count))
    return None if found == usual else found


def _check_header(path: str, first: Sequence[str], columns: Sequence[str]) -> None:
    if columns and len(columns) != len(first):
        raise ValueError(f"{path}: {len(columns)} columns are given, line 1 has {len(first)} fields")
    values = [name for name in first if not name.strip() or as_number(name.strip()) is not None]
    if values and not columns:
        raise ValueError(
            f"{path}: line 1 holds values such as {values[0]!r}, not the names of columns; give the names as columns"
        )


def _arrays(path: RawInput, names: Sequence[str], text: TextFormat, rows: int) -> dict[str, pa.Array]:
    """Reads the first rows without conversion."""
    features = tuple(CategoricalFeature(f"c{i}", column=name) for i, name in enumerate(names))
    everything = Schema(Label(names[0]), categorical=features, text=text)
    parts: list[dict[str, pa.Array]] = []
    count = 0
    for block in sources.blocks(path, everything):
        parts.append(fields(block, everything)[0])
        count += len(parts[-1][names[0]])
        if count >= rows:
            break
    return {name: pa.concat_arrays([part[name] for part in parts]).slice(0, rows) for name in names}


def _clean(array: pa.Array) -> pa.Array:
    """Turns bytes and other kinds of strings into plain strings."""
    types = pa.types
    if types.is_large_string(array.type) or types.is_string_view(array.type):
        return array.cast(pa.string())
    if not (types.is_binary(array.type) or types.is_large_binary(array.type)):
        return array
    try:
        return array.cast(pa.string())
    except pa.ArrowInvalid:
        texts = [None if v is None else v.decode("utf-8", "replace") for v in array.to_pylist()]
        return pa.array(texts, pa.string())


def _is_infinite(value: object) -> bool:
    return str(value).lower().lstrip("+-") in ("inf", "infinity")


def _is_string(array: pa.Array) -> bool:
    return pa.types.is_string(array.type)


def _has_blanks(array: pa.Array) -> bool:
    """Whether any value has blanks around it."""
    return _is_string(array) and bool(pc.any(pc.not_equal(pc.ascii_trim_whitespace(array), array)).as_py())


def _missing_texts(arrays: Sequence[pa.Array]) -> tuple[str, ...]:
    """Finds the texts that mean "no value" in the columns."""
    found: dict[str, None] = {}
    for array in filter(_is_string, arrays):
        values = {v for v in pc.unique(array).to_pylist() if v}
        found.update(dict.fromkeys(m for m in _MISSING if m in values))
        odd = sorted(v for v in values if as_number(v) is None and v not in found)
        numbers = sum(as_number(v) is not None for v in values)
        if numbers > len(odd) and {v.lower() for v in odd} <= _MISSING_AMONG_NUMBERS:
            found.update(dict.fromkeys(odd))
    return tuple(found)
