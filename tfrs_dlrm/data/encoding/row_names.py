"""Names of table rows, as the log has them: values, ids or hash buckets; and the row of a name."""

from __future__ import annotations

import json
import re
from collections.abc import Collection

from tfrs_dlrm.data.encoding.text_values import boolean_words
from tfrs_dlrm.data.encoding.tokenizer import MISSING_TEXT
from tfrs_dlrm.data.encoding.vocabulary import read_vocabulary
from tfrs_dlrm.data.raw.values import FALSE, POINT_ZERO, TRUE
from tfrs_dlrm.messages import did_you_mean
from tfrs_dlrm.schema import CategoricalFeature, Encoding, Schema

# The name of the row that all unseen values share, and of the lack of any value.
UNSEEN, NO_VALUE = "<unseen>", "<none>"
# How many of the most frequent values are compared with an unknown value to suggest one.
_SUGGESTED_FROM = 50_000
_BOOLEANS = (*TRUE, "1", *FALSE, "0")


def encoding_of(schema: Schema, table: str) -> Encoding | None:
    """The encoding of the features of a table; None if the table only stores rows of other tables."""
    return next((f.encoding for f in schema.categorical if f.table == table), None)


def row_names(schema: Schema, directory: str, table: str, rows: Collection[int]) -> dict[int, str]:
    """Names rows of a table: the value in the vocabulary, `bucket 7` for hashed values, or the id.

    Row 0 of a vocabulary is `UNSEEN`. A value that is not plain text, or equals another name, is quoted.

    Args:
      schema: has the table.
      directory: a directory with the vocabularies: a prepared one, or `Workdir.encoder_dir`.
      table: the name of the table.
      rows: which rows. The vocabulary is read up to the last of them, and only their values are kept.
    """
    encoding = encoding_of(schema, table)
    if encoding != "vocabulary":
        return {int(row): f"bucket {row}" if encoding == "hash" else str(row) for row in rows}
    wanted, last = set(map(int, rows)), max(rows, default=0)
    names = {0: UNSEEN} if 0 in wanted else {}
    for row, value in enumerate(read_vocabulary(directory, table), 1):
        if row > last:
            break
        if row in wanted:
            plain = value.isprintable() and value.strip() == value and value not in ("", UNSEEN, NO_VALUE)
            names[row] = value if plain and not value.startswith('"') else json.dumps(value)
    return names


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
    if encoding != "vocabulary":
        raise ValueError(
            f"table {table!r}: its values are hashed, so several share a row; name a table with a vocabulary or ids"
        )
    frequent, found, size = list[str](), dict[str, int](), 0
    digits = re.sub(POINT_ZERO, r"\1", value)
    for size, other in enumerate(read_vocabulary(directory, table), 1):
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
