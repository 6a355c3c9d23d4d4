"""Names of table rows, as the log has them: values, ids, parts of times, buckets; and the row of a name."""

from __future__ import annotations

import calendar
import json
import re
from collections.abc import Callable, Collection, Mapping

from tfrs_dlrm.data.encoding.buckets import bucket_name
from tfrs_dlrm.data.encoding.crosses import members_of
from tfrs_dlrm.data.encoding.statistics import read_statistics
from tfrs_dlrm.data.encoding.text_values import boolean_words
from tfrs_dlrm.data.encoding.tokenizer import MISSING_TEXT
from tfrs_dlrm.data.encoding.vocabulary import read_vocabulary
from tfrs_dlrm.data.raw.values import FALSE, POINT_ZERO, TRUE
from tfrs_dlrm.messages import did_you_mean
from tfrs_dlrm.schema import CategoricalFeature, Encoding, Schema, TimePart

# The name of the row that all unseen values share, and of the lack of any value.
UNSEEN, NO_VALUE = "<unseen>", "<none>"
# How many of the most frequent values are compared with an unknown value to suggest one.
_SUGGESTED_FROM = 50_000
_BOOLEANS = (*TRUE, "1", *FALSE, "0")
_TIMES = " \N{MULTIPLICATION SIGN} "


def encoding_of(schema: Schema, table: str) -> Encoding | None:
    """The encoding of the features of a table; None if the table only stores rows of other tables."""
    return next((f.encoding for f in schema.categorical if f.table == table), None)


def row_names(schema: Schema, directory: str, table: str, rows: Collection[int]) -> dict[int, str]:
    """Names rows of a table: the value in the vocabulary, `bucket 7` for hashed values, or the id.

    Rows of parts of times are `14h`, `Monday`, `January` or the day of the month, and rows of numbers their bucket,
    such as `[0, 1.5)`; row 0 of both is `<missing>`. Row 0 of a vocabulary is `UNSEEN`. A value of a vocabulary that is
    not plain text, or equals another name, is quoted. The names of the members of a cross have a
    multiplication sign between them.

    Args:
      schema: has the table.
      directory: a directory with the vocabularies and statistics: a prepared one, or `Workdir.encoder_dir`.
      table: the name of the table.
      rows: which rows. The vocabulary is read up to the last of them, and only their values are kept.
    """
    encoding = encoding_of(schema, table)
    if encoding in ("time", "buckets"):
        feature = next(f for f in schema.categorical if f.table == table)
        name = namer(schema, directory, feature)
        return {int(row): name(int(row)) for row in rows}
    if encoding != "vocabulary":
        return {int(row): f"bucket {row}" if encoding == "hash" else str(row) for row in rows}
    wanted, last = set(map(int, rows)), max(rows, default=0)
    names = {0: UNSEEN} if 0 in wanted else {}
    shown = _value_namer(schema, directory, table)
    for row, value in enumerate(read_vocabulary(directory, table), 1):
        if row > last:
            break
        if row in wanted:
            names[row] = shown(value)
    return names


def namer(schema: Schema, directory: str, feature: CategoricalFeature) -> Callable[[int], str]:
    """Returns what names a row of buckets or of a part of times."""
    if feature.encoding == "time" and feature.time is not None:
        part = feature.time.parts[0]
        return lambda row: part_name(part, row)
    edges = read_statistics(schema, directory).edges[feature.name]
    return lambda row: bucket_name(row, edges)


def part_name(part: TimePart, row: int) -> str:
    """Names a row of a part of times."""
    if row == 0:
        return MISSING_TEXT
    names = {"hour": lambda: f"{row - 1}h", "weekday": lambda: calendar.day_name[row - 1]}
    names |= {"month": lambda: calendar.month_name[row], "day": lambda: str(row)}
    return names[part]()


def _value_namer(schema: Schema, directory: str, table: str) -> Callable[[str], str]:
    """Returns what names a value of a vocabulary."""
    cross = next((f for f in schema.categorical if f.table == table and f.cross), None)
    if cross is None:
        return _plain
    members = [schema.value_feature(name) for name in cross.cross]
    of_rows = {m.name: namer(schema, directory, m) for m in members if m.encoding in ("time", "buckets")}

    def joined(value: str) -> str:
        parts = zip(members, members_of(value), strict=True)
        return _TIMES.join(of_rows[m.name](int(part)) if m.name in of_rows else _plain(part) for m, part in parts)

    return joined


def _plain(value: str) -> str:
    plain = value.isprintable() and value.strip() == value and value not in ("", UNSEEN, NO_VALUE)
    return value if plain and not value.startswith('"') else json.dumps(value)


def missing_row(directory: str, table: str) -> int | None:
    """The row of the missing value in a vocabulary; None if it has none."""
    rows = (row for row, value in enumerate(read_vocabulary(directory, table), 1) if value == MISSING_TEXT)
    return next(rows, None)


def find_row(schema: Schema, directory: str, table: str, value: str) -> int:
    """Finds the row of a value in a table with one row per value.

    Args:
      schema: has the table.
      directory: a directory with the vocabularies.
      table: the name of the table.
      value: a value of the log, as the vocabulary has it, or in another spelling that the encoder takes for it;
        `<missing>` is the missing value.

    Raises:
      ValueError: the table has no such value, or its values are hashed.
    """
    encoding, size = encoding_of(schema, table), schema.table(table).vocabulary_size or 0
    if encoding == "ids":
        if not value.isdecimal() or int(value) >= size:
            raise ValueError(f"table {table!r}: {value!r} is none of its ids; give one of 0 to {size - 1}")
        return int(value)
    if encoding in ("time", "buckets"):
        return _find_named(table, value, row_names(schema, directory, table, range(size)))
    if encoding != "vocabulary":
        raise ValueError(
            f"table {table!r}: its values are hashed, so several share a row; name a table with a vocabulary or ids"
        )
    frequent, found, size = list[str](), dict[str, int](), 0
    digits = re.sub(POINT_ZERO, r"\1", value)
    crossed = any(f.cross for f in schema.categorical if f.table == table)
    shown = _value_namer(schema, directory, table) if crossed else str
    for size, text in enumerate(read_vocabulary(directory, table), 1):
        other = shown(text)
        if other == value:
            return size
        if other in (digits, *_BOOLEANS, MISSING_TEXT):
            found[other] = size
        if size <= _SUGGESTED_FROM:
            frequent.append(other)
    others = size > sum(word in found for word in (*_BOOLEANS, MISSING_TEXT))
    for spellings, word in boolean_words(found, others):
        if value in spellings:
            return found[word]
    if digits in found:
        return found[digits]
    hint = did_you_mean(value, frequent) or f"the most frequent are {', '.join(map(repr, frequent[:5]))}"
    raise ValueError(f"table {table!r}: {value!r} is not in its vocabulary; {hint}")


def _find_named(table: str, value: str, names: Mapping[int, str]) -> int:
    """Returns the row of a name, in any case; of parts of times also of their number."""
    for row, name in names.items():
        if value.lower() in (name.lower(), name.lower().removesuffix("h")):
            return row
    hint = did_you_mean(value, names.values()) or f"its rows are {', '.join(names.values())}"
    raise ValueError(f"table {table!r}: no row is called {value!r}; {hint}")


def categorical_feature(schema: Schema, name: str) -> CategoricalFeature:
    """Returns the categorical feature of a name.

    Raises:
      ValueError: the table does not exist; the message suggests others.
    """
    known = {f.name: f for f in schema.categorical}
    if name in known:
        return known[name]
    if name in {f.name for f in schema.dense}:
        raise ValueError(f"feature {name!r} is a number; name a categorical feature: {', '.join(known) or 'none here'}")
    hint = did_you_mean(name, known) or f"the categorical features are {', '.join(known) or 'none'}"
    raise ValueError(f"no categorical feature {name!r}; {hint}")
