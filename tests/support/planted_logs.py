"""A clean click log, and logs with one planted problem each."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from tfrs_dlrm.schema import CategoricalFeature, DenseFeature, Label, Schema, Table

SCHEMA = Schema(
    Label("y"),
    dense=(DenseFeature("price", transform="log1p"), DenseFeature("age")),
    categorical=(
        CategoricalFeature("site", min_count=2),
        CategoricalFeature("user"),
        CategoricalFeature("city", encoding="hash"),
        CategoricalFeature("tags", separator="|"),
    ),
    tables=(Table("city", 4, vocabulary_size=500),),
)


def clean(rows: int, seed: int) -> pd.DataFrame:
    """A log in which the label depends a little on site and price; sites and users have long tails."""
    rng = np.random.default_rng(seed)
    site, price = np.minimum(rng.zipf(1.4, rows), 3000), rng.lognormal(2, 1, rows)
    y = rng.random(rows) < 1 / (1 + np.exp(1.5 - 0.5 * (site % 3) - 0.2 * np.log(price)))
    return pd.DataFrame(
        {
            "y": y.astype(int),
            "price": price.round(2),
            "age": np.where(rng.random(rows) < 0.1, np.nan, rng.normal(40, 9, rows).round()),
            "site": [f"s{k}" for k in site],
            "user": [f"u{k}" for k in rng.integers(0, 2000, rows)],
            "city": [f"c{k}" for k in rng.zipf(2, rows) % 97],
            "tags": ["|".join(f"t{t}" for t in rng.integers(0, 8, n)) for n in rng.integers(0, 4, rows)],
        }
    )


def _with(**columns: Callable[[pd.DataFrame], object]) -> Callable[[pd.DataFrame], pd.DataFrame]:
    return lambda log: log.assign(**columns)


def _half(log: pd.DataFrame) -> np.ndarray:
    return np.arange(len(log)) % 2 == 0


# By name: what spoils the log, the kind of the finding, and its column.
PROBLEMS = {
    "a number that is the label": (_with(price=lambda log: log.price + 1000 * log.y), "leakage", "price"),
    "values that know the label": (
        _with(city=lambda log: np.where(log.y == 1, "bought", log.city)),
        "leakage",
        "city",
    ),
    "filled in after the label": (
        _with(age=lambda log: np.where(log.y == 1, log.age.fillna(40), np.nan)),
        "leakage",
        "age",
    ),
    "a constant number": (_with(price=lambda log: 7.5), "constant", "price"),
    "a constant value": (_with(site=lambda log: "s1"), "constant", "site"),
    "a column without values": (_with(age=lambda log: np.nan), "constant", "age"),
    "values that number the rows": (_with(user=lambda log: [f"r{k}" for k in range(len(log))]), "row id", "user"),
    "numbers that number the rows": (_with(price=lambda log: np.arange(len(log))), "row id", "price"),
    "a label that moved": (lambda log: log[(log.y == 1) | _half(log)], "label", "y"),
    "numbers that moved": (_with(price=lambda log: log.price * 3), "distribution", "price"),
    "frequencies that moved": (
        _with(city=lambda log: np.where(_half(log), "c3", log.city)),
        "distribution",
        "city",
    ),
    "more missing": (_with(age=lambda log: np.where(_half(log), np.nan, log.age)), "missing", "age"),
    "more new values": (_with(user=lambda log: np.where(_half(log), "n" + log.user, log.user)), "new values", "user"),
}
