"""The rate of purchases after clicks, over all rows: learned from all rows (ESMM), and from clicked rows alone.

make bench-tasks                                # 10 minutes, with tasks.py
PYTHONPATH=benchmarks python -m quality.conversions --quick        # a smoke test, whose numbers mean nothing

Items that are seldom clicked are seldom bought after a click too, and the log says little of them: each item has a
latent number q, each user a number u, and

    click = sigmoid(2 q + 0.8 u - 4)           purchase after a click = sigmoid(q + 0.5 u + 0.3 of the item - 1.5)

A purchase is known of clicked rows alone. `rate` is the mean predicted rate over all evaluation rows, divided by the
mean of the planted one: 1 is calibrated. `correlation` is that of its logit with the planted logit.
"""

import os
from typing import Any

import numpy as np
import pandas as pd
import study
from absl import app

study.define_flags(200_000, "Of the training log; a quarter more are for evaluation.")

USERS, ITEMS = 300, 1000
PASSES = (1, 2, 3, 5, 8)
MODELS = ("all rows (ESMM)", "two labels, purchases of clicked rows", "clicked rows alone")


def planted(rows: int, seed: int) -> tuple[pd.DataFrame, np.ndarray]:
    """A log, and the planted rate of each row."""
    rng = np.random.default_rng(seed)
    q, own, u = rng.normal(size=ITEMS), rng.normal(size=ITEMS), rng.normal(size=USERS)
    items, users = rng.integers(0, ITEMS, rows), rng.integers(0, USERS, rows)
    rate = _sigmoid(q[items] + 0.5 * u[users] + 0.3 * own[items] - 1.5)
    clicked = rng.random(rows) < _sigmoid(2 * q[items] + 0.8 * u[users] - 4)
    bought = np.where(clicked, rng.random(rows) < rate, np.nan)
    return pd.DataFrame({"user": users, "item": items, "clicked": clicked.astype(int), "bought": bought}), rate


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def trained_rate(model: str, log: pd.DataFrame, rows: int, directory: str) -> tuple[int, np.ndarray]:
    """Trains a model on the first rows of a log, for the passes with the best log loss on every second other row.

    Returns:
      The passes, and the rate of each row after the first ones.
    """
    import tfrs_dlrm as td

    features = tuple(td.CategoricalFeature(name, dtype="string") for name in ("user", "item"))
    label, more = td.Label("clicked"), (td.Label("bought", after="clicked" if model == MODELS[0] else ""),)
    train, held_out = log[:rows], log[rows:]
    known = np.arange(len(held_out)) % 2 == 0
    if model == MODELS[2]:
        label, more, train = td.Label("bought"), (), train[train["clicked"] == 1]
        known &= held_out["clicked"] == 1
    data = os.path.join(directory, "data")
    if not os.path.isdir(data):
        td.prepare(td.Schema(label, categorical=features, more_labels=more), train, data)
    schema, encoder = td.Schema.load(os.path.join(data, "schema.json")).with_dim(8), td.Encoder.load(data)
    batches = [encoder(_tensors(part)) for part in _parts(held_out)]
    losses, answers = [], []
    for passes in PASSES:
        found = td.EmbeddingMLP(schema, (32, 16, 1), seed=1, sharing="towers" if more else "shared_bottom")
        _fit(found, data, passes * len(train) // 512)
        answers.append(np.concatenate([found(batch).numpy().reshape(-1, len(schema.labels)) for batch in batches]))
        losses.append(_loss(model, answers[-1][known], held_out[known]))
    best = answers[int(np.argmin(losses))]
    rate = best[:, 1] / best[:, 0] if model == MODELS[0] else best[:, -1]
    return PASSES[int(np.argmin(losses))], rate


def _loss(model: str, answers: np.ndarray, log: pd.DataFrame) -> float:
    """The sum of the log losses of a model's labels, where they are known."""
    labels = [log["bought"].fillna(0) if model == MODELS[0] else log["bought"]]
    if answers.shape[1] > 1:
        labels.insert(0, log["clicked"])
    terms = [np.where(y == 1, np.log(p), np.log1p(-p))[y.notna()] for y, p in zip(labels, answers.T, strict=True)]
    return -sum(float(term.mean()) for term in terms)


def _fit(model: Any, data: str, steps: int) -> None:
    import tf_keras as keras

    import tfrs_dlrm as td

    rate = keras.optimizers.schedules.PolynomialDecay(0.003, steps, 0.0)
    model.compile(keras.optimizers.Adam(rate), td.LazyAdam(0.003))
    model.fit(td.dataset(data, 512).repeat(), steps_per_epoch=steps, verbose=0)


def _parts(log: pd.DataFrame) -> list[pd.DataFrame]:
    return [log[begin : begin + 20_000] for begin in range(0, len(log), 20_000)]


def _tensors(log: pd.DataFrame) -> dict[str, Any]:
    import tensorflow as tf

    return {name: tf.constant(log[name].to_numpy(str)) for name in ("user", "item")}


def main(argv: list[str]) -> None:
    del argv
    run = study.Study("conversions", quick_rows=20_000)  # of which 1,300 are clicked
    rows, found_by_seed = run.rows, []
    print(f"\n{rows:,} rows; the rate over all rows, predicted / planted, and correlation of the logits")
    for seed in range(run.seeds):
        log, rate = planted(rows + rows // 4, seed)
        log = log.astype({"user": str, "item": str})
        clicked = log["clicked"] == 1
        means = {"clicks": clicked.mean(), "of_clicked": rate[clicked].mean(), "of_all": rate.mean()}
        print(
            f"seed {seed}: planted {means['of_clicked']:.3f} of {means['clicks']:.3f} clicked, {rate.mean():.3f} of all"
        )
        found = {}
        for i, model in enumerate(MODELS):
            passes, answer = trained_rate(model, log, rows, run.directory(f"{rows}-{seed}-{i}"))
            logits = [np.log(x / (1 - x)) for x in (np.clip(answer, 1e-6, 1 - 1e-6), rate[rows:])]
            found[model] = float(answer.mean() / rate[rows:].mean()), float(np.corrcoef(logits)[0, 1]), passes
            print(f"  {model:<40}{found[model][0]:8.3f}{found[model][1]:8.3f}   after {passes} passes")
        found_by_seed.append({"planted": means, "models": found})
    run.save(run.report | {"seeds": found_by_seed})


if __name__ == "__main__":
    app.run(main)
