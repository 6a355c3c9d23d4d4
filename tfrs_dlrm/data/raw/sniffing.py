"""Reads the first rows of a log by column, and finds its layout, for `infer_schema`."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from tfrs_dlrm.data.raw import sources
from tfrs_dlrm.data.raw.frames import Frame, RawInput
from tfrs_dlrm.data.raw.notations import looks_like_number
from tfrs_dlrm.data.raw.parsing import fields
from tfrs_dlrm.data.raw.partitions import partitions
from tfrs_dlrm.data.raw.sampled_column import SampledColumn
from tfrs_dlrm.data.raw.text_layout import MISSING
from tfrs_dlrm.data.raw.text_sniffing import MISSING_AMONG_NUMBERS, sniff_text
from tfrs_dlrm.data.raw.values import as_number
from tfrs_dlrm.schema import TextFormat

_UNNAMED_INDEX = re.compile(r"__index_level_\d+__")


@dataclasses.dataclass(frozen=True)
class FirstRows:
    """The first rows of a log.

    Attributes:
      text: the layout of text files.
      columns: by name.
      unusable: by name, why a column cannot be read; these are not in `columns`.
      files: how many files or frames the rows come from.
      rows: how many there are.
    """

    text: TextFormat
    columns: dict[str, SampledColumn]
    unusable: dict[str, str]
    files: int
    rows: int


def read_first_rows(
    inputs: Sequence[RawInput], columns: Sequence[str], delimiter: str | None, rows: int, wanted: str | None = None
) -> FirstRows:
    """Reads the layout of a log, and its first `rows` rows by column. Lines that are no rows are left out.

    Args:
      inputs: files or frames, as `sources.blocks` reads them; the first says how all are laid out.
      columns: the names of the columns of a text file without a header line.
      delimiter: of a text file; None finds it.
      rows: how many rows to read.
      wanted: a column to read even if it has no name.

    Raises:
      ValueError: a file is empty, damaged, or has no header; the message names it.
    """
    path = inputs[0]
    names, text, unusable = _names(path, columns, delimiter)
    directories = [name for name in (partitions(path) if isinstance(path, str) else ()) if name not in names]
    names += directories
    unusable = {name: why for name, why in unusable.items() if name != wanted}
    for name in names:
        if names.count(name) > 1:
            unusable[name] = f"the name occurs {names.count(name)} times; to use it, give each column another name"
    names = [name for name in names if name not in unusable]
    if not names:
        reasons = "; ".join(f"column {name!r}: {reason}" for name, reason in unusable.items())
        raise ValueError(f"{path}: no column can be read: {reasons}"[:1000])
    found, files = _arrays(inputs, names, text, rows) if names else ({}, 0)
    arrays = {name: _clean(array) for name, array in found.items()}
    if not arrays or len(arrays[names[0]]) == 0:
        raise ValueError(f"{path}: none of the first lines is a row of {len(names)} fields: {', '.join(names)[:200]}")
    count = len(arrays[names[0]])
    unusable |= {name: why for name, why in _unseen(inputs, files).items() if name in directories and name != wanted}
    strip = any(_has_blanks(array) for array in arrays.values())
    if strip:
        arrays = {name: pc.ascii_trim_whitespace(a) if _is_string(a) else a for name, a in arrays.items()}
    missing = _missing_texts(list(arrays.values()))
    text = dataclasses.replace(text, strip=strip, missing=missing)
    nothing = pa.array(["", *missing], pa.string())
    first_rows: dict[str, SampledColumn] = {}
    for name, array in arrays.items():
        if name in unusable:
            continue
        if _is_string(array):
            array = pc.if_else(pc.is_in(array, nothing), pa.scalar(None, pa.string()), array)
        name = name.strip() if strip else name
        first_rows[name] = SampledColumn(name, array)
    return FirstRows(text, first_rows, unusable, files, count)


def _unseen(inputs: Sequence[RawInput], files: int) -> dict[str, str]:
    """Names the columns in the names of directories that have one value in the first files, and others in all."""
    values = [partitions(path) if isinstance(path, str) else {} for path in inputs]
    return {
        name: f"in the names of directories, with {n:,} values; the rows that were looked at have one. A feature of"
        " this column reads it"
        for name in values[0]
        if len({v.get(name) for v in values[:files]}) == 1 and (n := len({v.get(name) for v in values})) > 1
    }


def _names(
    path: RawInput, columns: Sequence[str], delimiter: str | None
) -> tuple[list[str], TextFormat, dict[str, str]]:
    """Returns the names of the columns of a file, the layout of a text file, and why columns are left out."""
    if isinstance(path, Frame):
        return list(path.columns), TextFormat(), {}
    kind = sources.file_kind(path)
    if kind.content == "parquet":
        names, text = list(sources.parquet_file(path, kind).schema_arrow.names), TextFormat()
        unusable = {name: "an index without a name" for name in names if _UNNAMED_INDEX.fullmatch(name)}
    else:
        sniffed = sniff_text(path, kind, columns, delimiter, sources.BLOCK_BYTES)
        names, text = list(sniffed.names), sniffed.text
        what = "without a name in the header; to use it, name it there, or use this name"
        unusable = dict.fromkeys(sorted(sniffed.nameless), what)
    return names, text, unusable


def _arrays(
    inputs: Sequence[RawInput], names: Sequence[str], text: TextFormat, rows: int
) -> tuple[dict[str, pa.Array], int]:
    """Reads the first rows without conversion; also returns of how many files."""
    everything = sources.reading(names, text)
    parts: list[dict[str, pa.Array]] = []
    count = files = 0
    for path in inputs:
        files += 1
        for block in sources.blocks_of_many(path, everything, len(inputs)):
            parts.append({name: _clean(array) for name, array in fields(block, everything)[0].items()})
            count += len(parts[-1][names[0]])
            if count >= rows:
                break
        if count >= rows:
            break
    if not parts:
        raise ValueError(f"{inputs[0]}: neither this file nor the {files - 1} others have rows")
    return {name: _joined(name, [part[name] for part in parts]).slice(0, rows) for name in names}, files


def _joined(name: str, arrays: Sequence[pa.Array]) -> pa.Array:
    """Joins the values of several blocks; where files give a column different types, as one that holds all.

    Raises:
      ValueError: there is no such type.
    """
    try:
        tables = [pa.table({"": array}) for array in arrays]
        joined = pa.concat_tables(tables, promote_options="permissive").column(0).combine_chunks()
    except pa.ArrowException as e:
        kinds = " and ".join(dict.fromkeys(str(array.type) for array in arrays))
        raise ValueError(
            f"column {name!r} is of type {kinds} in different files; write them with one type, or give one of the files"
        ) from e
    return joined.chunk(0) if isinstance(joined, pa.ChunkedArray) else joined


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
        found.update(dict.fromkeys(m for m in MISSING if m in values))
        numbers = {v for v in values if _is_number(v)}
        odd = sorted(v for v in values - numbers if v not in found)
        if len(numbers) > len(odd) and {v.lower() for v in odd} <= MISSING_AMONG_NUMBERS:
            found.update(dict.fromkeys(odd))
    return tuple(found)


def _is_number(text: str) -> bool:
    return as_number(text) is not None or looks_like_number(text)
