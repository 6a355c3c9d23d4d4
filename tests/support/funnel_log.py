"""A log of clicks, of the purchases that some of them led to, and of what was paid."""

import os

import numpy as np

from tfrs_dlrm.data.preparing.prepare import prepare
from tfrs_dlrm.schema import CategoricalFeature, DenseFeature, Label, Schema, Table

SCHEMA = Schema(
    label=Label("clicked"),
    more_labels=(
        Label("bought?", name="purchase", positive=("yes",), negative=("no",), loss_weight=0.5),
        Label("paid", task="regression"),
    ),
    dense=(DenseFeature("age", transform="standardize"),),
    categorical=(CategoricalFeature("user"), CategoricalFeature("item")),
    tables=(Table("user", 8), Table("item", 8)),
    weight="weight",
)


def write(path: str, rows: int, seed: int = 0) -> None:
    """A CSV; what was bought is known of clicks only, and what was paid of purchases only."""
    rng = np.random.default_rng(seed)
    users, items = rng.normal(0, 1, 30), rng.normal(0, 1, 20)
    with open(path, "w", encoding="utf-8") as f:
        f.write("clicked,bought?,paid,age,user,item,weight\n")
        for _ in range(rows):
            user, item, age = rng.integers(30), rng.integers(20), rng.normal(40, 10)
            clicked = rng.random() < 1 / (1 + np.exp(-(users[user] + items[item])))
            bought = rng.random() < 1 / (1 + np.exp(-(2 * items[item] - users[user])))
            paid = 100 + 20 * items[item] + (age - 40) + rng.normal(0, 5)
            purchase = ("yes" if bought else "no") if clicked else ""
            price = f"{paid:.2f}" if clicked and bought else ""
            f.write(f"{int(clicked)},{purchase},{price},{age:.1f},u{user},i{item},{rng.choice([0.5, 1, 2])}\n")


def make(directory: str, rows: int = 6000, seed: int = 0, schema: Schema = SCHEMA) -> str:
    """Writes and prepares a log below `directory`; returns the prepared directory."""
    os.makedirs(directory, exist_ok=True)
    raw = os.path.join(directory, "funnel.csv")
    write(raw, rows, seed)
    prepared = os.path.join(directory, "prepared")
    prepare(schema, [raw], prepared, eval_fraction=0.25)
    return prepared
