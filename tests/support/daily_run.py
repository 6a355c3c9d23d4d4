"""A run on the first of three days, each of which is prepared on the one before."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import tf_keras as keras
from daily_logs import SCHEMA, day, rows_of

import tfrs_dlrm as td
from tfrs_dlrm.config import DataConfig, DLRMConfig, OptimizerConfig, RunConfig, TrainConfig
from tfrs_dlrm.schema import Schema
from tfrs_dlrm.training.factory import load_run

# The tags, whose table grows, are stored as quotients and remainders.
TABLES = tuple(dataclasses.replace(t, remainders=4) if t.name == "tags" else t for t in SCHEMA.tables)


def make(root: Path) -> Path:
    """Prepares the days in `root/1`, `root/2` and `root/3`, and trains `root/run` on the first; returns `root`."""
    td.prepare(dataclasses.replace(SCHEMA, tables=TABLES), day(1), str(root / "1"))
    for n in (2, 3):
        td.prepare(None, day(n), str(root / str(n)), base=str(root / str(n - 1)), half_life=1, eval_inputs=day(n + 10))
    run = RunConfig(
        DataConfig(path=str(root / "1")),
        DLRMConfig(embedding_dim=4, bottom_mlp=(4,), top_mlp=(8, 1)),
        OptimizerConfig(learning_rate=0.01, embedding_learning_rate=0.1),
        TrainConfig(batch_size=40, epochs=3, tensorboard=False),
    )
    td.train_and_evaluate(run, str(root / "run"))
    return root


def same_rows(days: Path, table: str, now: int) -> list[int]:
    """The rows that have had one value on all days up to `now`, and row 0."""
    first = rows_of(days / "1", table)
    later = [rows_of(days / str(n), table) for n in range(2, now + 1)]
    return [0, *(row for value, row in first.items() if all(rows.get(value) == row for rows in later))]


def known_only(days: Path, frame: pd.DataFrame, now: int) -> pd.DataFrame:
    """The rows of a log, with values that Monday does not know, or that have lost their row since, made unseen."""
    first, last = (
        {t: {v for v, row in rows_of(days / n, t).items() if row in same_rows(days, t, now)} for t in ("site", "tags")}
        for n in ("1", str(now))
    )

    def seen(value, table):
        return value if (value or "<missing>") in first[table] & last[table] else "never"

    tags = ["|".join(seen(tag, "tags") for tag in text.split("|")) for text in frame["tags"]]
    return frame.assign(
        site=[seen(v, "site") for v in frame["site"]], referrer=[seen(v, "site") for v in frame["referrer"]], tags=tags
    )


def compiled(directory: str, remainders: int = 4, replicate_below: int | None = None) -> td.DLRM:
    """A new model of a day, with other weights than the run."""
    schema = Schema.load(f"{directory}/schema.json")
    tables = (dataclasses.replace(t, remainders=remainders) if t.remainders else t for t in schema.tables)
    schema = dataclasses.replace(schema, tables=tuple(tables))
    model = td.DLRM(schema, (4,), (8, 1), seed=9, replicate_below=replicate_below)
    model.compile(keras.optimizers.Adam(0.01), td.RowWiseAdagrad(0.1), metrics=[])
    return model


def moved(days: Path, now: int) -> td.DLRM:
    """A model of a later day, under the strategy in scope, that has begun with the weights of the run."""
    model = compiled(str(days / str(now)), replicate_below=0)
    td.warm_start(model, str(days / str(now)), str(days / "run"), "latest")
    return model


def logits(days: Path, now: int, model: td.DLRM | None = None) -> np.ndarray:
    """The logits of Monday's rows, with values that are known on all days up to `now`, by the run or by a model."""
    directory = days / ("run/encoder" if model is None else str(now))
    model = model or load_run(str(days / "run"), "latest")[0]
    return model.logits(td.Encoder.load(str(directory))(known_only(days, day(1), now))).numpy()
