"""Columns in the names of directories, as Hive and Spark write them: `dt=2026-11-01/part-00000.parquet`."""

from __future__ import annotations

import urllib.parse

from tfrs_dlrm.data.raw.raw_files import absolute

_MISSING = "__HIVE_DEFAULT_PARTITION__"


def partitions(path: str) -> dict[str, str | None]:
    """Returns the columns in the directories of a file's path; None is a missing value, the innermost name counts."""
    pairs = [part.partition("=") for part in absolute(path).split("/")[:-1] if "=" in part]
    unquote = urllib.parse.unquote
    return {unquote(key): None if value == _MISSING else unquote(value) for key, _, value in pairs if key}
