"""Models on planted data whose best possible AUC is known, for models of each kind: do they rank as theory says?

make bench-family     # 20 minutes; --rows=100000 --seeds=1 is quicker

The logs are main, pairwise and crosses of `planted.py`.

What a model can reach at best on the evaluation rows is `planted` in the table. For those with an MLP or cross network
it is the AUC of the logit that the labels were drawn from. For logistic regression it is that of the model of its
kind (one effect for each value) that is nearest to the true probabilities, found by scikit-learn; for a factorization
machine likewise, with an effect for each pair of values too, and for matrix factorization with those of two fields.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import study
from absl import app, flags
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import OneHotEncoder

from quality.planted import VALUES, planted, prepare_log

study.define_flags(400_000, "Of each training log; a fifth more are for evaluation.", seeds=5)
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
    some, odd = slice(0, min(rows, _FITTED)), study.reported(rows)
    columns = {"additive": ids, "two": with_pairs(ids[:, :2]), "pairs": with_pairs(ids)}
    scores = {name: nearest(x[some], logits[some], x[odd]) for name, x in columns.items()} | {"all": logits[odd]}
    best = {name: exact_auc(labels[odd], values) for name, values in scores.items()}
    return prepare_log(directory, {"y": labels}, ids, rows), best


def compared(log: str, directory: str, rows: int, models: Sequence[str], seeds: int) -> dict[str, dict]:
    """By model: its AUC for each seed, and the AUC of its planted optimum."""
    data, best = prepared(log, directory, rows)
    outcomes = study.compared(study.recipe(data, rows), models, directory, seeds)
    return {
        label: {"auc": [x.metrics["auc"] for x in runs], "planted": best[kind(label)], "planted_all": best["all"]}
        for label, runs in outcomes.items()
    }


def table(models: Mapping[str, Mapping[str, Any]]) -> str:
    """The means over the seeds, their standard deviations, and the distances from the planted optimum."""
    lines = []
    for label, one in models.items():
        auc, planted_auc = np.array(one["auc"]), one["planted"]
        spread = f"{auc.std(ddof=1):.5f}" if len(auc) > 1 else ""
        means = f"{auc.mean():9.5f}{spread:>10}{planted_auc:10.5f}{planted_auc - auc.mean():13.5f}"
        lines.append(f"{label.split(':')[0]:<24}{means}")
    return "\n".join(lines)


def main(argv: list[str]) -> None:
    del argv
    run = study.Study("family")
    report: dict[str, Any] = run.report | {"logs": {}}
    for log in _LOGS.value:
        directory = run.directory(f"{log}-{run.rows}")
        report["logs"][log] = found = compared(log, directory, run.rows, _MODELS.value, run.seeds)
        print(f"\n{log:<24}{'AUC':>9}{'spread':>10}{'planted':>10}{'short of it':>13}")
        print(table(found))
        run.save(report)


if __name__ == "__main__":
    app.run(main)
