"""A log of ratings that are linear in what is known of them, with noise of a known size."""

import os

import numpy as np

from tfrs_dlrm.data.preparing.prepare import prepare
from tfrs_dlrm.schema import CategoricalFeature, DenseFeature, Label, Schema, Table

MEAN, NOISE = 50.0, 2.0
SCHEMA = Schema(
    label=Label("rating", task="regression"),
    dense=(DenseFeature("price", transform="standardize"),),
    categorical=(CategoricalFeature("user"), CategoricalFeature("item")),
    tables=(Table("user", 8), Table("item", 8)),
    weight="weight",
)


def write(path: str, rows: int, seed: int = 0) -> None:
    """A CSV; the ratings have a mean of about `MEAN`, and nobody can predict them better than to `NOISE`."""
    rng = np.random.default_rng(seed)
    effects = [rng.normal(0, 5, 20), rng.normal(0, 5, 15)]
    with open(path, "w", encoding="utf-8") as f:
        f.write("rating,price,user,item,weight\n")
        for _ in range(rows):
            user, item, price = rng.integers(20), rng.integers(15), rng.normal(10, 3)
            rating = MEAN + effects[0][user] + effects[1][item] + price - 10 + rng.normal(0, NOISE)
            f.write(f"{rating:.3f},{price:.3f},u{user},i{item},{rng.choice([0.5, 1, 2])}\n")


def make(directory: str, rows: int = 6000, seed: int = 0, schema: Schema = SCHEMA) -> str:
    """Writes and prepares a log below `directory`; returns the prepared directory."""
    os.makedirs(directory, exist_ok=True)
    raw = os.path.join(directory, "ratings.csv")
    write(raw, rows, seed)
    prepared = os.path.join(directory, "prepared")
    prepare(schema, [raw], prepared, eval_fraction=0.25)
    return prepared
