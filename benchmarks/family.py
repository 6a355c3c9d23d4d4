"""Models on planted data whose best possible AUC is known, for models of each kind: do they rank as theory says?

make bench-family     # 20 minutes; --rows=100000 --seeds=1 is quicker

Independent categorical fields, whose values have effects that average to zero. Three logs:

main       a sum of one effect for each field
pairwise   and inner products of latent vectors of pairs of fields
crosses    and products of one effect of each of three fields, which no sum over pairs explains

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

FIELDS, VALUES, LATENT = 8, 4, 3
# Standard deviations of the parts of the logit.
STD = {"main": 1.0, "pairwise": 1.0, "crosses": 1.0}
TRIPLES = ((0, 1, 2), (3, 4, 5), (5, 6, 7))
_FITTED = 100_000  # rows
KINDS = {"logistic_regression": "additive", "matrix_factorization": "two", "factorization_machine": "pairs"}


def planted(log: str, rows: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ids [rows, FIELDS], labels, and the logit that they were drawn from."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, VALUES, (rows, FIELDS))
    logits = _scaled(sum(_centred(rng, 1)[ids[:, f], 0] for f in range(FIELDS)), STD["main"]) - 0.5
    latent = [_centred(rng, LATENT) for _ in range(FIELDS)]
    pairs = [latent[f][ids[:, f]] * latent[g][ids[:, g]] for f in range(FIELDS) for g in range(f)]
    triples = [np.prod([_centred(rng, 1)[ids[:, f], 0] for f in triple], axis=0) for triple in TRIPLES]
    if log != "main":
        logits += _scaled(np.sum(pairs, axis=(0, 2)), STD["pairwise"])
    if log == "crosses":
        logits += _scaled(np.sum(triples, axis=0), STD["crosses"])
    labels = rng.random(rows) < 1 / (1 + np.exp(-logits))
    return ids, labels.astype(int), logits


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


def _centred(rng: np.random.Generator, width: int) -> np.ndarray:
    """[VALUES, width] that average to zero over the values."""
    effects = rng.normal(size=(VALUES, width))
    return effects - effects.mean(axis=0)


def _scaled(part: np.ndarray, std: float) -> np.ndarray:
    return part * (std / part.std())


def kind(label: str) -> str:
    """What a model can express."""
    return KINDS.get(label.split(":")[0], "all")


def prepared(log: str, directory: str, rows: int) -> tuple[str, dict[str, float]]:
    """The prepared directory of a log, and the best AUC of each kind of model on the odd evaluation rows."""
    import tfrs_dlrm as td
    from tfrs_dlrm.metrics import exact_auc

    ids, labels, logits = planted(log, rows + rows // 5, seed=7)
    some, odd = slice(0, min(rows, _FITTED)), slice(rows + 1, None, 2)
    columns = {"additive": ids, "two": with_pairs(ids[:, :2]), "pairs": with_pairs(ids)}
    scores = {name: nearest(x[some], logits[some], x[odd]) for name, x in columns.items()} | {"all": logits[odd]}
    best = {name: exact_auc(labels[odd], values) for name, values in scores.items()}
    output = os.path.join(directory, "prepared")
    if not os.path.isdir(output):
        os.makedirs(directory, exist_ok=True)
        files = [os.path.join(directory, name) for name in ("train.csv", "eval.csv")]
        for file, part in zip(files, (slice(0, rows), slice(rows, None)), strict=True):
            header = ",".join(["y", *(f"f{i}" for i in range(FIELDS))])
            np.savetxt(file, np.column_stack([labels[part], ids[part]]), "%d", ",", header=header, comments="")
        schema = td.Schema(td.Label("y"), categorical=tuple(td.CategoricalFeature(f"f{i}") for i in range(FIELDS)))
        td.prepare(schema, files[:1], output, eval_inputs=files[1:])
    return output, best


def recipe(data: str, rows: int) -> object:
    from tfrs_dlrm.config import DataConfig, DLRMConfig, OptimizerConfig, RunConfig, TrainConfig

    steps = 4 * rows // 1024
    return RunConfig(
        data=DataConfig(path=data),
        model=DLRMConfig(embedding_dim=16, bottom_mlp=(16,), top_mlp=(128, 64, 1)),
        optimizer=OptimizerConfig(
            dense="adam", learning_rate=0.003, embedding="adagrad", embedding_learning_rate=0.05, warmup_steps=20,
            decay_start_step=steps // 2, decay_steps=steps - steps // 2, decay_power=1.0,
        ),
        train=TrainConfig(batch_size=1024, steps=steps, eval_every_steps=steps, tensorboard=False),
    )  # fmt: skip


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
