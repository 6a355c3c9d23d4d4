"""The first run of a log that nobody tuned to: infer, prepare, the default recipe, a test set, beside a linear model.

    PYTHONPATH=benchmarks python -m quality.first_run --train=adult.csv --test=adult-test.csv --label=income --seeds=3

--recipe=auto takes configs/auto.py, with --budget for each seed.
Without --test, a seeded fifth of the rows is the test set; with --sort=COLUMN it is the last fifth by that column. The
linear model is scikit-learn's logistic regression on one-hot values (whole numbers among them, which may be ids),
standardized numbers and bins of their logarithms, its L2 chosen on a fifth of the training rows. Only the last line of
each model has seen the test rows.
"""

import dataclasses
import os
import tempfile

import numpy as np
import pandas as pd
from absl import app, flags
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import OneHotEncoder, StandardScaler

_TRAIN = flags.DEFINE_string("train", None, "CSV of the training rows, with a header.", required=True)
_TEST = flags.DEFINE_string("test", "", "CSV of the test rows; empty for a fifth of --train.")
_LABEL = flags.DEFINE_string("label", None, "Column of the label.", required=True)
_SORT = flags.DEFINE_string("sort", "", "The last fifth by this column is the test set.")
_DELIMITER = flags.DEFINE_string("delimiter", ",", "Between the fields.")
_SEEDS = flags.DEFINE_integer("seeds", 3, "Runs of the recipe.")
_FIRST_SEED = flags.DEFINE_integer("first_seed", 0, "Seed of the first run.")
_RECIPE = flags.DEFINE_string("recipe", "default", "Recipe of configs/: default or auto.")
_BUDGET = flags.DEFINE_string("budget", "10m", "For auto: the time of each run, trials and all.")
_LINEAR = flags.DEFINE_bool("linear", True, "Fits the linear model too.")
_STRENGTHS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)


def main(_: list[str]) -> None:
    """Prints a line for each run, for the linear model and for the constant."""
    train, test = logs()
    labels = test[_LABEL.value].to_numpy(float)
    share = train[_LABEL.value].mean()
    print(f"{len(train):,} training rows, {len(test):,} test rows, {labels.mean():.2%} of them 1")
    line("constant", labels, np.full(len(test), np.log(share / (1 - share))))
    if _LINEAR.value:
        line("logistic regression", labels, linear(train, test))
    for seed in range(_FIRST_SEED.value, _FIRST_SEED.value + _SEEDS.value):
        line(f"{_RECIPE.value} recipe, seed {seed}", labels, first_run(train, test, seed))


def logs() -> tuple[pd.DataFrame, pd.DataFrame]:
    """The training and test rows, with labels 0 and 1; of two texts, the rarer is 1."""
    train = pd.read_csv(_TRAIN.value, sep=_DELIMITER.value, skipinitialspace=True)
    if _TEST.value:
        test = pd.read_csv(_TEST.value, sep=_DELIMITER.value, skipinitialspace=True)
    elif _SORT.value:
        train = train.sort_values(_SORT.value, kind="stable", ignore_index=True)
        train, test = train[: len(train) * 4 // 5], train[len(train) * 4 // 5 :]
    else:
        in_test = np.random.default_rng(0).random(len(train)) < 0.2
        train, test = train[~in_test], train[in_test]
    train, test = train.reset_index(drop=True), test.reset_index(drop=True)
    if not pd.api.types.is_numeric_dtype(train[_LABEL.value]):
        positive = train[_LABEL.value].value_counts().index[-1]
        for log in (train, test):
            log[_LABEL.value] = log[_LABEL.value].str.rstrip(".").eq(positive).astype(int)
    return train, test


def linear(train: pd.DataFrame, test: pd.DataFrame) -> np.ndarray:
    """The logits of a tuned logistic regression."""
    label = train[_LABEL.value].to_numpy()
    x, others = features(train, test)
    held = np.random.default_rng(0).random(len(label)) < 0.2

    def fitted(strength: float, rows: np.ndarray) -> LogisticRegression:
        return LogisticRegression(C=strength, max_iter=500).fit(x[rows], label[rows])

    losses = [log_loss(label[held], fitted(c, ~held).decision_function(x[held])) for c in _STRENGTHS]
    return fitted(_STRENGTHS[int(np.argmin(losses))], np.ones(len(label), bool)).decision_function(others)


def features(train: pd.DataFrame, test: pd.DataFrame) -> list[sparse.csr_matrix]:
    """What the logistic regression reads of both."""
    columns = [c for c in train if c != _LABEL.value and train[c].nunique() < 0.5 * len(train)]
    numbers = [c for c in columns if pd.api.types.is_numeric_dtype(train[c]) and train[c].nunique() > 2]
    valued = [c for c in columns if c not in numbers or (train[c].dropna() % 1 == 0).all()]

    def parts(log: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
        logs = np.sign(log[numbers]) * np.log1p(log[numbers].abs())
        bins = np.floor(2 * logs).astype(str).add_prefix("log ")
        values = log[valued].astype(str)
        return log[numbers].fillna(train[numbers].mean()), pd.concat([values, bins], axis=1)

    encoder, scaler = OneHotEncoder(handle_unknown="ignore").fit(parts(train)[1]), StandardScaler()
    out = [encoder.transform(parts(log)[1]) for log in (train, test)]
    if numbers:
        scaler.fit(parts(train)[0])
        scaled = [scaler.transform(parts(log)[0]) for log in (train, test)]
        out = [sparse.hstack([a, b]) for a, b in zip(out, scaled, strict=True)]
    return [sparse.csr_matrix(matrix) for matrix in out]


def first_run(train: pd.DataFrame, test: pd.DataFrame, seed: int) -> np.ndarray:
    """The logits of the documented way: infer, prepare, train by the recipe."""
    import tfrs_dlrm as td
    from tfrs_dlrm.config import load_recipe
    from tfrs_dlrm.tools.search import search_and_train

    recipe = load_recipe(_RECIPE.value)
    recipe.search.budget = _BUDGET.value
    with tempfile.TemporaryDirectory() as directory:
        data, run = os.path.join(directory, "data"), os.path.join(directory, "run")
        schema = td.infer_schema(train, label=_LABEL.value).schema
        td.prepare(schema, train, data, eval_fraction=0.1, seed=seed)
        recipe.data.path = data
        recipe.train = dataclasses.replace(recipe.train, seed=seed, tensorboard=False)
        if recipe.search.candidates:
            result = search_and_train(recipe, run, say=lambda line: print(line, flush=True))
        else:
            result = td.train_and_evaluate(recipe, run)
        print(f"{result.reason}; best at step {result.best_step} of {result.step}")
        model = td.load_model(run)
        batches = td.dataset(test, 4096, encoder=data, split="eval")
        return np.concatenate([model.logits(batch[0]).numpy() for batch in batches])


def log_loss(labels: np.ndarray, logits: np.ndarray) -> float:
    """The mean log loss."""
    return float(np.mean(np.logaddexp(0, logits) - labels * logits))


def line(name: str, labels: np.ndarray, logits: np.ndarray) -> None:
    """Prints AUC, log loss and calibration."""
    from sklearn.metrics import roc_auc_score

    calibration = (1 / (1 + np.exp(-logits))).sum() / labels.sum()
    found = f"AUC {roc_auc_score(labels, logits):.4f}  log loss {log_loss(labels, logits):.4f}"
    print(f"{name:24} {found}  calibration {calibration:.3f}", flush=True)


if __name__ == "__main__":
    app.run(main)
