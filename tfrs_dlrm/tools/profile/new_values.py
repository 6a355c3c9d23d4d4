"""Which share of the values of a log the vocabulary of an earlier one lacks."""

from __future__ import annotations

import os

import duckdb
import pyarrow as pa

from tfrs_dlrm.data.encoding.tokenizer import MISSING_TEXT
from tfrs_dlrm.data.encoding.vocabulary import read_vocabulary
from tfrs_dlrm.data.preparing.kept_counts import counts_path
from tfrs_dlrm.data.preparing.manifest import PreparedManifest, prepared_fingerprint
from tfrs_dlrm.data.preparing.profiling.column_profile import Profile
from tfrs_dlrm.schema import Schema

_NEW = """
SELECT sum(c.count) FILTER (WHERE k.value IS NULL) / sum(c.count)
FROM read_parquet($1) c LEFT JOIN known k ON c.value = k.value WHERE c.value <> $2
"""


def new_shares(directory: str, profile: Profile, schema: Schema, before: str) -> dict[str, float]:
    """Returns the share of new values of each feature with a vocabulary; none of a log on a base beside its chain.

    On a chain, the profile knows since when each value has its row. The counts of a log without a base are compared
    with the earlier vocabulary, which is the same for all features of a table; on a base they are those of all days.

    Args:
      directory: of the log, local.
      profile: of the log.
      schema: of the log.
      before: the earlier prepared directory, local.
    """
    chain = [link.fingerprint for link in PreparedManifest.load(directory).chain]
    fingerprint = prepared_fingerprint(before)
    found: dict[str, float] = {}
    for f in schema.categorical:
        column = profile.column(f.name)
        if column is None or column.out_of_vocabulary is None or column.kind == "cross":
            continue
        if fingerprint in chain and column.since:
            later = column.since[chain.index(fingerprint) + 1 :]
            found[f.name] = sum(later) + column.out_of_vocabulary
        elif not chain and os.path.isfile(counts_path(directory, f.table)) and _has_vocabulary(before, f.table):
            found[f.name] = _not_known(directory, before, f.table)
    return found


def _has_vocabulary(directory: str, table: str) -> bool:
    return os.path.isfile(os.path.join(directory, "vocabulary", f"{table}.txt"))


def _not_known(directory: str, before: str, table: str) -> float:
    with duckdb.connect(":memory:", config={"memory_limit": "800MB"}) as connection:
        known = pa.table({"value": pa.array(read_vocabulary(before, table), pa.string())})
        connection.register("known", known)
        row = connection.execute(_NEW, [counts_path(directory, table), MISSING_TEXT]).fetchone()
    return float(row[0] or 0.0) if row else 0.0
