"""A raw log with every kind of feature."""

import numpy as np
import pandas as pd

from tfrs_dlrm.schema import CategoricalFeature, DenseFeature, Label, Schema, Table

SCHEMA = Schema(
    Label("y"),
    dense=(
        DenseFeature("row"),
        DenseFeature("price", transform="log1p", fill_value="mean", indicator=True),
        DenseFeature("age", transform="standardize", fill_value=30.0),
    ),
    categorical=(
        CategoricalFeature("site", min_count=2),
        CategoricalFeature("referrer", table="site", min_count=2),
        CategoricalFeature("slot", encoding="ids", dtype="int64", out_of_range="clip"),
        CategoricalFeature("user", encoding="hash", dtype="int64"),
        CategoricalFeature("tags", separator="|", weights="tag_weights", max_size=5),
        CategoricalFeature("words", separator=" ", encoding="hash", out_of_range="hash", table="words"),
    ),
    tables=(Table("slot", vocabulary_size=8), Table("user", vocabulary_size=50), Table("words", vocabulary_size=13)),
    weight="w",
)


def frame(rows=400, seed=0):
    """A raw log; `row` numbers its rows."""
    rng = np.random.default_rng(seed)

    def zipf(size):
        return np.minimum(rng.zipf(1.5, size), 40)

    tags = [[f"t{k}" for k in zipf(rng.integers(0, 4))] for _ in range(rows)]
    return pd.DataFrame(
        {
            "y": rng.integers(0, 2, rows),
            "w": rng.integers(1, 5, rows) / 4,
            "row": np.arange(rows),
            "price": np.where(rng.random(rows) < 0.3, np.nan, rng.integers(-2, 500, rows) / 4),
            "age": np.where(rng.random(rows) < 0.1, np.nan, rng.integers(18, 80, rows)),
            "site": np.where(rng.random(rows) < 0.1, "", [f"säite {k}" for k in zipf(rows)]),
            "referrer": [f"säite {k}" for k in zipf(rows)],
            "slot": pd.array(rng.integers(-2, 12, rows), "Int64"),
            "user": pd.array(zipf(rows), "Int64"),
            "tags": ["|".join(t) for t in tags],
            "tag_weights": ["|".join(f"{w:.2f}" for w in rng.random(len(t))) for t in tags],
            "words": [" ".join(f"w{k}" for k in zipf(rng.integers(0, 5))) for _ in range(rows)],
        }
    ).assign(user=lambda f: f["user"].mask(rng.random(rows) < 0.2))


def spoil(path):
    """Puts bad lines into a CSV file of `frame`, and returns them as (line, column, part of the reason, text)."""
    lines = path.read_text(encoding="utf-8").splitlines()
    good = lines[1].split(",")

    def line(**changes):
        names = lines[0].split(",")
        return ",".join(changes.get(n, v) for n, v in zip(names, good, strict=True))

    bad = {
        10: ("", "13 fields, 12 are expected", line(words="a,b")),
        11: ("price", "'cheap' is not a finite", line(price="cheap")),
        90: ("y", "label 7 is neither 0 nor 1", line(y="7")),
        200: ("slot", "'x' is not a whole number", line(slot="x")),
        250: ("tag_weights", "1 weights for 2 values", line(tags="a|b", tag_weights="1")),
    }
    for number, (_, _, text) in sorted(bad.items()):
        lines.insert(number - 1, text)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return [(number, *what) for number, what in sorted(bad.items())]
