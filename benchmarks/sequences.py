"""Clicks that depend on the last events of a history: what attention finds that the mean of a history has lost.

make bench-sequences                          # 10 minutes
python benchmarks/sequences.py --quick        # a smoke test, whose numbers mean nothing

Items belong to clusters, which no feature tells. A row has a target and a history of 1 to 20 items, and the logit grows
with the number of events among the last three that are of the target's cluster. Each event has its age beside it, 1 for
the latest, as the paper of BST has it (Chen et al. 2019, arXiv 1905.06874, section 2.1); that of the target is 0. DIN
needs it, since a sum over events does not tell their order. DLRM is trained twice: with the mean of a history, and with
histories pooled by target attention.

`short` is the distance from the AUC of the logits that the labels were drawn from.
"""

import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from absl import app, flags
from machine import describe, machine
from planted import drawn_labels

_QUICK = flags.DEFINE_bool("quick", False, "Few rows and one seed.")
_ROWS = flags.DEFINE_integer("rows", 100_000, "Of the training log; a quarter as many are for evaluation.")
_SEEDS = flags.DEFINE_integer("seeds", 3, "Runs of each model.")
_OUTPUT = flags.DEFINE_string("output", "benchmarks/results-sequences", "Of logs, runs and results.")
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
    import pyarrow as pa
    import pyarrow.parquet as pq

    import tfrs_dlrm as td

    output = os.path.join(directory, "prepared")
    if os.path.isdir(output):
        return output
    os.makedirs(directory, exist_ok=True)
    targets, events, labels = log
    lists = [row[row >= 0].tolist() for row in events]
    columns = {
        "clicked": labels,
        "item": targets,
        "age": np.zeros_like(targets),
        "items": lists,
        "ages": [[*range(len(row), 0, -1)] for row in lists],
    }
    table = pa.table(columns)
    files = [os.path.join(directory, name) for name in ("train.parquet", "eval.parquet")]
    for file, part in zip(files, (table.slice(0, rows), table.slice(rows)), strict=True):
        pq.write_table(part, file)
    item, age = (td.CategoricalFeature(name, dtype="int64") for name in ("item", "age"))
    items = td.CategoricalFeature(
        "items", dtype="int64", multi_valued=True, sequence_length=LONGEST, history_of="item", pooling=pooling
    )
    ages = td.CategoricalFeature(
        "ages", dtype="int64", multi_valued=True, history_of="age", parallel_to="items", pooling=pooling
    )
    schema = td.Schema(td.Label("clicked"), categorical=(item, age, items, ages))
    td.prepare(schema, files[:1], output, eval_inputs=files[1:])
    return output


def recipe(data: str, rows: int) -> Any:
    """Six passes over the log, with rates that suit it."""
    from tfrs_dlrm.config import DataConfig, MLPConfig, OptimizerConfig, RunConfig, TrainConfig

    steps = 6 * rows // 512
    return RunConfig(
        data=DataConfig(path=data),
        model=MLPConfig(embedding_dim=16),
        optimizer=OptimizerConfig(
            dense="adam", learning_rate=0.003, embedding="lazy_adam", embedding_learning_rate=0.01,
            warmup_steps=min(20, steps // 4),
            decay_start_step=steps // 4, decay_steps=steps - steps // 4, decay_power=1.0,
        ),
        train=TrainConfig(batch_size=512, steps=steps, eval_every_steps=steps, tensorboard=False),
    )  # fmt: skip


def compared(directory: str, rows: int, seeds: int, models: list[str]) -> dict[str, Any]:
    """The planted AUC, and by model that of each seed, on the odd evaluation rows, on which no choice depends."""
    from tfrs_dlrm.metrics import exact_auc
    from tfrs_dlrm.tools import comparison

    *log, logits = planted_sequences(rows + rows // 4, seed=5)
    found = {}
    for model in models:
        pooling, contestant = MODELS[model]
        data = prepared(os.path.join(directory, pooling), pooling, tuple(log), rows)
        options = comparison.ComparisonOptions(seeds=seeds, measure=False)
        contestants = comparison.contestants(recipe(data, rows), [contestant])
        outcomes, _ = comparison.compare(contestants, os.path.join(directory, "runs", model), options, print)
        found[model] = [x.metrics["auc"] for x in outcomes]
    odd = slice(rows + 1, None, 2)
    return {"planted": exact_auc(log[2][odd], logits[odd]), "models": found}


def table(planted: float, models: Mapping[str, list[float]]) -> str:
    """The means over the seeds, and each seed."""
    lines = [f"{'':<12}{'AUC':>9}{'short':>9}   of each seed"]
    for label, auc in models.items():
        mean = float(np.mean(auc))
        lines.append(f"{label:<12}{mean:9.5f}{planted - mean:9.5f}   {', '.join(f'{x:.5f}' for x in auc)}")
    return "\n".join(lines)


def main(argv: list[str]) -> None:
    del argv
    rows, seeds = (4_000, 1) if _QUICK.value else (_ROWS.value, _SEEDS.value)
    report: dict[str, Any] = {"machine": machine(), "quick": _QUICK.value, "rows": rows}
    print(describe(report["machine"]))
    report |= compared(os.path.join(_OUTPUT.value, str(rows)), rows, seeds, _MODELS.value)
    print(f"\n{rows:,} rows; AUC planted: {report['planted']:.5f}")
    print(table(report["planted"], report["models"]))
    with open(os.path.join(_OUTPUT.value, "results.json"), "w", encoding="utf-8") as f:
        json.dump(report, f, indent=2)


if __name__ == "__main__":
    app.run(main)
