"""Clicks that depend on the last events of a history: what attention finds that the mean of a history has lost.

make bench-sequences                          # 10 minutes
PYTHONPATH=benchmarks python -m quality.sequences --quick        # a smoke test, whose numbers mean nothing

Items belong to clusters, which no feature tells. A row has a target and a history of 1 to 20 items, and the logit grows
with the number of events among the last three that are of the target's cluster. Each event has its age beside it, 1 for
the latest, as the paper of BST has it (Chen et al. 2019, arXiv 1905.06874, section 2.1); that of the target is 0. DIN
needs it, since a sum over events does not tell their order. DLRM is trained twice: with the mean of a history, and with
histories pooled by target attention.

`short` is the distance from the AUC of the logits that the labels were drawn from.
"""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import study
from absl import app, flags

from quality.planted import drawn_labels

study.define_flags(100_000, "Of the training log; a quarter as many are for evaluation.")
_MODELS = flags.DEFINE_list("models", ["mean", "attention", "din", "bst"], "Which of the models.")
ITEMS, CLUSTERS, LONGEST, RECENT = 60, 6, 20, 3
# By model: the pooling of histories in its log, and its contestant as train/compare.py takes it.
MODELS = {
    "mean": ("mean", "mean@dlrm:model.bottom_mlp=16:model.top_mlp=64-32-1"),
    "attention": ("target_attention", "attention@dlrm:model.bottom_mlp=16:model.top_mlp=64-32-1"),
    "din": ("mean", "din@din:model.top_mlp=64-32-1"),
    "bst": ("mean", "bst@bst:model.top_mlp=64-32-1:model.heads=2"),
}


def planted_sequences(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Targets, histories [rows, LONGEST] with -1 in front of the first event, labels, and the logits behind them."""
    rng = np.random.default_rng(seed)
    clusters = rng.permutation(ITEMS) % CLUSTERS
    targets, events = rng.integers(0, ITEMS, rows), rng.integers(0, ITEMS, (rows, LONGEST))
    # Three tenths of the events are drawn from the target's cluster, so that most rows have some.
    alike = rng.permuted(np.argsort(clusters, kind="stable").reshape(CLUSTERS, -1)[clusters[targets]], axis=1)
    alike = np.take_along_axis(alike, rng.integers(0, alike.shape[1], events.shape), axis=1)
    events = np.where(rng.random(events.shape) < 0.3, alike, events)
    lengths = rng.integers(1, LONGEST + 1, rows)
    events[np.arange(LONGEST) < LONGEST - lengths[:, None]] = -1
    last = events[:, -RECENT:]
    count = ((clusters[last] == clusters[targets][:, None]) & (last >= 0)).sum(axis=1)
    logits = 1.5 * (count - count.mean()) / count.std() - 0.5
    return targets, events, drawn_labels(rng, logits), logits


def prepared(directory: str, pooling: str, log: tuple[np.ndarray, np.ndarray, np.ndarray], rows: int) -> str:
    """Writes and prepares the log, unless the directory has it: `rows` rows to train on, the others for evaluation."""
    import tfrs_dlrm as td

    targets, events, labels = log
    lists = [row[row >= 0].tolist() for row in events]
    columns = {
        "clicked": labels,
        "item": targets,
        "age": np.zeros_like(targets),
        "items": lists,
        "ages": [[*range(len(row), 0, -1)] for row in lists],
    }
    item, age = (td.CategoricalFeature(name, dtype="int64") for name in ("item", "age"))
    items = td.CategoricalFeature(
        "items", dtype="int64", multi_valued=True, sequence_length=LONGEST, history_of="item", pooling=pooling
    )
    ages = td.CategoricalFeature(
        "ages", dtype="int64", multi_valued=True, history_of="age", parallel_to="items", pooling=pooling
    )
    schema = td.Schema(td.Label("clicked"), categorical=(item, age, items, ages))
    return study.prepared(directory, schema, columns, rows)


def recipe(data: str, rows: int) -> Any:
    """Six passes over the log, with rates that suit it."""
    from tfrs_dlrm.config import MLPConfig

    base = study.recipe(data, rows, passes=6, batch_size=512, constant=0.25)
    base.model = MLPConfig(embedding_dim=16)
    base.optimizer.embedding, base.optimizer.embedding_learning_rate = "lazy_adam", 0.01
    return base


def compared(directory: str, rows: int, seeds: int, models: list[str]) -> dict[str, Any]:
    """The planted AUC, and by model the AUC of each seed."""
    from tfrs_dlrm.metrics import exact_auc

    *log, logits = planted_sequences(rows + rows // 4, seed=5)
    found = {}
    for model in models:
        pooling, contestant = MODELS[model]
        data = prepared(os.path.join(directory, pooling), pooling, tuple(log), rows)
        outcomes = study.compared(recipe(data, rows), [contestant], os.path.join(directory, model), seeds)
        found[model] = [x.metrics["auc"] for x in outcomes[model]]
    odd = study.reported(rows)
    return {"planted": exact_auc(log[2][odd], logits[odd]), "models": found}


def table(planted: float, models: Mapping[str, list[float]]) -> str:
    """The means over the seeds, and each seed."""
    lines = [f"{'':<12}{'AUC':>9}{'short':>9}   of each seed"]
    for label, auc in models.items():
        mean = float(np.mean(auc))
        lines.append(f"{label:<12}{mean:9.5f}{planted - mean:9.5f}   {study.listed(auc, '.5f')}")
    return "\n".join(lines)


def main(argv: list[str]) -> None:
    del argv
    run = study.Study("sequences")
    report = run.report | compared(run.directory(str(run.rows)), run.rows, run.seeds, _MODELS.value)
    print(f"\n{run.rows:,} rows; AUC planted: {report['planted']:.5f}")
    print(table(report["planted"], report["models"]))
    run.save(report)


if __name__ == "__main__":
    app.run(main)
