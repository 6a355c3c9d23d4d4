"""Models on planted data whose best possible AUC is known, for models of each kind: do they rank as theory says?

make bench-family     # 20 minutes; --rows=100000 --seeds=1 is quicker

The logs are main, pairwise and crosses of `planted.py`.

What a model can reach at best on the evaluation rows is `planted` in the table. For those with an MLP or cross network
it is the AUC of the logit that the labels were drawn from. For logistic regression it is that of the model of its
kind (one effect for each value) that is nearest to the true probabilities, found by scikit-learn; for a factorization
machine likewise, with an effect for each pair of values too, and for matrix factorization with those of two fields.
"""

import json
import os
from collections.abc import Sequence

import numpy as np
from absl import app, flags
from machine import describe, machine
from planted import VALUES, planted, prepare_log, recipe
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import OneHotEncoder

_ROWS = flags.DEFINE_integer("rows", 400_000, "Of each training log; a fifth more are for evaluation.")
_SEEDS = flags.DEFINE_integer("seeds", 5, "Runs of each model.")
_OUTPUT = flags.DEFINE_string("output", "benchmarks/results-family", "Of logs, runs and results.")
_LOGS = flags.DEFINE_list("logs", ["main", "pairwise", "crosses"], "Which logs.")
_MODELS = flags.DEFINE_list(
    "models",
    [
        "logistic_regression",
        "matrix_factorization:model.user=f0:model.item=f1",
        "factorization_machine",
        "deepfm",
        "wide_and_deep",
        "mlp",
        "dcn",
        "gdcn",
        "final_mlp:model.first_mlp=128-64:model.second_mlp=128-64",
        "mask_net:model.mask_units=64",
        "auto_int:model.attention_dim=16",
        "xdeepfm:model.interaction_maps=32-32",
        "final_net",
        "dlrm",
    ],
    "Which models; each as train/compare.py takes it.",
)

_FITTED = 100_000  # rows
KINDS = {"logistic_regression": "additive", "matrix_factorization": "two", "factorization_machine": "pairs"}


def nearest(ids: np.ndarray, logits: np.ndarray, of: np.ndarray) -> np.ndarray:
    """What the best sum of one effect for each value of each column says of the rows `of`.

    It is fitted to the probabilities themselves, not to labels: each row counts as a click and as none, by how probable
    either is.
    """
    encoder = OneHotEncoder(handle_unknown="ignore").fit(ids)
    probabilities = 1 / (1 + np.exp(-logits))
    inputs, labels = encoder.transform(np.concatenate([ids, ids])), np.repeat([1, 0], len(ids))
    weights = np.concatenate([probabilities, 1 - probabilities])
    fitted = LogisticRegression(C=1e4, max_iter=1000).fit(inputs, labels, weights)
    return fitted.decision_function(encoder.transform(of))


def with_pairs(ids: np.ndarray) -> np.ndarray:
    """Ids, and behind them a column for each pair of fields."""
    pairs = [ids[:, f] * VALUES + ids[:, g] for f in range(ids.shape[1]) for g in range(f)]
    return np.column_stack([ids, *pairs])


def kind(label: str) -> str:
    """What a model can express."""
    return KINDS.get(label.split(":")[0], "all")


def prepared(log: str, directory: str, rows: int) -> tuple[str, dict[str, float]]:
    """The prepared directory of a log, and the best AUC of each kind of model on the odd evaluation rows."""
    from tfrs_dlrm.metrics import exact_auc

    ids, labels, logits = planted(log, rows + rows // 5, seed=7)
    some, odd = slice(0, min(rows, _FITTED)), slice(rows + 1, None, 2)
    columns = {"additive": ids, "two": with_pairs(ids[:, :2]), "pairs": with_pairs(ids)}
    scores = {name: nearest(x[some], logits[some], x[odd]) for name, x in columns.items()} | {"all": logits[odd]}
    best = {name: exact_auc(labels[odd], values) for name, values in scores.items()}
    return prepare_log(directory, {"y": labels}, ids, rows), best


def compared(log: str, directory: str, rows: int, models: Sequence[str], seeds: int) -> dict[str, dict]:
    """By model: the mean and spread of its AUC, and that of its planted optimum."""
    from tfrs_dlrm.tools import comparison

    data, best = prepared(log, directory, rows)
    contestants = comparison.contestants(recipe(data, rows), models)
    options = comparison.ComparisonOptions(seeds=seeds, measure=False)
    outcomes, costs = comparison.compare(contestants, os.path.join(directory, "runs"), options, print)
    found = comparison.summary(outcomes, costs)
    return {label: one | {"planted": best[kind(label)], "planted_all": best["all"]} for label, one in found.items()}


def main(argv: list[str]) -> None:
    del argv
    report: dict = {"machine": machine(), "logs": {}}
    print(describe(report["machine"]))
    for log in _LOGS.value:
        directory = os.path.join(_OUTPUT.value, f"{log}-{_ROWS.value}")
        report["logs"][log] = found = compared(log, directory, _ROWS.value, _MODELS.value, _SEEDS.value)
        print(f"\n{log:<24}{'AUC':>9}{'spread':>10}{'planted':>10}{'short of it':>13}")
        for label, one in found.items():
            spread = "" if one["auc_std"] is None else f"{one['auc_std']:.5f}"
            short = one["planted"] - one["auc_mean"]
            print(f"{label.split(':')[0]:<24}{one['auc_mean']:9.5f}{spread:>10}{one['planted']:10.5f}{short:13.5f}")
        with open(os.path.join(_OUTPUT.value, "results.json"), "w", encoding="utf-8") as f:
            json.dump(report, f, indent=2)


if __name__ == "__main__":
    app.run(main)
