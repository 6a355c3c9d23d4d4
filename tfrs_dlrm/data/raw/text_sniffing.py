"""Finds the layout of a text file from its first lines: delimiter, quotes, and whether line 1 names the columns."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from tfrs_dlrm.data.raw.file_kinds import FileKind, usual_delimiter
from tfrs_dlrm.data.raw.text_layout import (
    DELIMITERS,
    MISSING,
    decoded,
    first_lines,
    is_enclosed,
    is_number,
    named,
    split,
    split_header,
    stand_in_quotes,
    usual_quote,
)
from tfrs_dlrm.schema import TextFormat

_BYTES = 1 << 20  # how much of a file is looked at
_QUOTES = "\"'"
# Further texts that stand for a missing value among numbers; like `MISSING` they say nothing about line 1.
MISSING_AMONG_NUMBERS = frozenset({"none", "unknown", "-", "missing"})


@dataclasses.dataclass(frozen=True)
class SniffedText:
    """The layout of a text file.

    Attributes:
      text: as a schema says it.
      names: of all columns, in order; see `text_layout.named`.
      nameless: which of them have no name in the header.
    """

    text: TextFormat
    names: tuple[str, ...]
    nameless: frozenset[str]


def sniff_text(path: str, kind: FileKind, columns: Sequence[str], delimiter: str | None, longest: int) -> SniffedText:
    """Finds the layout of a text file.

    Args:
      path: the file.
      kind: its kind.
      columns: the names of the columns of a file without a header line.
      delimiter: between the fields; None finds it.
      longest: how many bytes line 1 may have.

    Raises:
      ValueError: line 1 is empty, does not hold names while no `columns` are given, or holds names while they are.
    """
    lines = first_lines(path, kind, _BYTES, longest)
    if not lines[0]:
        raise ValueError(f"{path}: the first line is empty; remove it")
    header = decoded(path, lines[0])
    usual = usual_delimiter(path)
    delimiter = delimiter or _delimiter(lines, usual)
    quote = _quote(lines, delimiter)
    default = usual_quote(delimiter)
    first = split_header(path, header, delimiter, default if quote is None else quote)
    rows = [split(line, delimiter, default if quote is None else quote) for line in lines[1:]]
    _check_header(path, first, rows, columns)
    text = TextFormat(tuple(columns), None if delimiter == usual else delimiter, quote)
    if columns:
        return SniffedText(text, tuple(columns), frozenset())
    names = named(first, rows)
    given = {name.strip() for name in first}
    return SniffedText(text, tuple(names), frozenset(name for name in names if name.strip() not in given))


def _delimiter(lines: Sequence[bytes], usual: str) -> str:
    """Finds the delimiter: the usual one if it divides all lines alike, otherwise the one that does so best."""

    def evenness(delimiter: str) -> tuple[float, int]:
        counts = [len(split(line, delimiter, usual_quote(delimiter))) for line in lines[:1000] if line]
        return (sum(n == counts[0] for n in counts) / len(counts) if counts[0] > 1 else 0.0), counts[0]

    best = max(DELIMITERS, key=evenness)
    return best if evenness(best)[0] > max(evenness(usual)[0], 0.5) or evenness(usual)[0] == 0 else usual


def _quote(lines: Sequence[bytes], delimiter: str) -> str | None:
    """Finds the quote around fields; None if the usual rule reads them, which is none between tabs."""
    usual = usual_quote(delimiter)
    for quote in _QUOTES:
        around = [line for line in lines if quote.encode() in line]
        fields = [f for line in around for f in split(line, delimiter, "")]
        if quote == "'" and not all(is_enclosed(f, quote) or is_number(f) for f in split(lines[0], delimiter, "")):
            continue  # an apostrophe
        if not any(f.startswith(quote) for f in fields):
            continue
        want = len(split(lines[0], delimiter, quote))
        read, plain = (sum(len(split(line, delimiter, q)) == want for line in around) for q in (quote, ""))
        # Queries hold quotes of their own: between tabs, columns must stand in quotes, or quotes be doubled or needed.
        doubled = any(is_enclosed(f, quote) and 2 * quote in f[1:-1] for f in fields)
        rows = [split(line, delimiter, "") for line in lines]
        if not usual and quote == '"' and not (doubled or read > plain or stand_in_quotes(rows)):
            continue
        if read >= plain:
            return quote
        return "" if usual else None
    return None


def _check_header(path: str, first: Sequence[str], rows: Sequence[Sequence[str]], columns: Sequence[str]) -> None:
    """Makes sure that line 1 holds names if and only if no columns are given."""
    if columns and len(columns) != len(first):
        raise ValueError(f"{path}: {len(columns)} columns are given, line 1 has {len(first)} fields; name each of them")
    rows = [row for row in rows if len(row) == len(first) and list(row) != list(first)][:1000]
    header = _is_header(first, rows)
    if columns and (list(columns) == list(first) or (header and any(f and not is_number(f) for f in first))):
        raise ValueError(
            f"{path}: line 1 names the columns ({', '.join(first)[:200]}), but columns are given for a file without"
            " such a line; leave columns out"
        )
    if columns or header:
        return
    values = [name for name in first if name.strip() and is_number(name.strip())]
    if values:
        raise ValueError(
            f"{path}: line 1 holds values such as {values[0]!r}, not the names of columns; give the names as columns."
            " If it does hold names, give one of them a letter"
        )
    again = _again(first, rows)
    if again:
        raise ValueError(
            f"{path}: line 1 holds values, not the names of columns: {', '.join(map(repr, again[:3]))} occur below it"
            " in the same column; give the names as columns. If it does hold names, choose others than these"
        )


def _again(first: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns the fields of line 1 that occur again in their columns, if half of its fields do; otherwise nothing."""
    given = [(i, name.strip()) for i, name in enumerate(first) if name.strip()]
    again = [name for i, name in given if any(row[i].strip() == name for row in rows)]
    return again if again and 2 * len(again) >= len(given) else []


def _is_header(first: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Whether line 1 has texts above numbers only, numbers above texts only, or numbers the columns as pandas does.

    Numbers above texts say nothing where other fields of line 1 occur again below: a hash may look like a number.
    """
    names = [name.strip() for name in first]
    given = [name for name in names if name]
    if len(set(given)) < len(given):
        return False
    if len(given) > 2 and given == [str(i) for i in range(len(given))]:
        return True
    nothing = {"", *MISSING, *MISSING_AMONG_NUMBERS}
    for i, name in enumerate(names):
        values = [row[i].strip() for row in rows if row[i].strip() not in nothing]
        if name and values and name not in nothing:
            numbers = {is_number(value) for value in values}
            if numbers == {not is_number(name)} and (numbers == {True} or not _again(first, rows)):
                return True
    return False
