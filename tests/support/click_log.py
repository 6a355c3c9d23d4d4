"""A small click log with every kind of feature, for tests of whole runs."""

import atexit
import os
import shutil
import tempfile
from functools import cache

import numpy as np

from tfrs_dlrm.data.preparing.prepare import prepare
from tfrs_dlrm.schema import CategoricalFeature, DenseFeature, Label, Schema, Table

SCHEMA = Schema(
    label=Label("clicked"),
    dense=(
        DenseFeature("price", transform="log1p"),
        DenseFeature("age", transform="standardize", fill_value="mean", indicator=True),
    ),
    categorical=(
        CategoricalFeature("site", min_count=2),
        CategoricalFeature("user", encoding="hash"),
        CategoricalFeature("slot", encoding="ids", dtype="int64"),
        CategoricalFeature("tags", separator="|", weights="tag_weights"),
    ),
    tables=(
        Table("site", 8),
        Table("user", 8, vocabulary_size=50),
        Table("slot", 8, vocabulary_size=5),
        Table("tags", 8, combiner="sqrtn"),
    ),
    weight="weight",
)


def write(path: str, rows: int, seed: int = 0) -> None:
    """A CSV in which site, price and tags say something about the click."""
    rng = np.random.default_rng(seed)
    with open(path, "w", encoding="utf-8") as f:
        f.write("clicked,price,age,site,user,slot,tags,tag_weights,weight\n")
        for _ in range(rows):
            site, slot = int(rng.zipf(1.5)), int(rng.integers(0, 6))
            price, tags = rng.exponential(5), rng.integers(0, 4, rng.integers(0, 4))
            logit = (site % 3 - 1) + 0.3 * np.log1p(price) + 0.8 * (tags == 1).sum() - 1
            age = "" if rng.random() < 0.2 else f"{rng.normal(40, 9):.1f}"
            click = int(rng.random() < 1 / (1 + np.exp(-logit)))
            names, weights = "|".join(f"t{t}" for t in tags), "|".join("1" if t else "0.5" for t in tags)
            user, weight = rng.integers(0, 200), rng.choice([0.5, 1, 2])
            f.write(f"{click},{price:.2f},{age},s{site},u{user},{slot},{names},{weights},{weight}\n")


def make(directory: str, rows: int = 3000, seed: int = 0, schema: Schema = SCHEMA) -> str:
    """Writes and prepares a log below `directory`, once per process; returns the prepared directory."""
    shutil.copytree(_made(rows, seed, schema), directory, dirs_exist_ok=True)
    return os.path.join(directory, "prepared")


@cache
def _made(rows: int, seed: int, schema: Schema) -> str:
    directory = tempfile.mkdtemp(prefix="click_log-")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    raw = os.path.join(directory, "log.csv")
    write(raw, rows, seed)
    prepare(schema, [raw], os.path.join(directory, "prepared"), eval_fraction=0.25)
    return directory
