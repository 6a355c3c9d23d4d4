"""The logs of three days, in which values come and go; and their vocabularies by a plain loop."""

import collections
import os
from collections.abc import Sequence

import numpy as np
import pandas as pd

from tfrs_dlrm.data.encoding.vocabulary import read_vocabulary
from tfrs_dlrm.schema import CategoricalFeature, DenseFeature, Label, Schema, Table

MAX_SIZE, MIN_COUNT = 14, 3
SCHEMA = Schema(
    Label("y"),
    dense=(DenseFeature("price", transform="standardize", fill_value="mean"),),
    categorical=(
        CategoricalFeature("site", min_count=MIN_COUNT, max_size=MAX_SIZE),
        CategoricalFeature("referrer", table="site", min_count=MIN_COUNT, max_size=MAX_SIZE),
        CategoricalFeature("tags", separator="|", min_count=2),
        CategoricalFeature("user", encoding="hash"),
        CategoricalFeature("width", encoding="buckets", buckets=4),
    ),
    tables=(Table("site", 4), Table("tags", 4), Table("user", 4, vocabulary_size=20), Table("width", 4)),
)


def day(number: int, rows: int = 240) -> pd.DataFrame:
    """The log of a day. About a third of the values are new each day, and as many do not come again."""
    rng = np.random.default_rng(number)
    shift = 7 * number

    def values(letter: str, size: int) -> list[str]:
        return [f"{letter}é{shift + k}" for k in np.minimum(rng.zipf(1.4, size), 20)]

    return pd.DataFrame(
        {
            "y": rng.integers(0, 2, rows),
            "price": rng.normal(10 * number, 1 + number, rows).round(2),
            "site": np.where(rng.random(rows) < 0.05, "", values("s", rows)),
            "referrer": values("s", rows),
            "tags": ["|".join(values("t", rng.integers(1, 4))) for _ in range(rows)],
            "user": [f"u{k}" for k in rng.integers(0, 50, rows)],
            "width": rng.normal(number, 1, rows).round(3),
        }
    )


def rows_of(directory: str | os.PathLike, table: str) -> dict[str, int]:
    """The row of each value of a table in a prepared directory."""
    return {value: row for row, value in enumerate(read_vocabulary(str(directory), table), 1)}


def occurrences(log: pd.DataFrame, table: str) -> collections.Counter:
    """How often each value of a table is in a log; a missing one is a value too."""
    if table == "tags":
        return collections.Counter(value for text in log["tags"] for value in text.split("|"))
    return collections.Counter(value or "<missing>" for value in [*log["site"], *log["referrer"]])


def vocabularies(
    days: Sequence[collections.Counter], min_count: int, max_size: int | None, factor: float
) -> list[dict[str, int]]:
    """The rows of the values after each day: one value at a time, in the words of the rule."""
    counts: dict[str, float] = {}
    rows: dict[str, int] = {}
    found = []
    for today in days:
        counts = {v: counts.get(v, 0.0) * factor + today.get(v, 0) for v in {**counts, **today}}
        waiting = [v for v in counts if v not in rows and counts[v] >= min_count]
        for value in sorted(waiting, key=lambda v: (-counts[v], v.encode())):
            if max_size is None or len(rows) < max_size:
                rows[value] = len(rows) + 1
                continue
            weakest = min(rows, key=lambda v: (counts[v], -rows[v]))
            if counts[value] <= counts[weakest]:
                break
            rows[value] = rows.pop(weakest)
        found.append(dict(rows))
    return found
