"""Models on planted data whose best possible AUC is known, for models of each kind: do they rank as theory says?

make bench-family     # 20 minutes; --rows=100000 --seeds=1 is quicker

Independent categorical fields, whose values have effects that average to zero. Three logs:

main       a sum of one effect for each field
pairwise   and inner products of latent vectors of pairs of fields
crosses    and products of one effect of each of three fields, which no sum over pairs explains

What a model can reach at best is the AUC of the part of the logit that its kind can express, on the evaluation rows:
one effect a field for logistic regression, pairs too for a factorization machine, everything for those with an MLP or a
cross network. That is `planted` in the table.
"""

import json
import os
from collections.abc import Sequence

import numpy as np
from absl import app, flags
from machine import describe, machine

_ROWS = flags.DEFINE_integer("rows", 400_000, "Of each training log; a fifth more are for evaluation.")
_SEEDS = flags.DEFINE_integer("seeds", 5, "Runs of each model.")
_OUTPUT = flags.DEFINE_string("output", "benchmarks/results-family", "Of logs, runs and results.")
_LOGS = flags.DEFINE_list("logs", ["main", "pairwise", "crosses"], "Which logs.")
_MODELS = flags.DEFINE_list(
    "models",
    ["logistic_regression", "factorization_machine", "deepfm", "mlp", "dcn", "dlrm"],
    "Which models; each as train/compare.py takes it.",
)

FIELDS, VALUES, LATENT = 8, 4, 3
# Standard deviations of the parts of the logit.
STD = {"main": 1.0, "pairwise": 1.0, "crosses": 1.0}
TRIPLES = ((0, 1, 2), (3, 4, 5), (5, 6, 7))
ADDITIVE, PAIRS = ("logistic_regression",), ("factorization_machine", "matrix_factorization")


def planted(log: str, rows: int, seed: int) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Ids [rows, FIELDS], labels, and the logit of each kind of model's best: `additive`, `pairs` and `all`."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, VALUES, (rows, FIELDS))
    main = _scaled(sum(_centred(rng, 1)[ids[:, f], 0] for f in range(FIELDS)), STD["main"])
    latent = [_centred(rng, LATENT) for _ in range(FIELDS)]
    pairs = [latent[f][ids[:, f]] * latent[g][ids[:, g]] for f in range(FIELDS) for g in range(f)]
    triples = [np.prod([_centred(rng, 1)[ids[:, f], 0] for f in triple], axis=0) for triple in TRIPLES]
    additive = main - 0.5
    with_pairs = additive + (_scaled(np.sum(pairs, axis=(0, 2)), STD["pairwise"]) if log != "main" else 0)
    everything = with_pairs + (_scaled(np.sum(triples, axis=0), STD["crosses"]) if log == "crosses" else 0)
    labels = rng.random(rows) < 1 / (1 + np.exp(-everything))
    return ids, labels.astype(int), {"additive": additive, "pairs": with_pairs, "all": everything}


def _centred(rng: np.random.Generator, width: int) -> np.ndarray:
    """[VALUES, width] that average to zero over the values."""
    effects = rng.normal(size=(VALUES, width))
    return effects - effects.mean(axis=0)


def _scaled(part: np.ndarray, std: float) -> np.ndarray:
    return part * (std / part.std())


def kind(label: str) -> str:
    """What a model can express."""
    name = label.split(":")[0]
    return "additive" if name in ADDITIVE else "pairs" if name in PAIRS else "all"


def prepared(log: str, directory: str, rows: int) -> tuple[str, dict[str, float]]:
    """The prepared directory of a log, and the best AUC of each kind of model on the odd evaluation rows."""
    import tfrs_dlrm as td
    from tfrs_dlrm.metrics import exact_auc

    ids, labels, logits = planted(log, rows + rows // 5, seed=7)
    best = {name: exact_auc(labels[rows:][1::2], values[rows:][1::2]) for name, values in logits.items()}
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
    from tfrs_dlrm.config import DataConfig, ModelConfig, OptimizerConfig, RunConfig, TrainConfig

    steps = 4 * rows // 1024
    return RunConfig(
        data=DataConfig(path=data),
        model=ModelConfig(embedding_dim=16, bottom_mlp=(16,), top_mlp=(128, 64, 1)),
        optimizer=OptimizerConfig(
            dense="adam", learning_rate=0.003, embedding="adagrad", embedding_learning_rate=0.05, warmup_steps=20,
            decay_start_step=steps // 2, decay_steps=steps - steps // 2, decay_power=1.0,
        ),
        train=TrainConfig(batch_size=1024, steps=steps, eval_every_steps=steps, tensorboard=False),
    )  # fmt: skip


def compared(log: str, directory: str, rows: int, models: Sequence[str], seeds: int) -> dict[str, dict]:
    """By model: the mean and spread of its AUC, and that of its planted optimum."""
    from tfrs_dlrm import comparison

    data, best = prepared(log, directory, rows)
    contestants = comparison.contestants(recipe(data, rows), models)
    options = comparison.Options(seeds=seeds, measure=False)
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
            print(f"{label:<24}{one['auc_mean']:9.5f}{spread:>10}{one['planted']:10.5f}{short:13.5f}")
        with open(os.path.join(_OUTPUT.value, "results.json"), "w", encoding="utf-8") as f:
            json.dump(report, f, indent=2)


if __name__ == "__main__":
    app.run(main)
