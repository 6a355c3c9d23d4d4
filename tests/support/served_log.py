"""A log with features that only training has, some of whose rows have their serving values; prepared once."""

import atexit
import shutil
import tempfile
from functools import cache

import numpy as np
import pandas as pd

import tfrs_dlrm as td
from tfrs_dlrm.schema import CategoricalFeature, DenseFeature, Label, Schema, Table, Time

SHOWN = "2024-05-06T07:08:09"
ONLY = {"training_only": True}
SCHEMA = Schema(
    Label("y"),
    dense=(
        DenseFeature("price"),
        DenseFeature("position", transform="standardize", serving_value=1, **ONLY),
        DenseFeature("delay", indicator=True, **ONLY),  # None is a missing value
    ),
    categorical=(
        CategoricalFeature("spot", "position", "buckets", edges=(1, 3), serving_value=1, **ONLY),
        CategoricalFeature("place", serving_value="p1", **ONLY),
        CategoricalFeature("slot", encoding="ids", dtype="int64", serving_value=3, **ONLY),
        CategoricalFeature("shown", time=Time(("hour", "days")), serving_value=SHOWN, edges=(0, 9), **ONLY),
        CategoricalFeature("user"),
        CategoricalFeature("site"),
        CategoricalFeature(cross=("place", "site")),
        CategoricalFeature(cross=("shown_hour", "user"), encoding="hash"),
    ),
    tables=(Table("slot", vocabulary_size=7), Table("shown_hour_x_user", vocabulary_size=11)),
)
ROWS, SERVED = 90, 12  # rows of the log, and how many of them have the serving values


def make(seed=0):
    rng = np.random.default_rng(seed)
    rows = pd.DataFrame(
        {
            "y": rng.integers(0, 2, ROWS),
            "price": rng.normal(size=ROWS).astype(np.float32),
            "position": rng.integers(1, 6, ROWS),
            "delay": np.where(np.arange(ROWS) % 3, rng.normal(size=ROWS), np.nan),
            "place": [f"p{k}" for k in rng.integers(0, 3, ROWS)],
            "slot": rng.integers(0, 7, ROWS),
            "shown": [f"2024-05-{d:02}T{h:02}:00:00" for d, h in rng.integers(1, 24, (ROWS, 2))],
            "user": [f"u{k}" for k in rng.integers(0, 4, ROWS)],
            "site": [f"s{k}" for k in rng.integers(0, 5, ROWS)],
        }
    )
    almost = as_served(rows[SERVED : SERVED + 1]).assign(delay=-1.0)  # a number, although -1 is a missing id
    return pd.concat([as_served(rows[:SERVED]), almost, rows[SERVED + 1 :]], ignore_index=True)


def as_served(rows):
    """The rows with the serving values in their columns; `delay` is missing."""
    return rows.assign(position=1, delay=np.nan, place="p1", slot=3, shown=SHOWN)


@cache
def prepared():
    """The training rows, and the directory of their prepared data, with other rows to evaluate."""
    rows, data = make(), tempfile.mkdtemp(prefix="served_log-")
    atexit.register(shutil.rmtree, data, ignore_errors=True)
    td.prepare(SCHEMA, rows, f"{data}/data", eval_inputs=make(1))
    return rows, f"{data}/data"
