"""Training on a tenth of the negatives: AUC and calibration on the full log, and the time, beside all rows.

make bench-negatives     # 10 minutes

The log is that of the planted model (`tfrs_dlrm.data.synthetic`) with fewer clicks. The rows of `shift` are prepared
with `keep_negatives`. Those of `weights` are as many, but a kept negative weighs as many as it stands for, and nothing
is added to logits. Evaluation rows are of the full log.
"""

import json
import os
import shutil
import time
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from absl import app, flags
from machine import describe, machine

_ROWS = flags.DEFINE_integer("rows", 1_000_000, "Of the training log; half as many more are for evaluation.")
_CLICKS = flags.DEFINE_float("clicks", 0.03, "The share of clicks, about.")
_KEEP = flags.DEFINE_float("keep", 0.1, "The share of the negatives to keep.")
_EPOCHS = flags.DEFINE_float("epochs", 1.0, "Of each run.")
_SEEDS = flags.DEFINE_integer("seeds", 1, "Runs of each kind.")
_KINDS = flags.DEFINE_list("kinds", ["all", "shift", "weights"], "Which runs.")
_OUTPUT = flags.DEFINE_string("output", "benchmarks/results-negatives", "Of logs, runs and results.")
_CHUNK = 65_536


def write_log(directory: str, rows: int, clicks: float) -> dict[str, float]:
    """Writes train.parquet and eval.parquet; returns the metrics of the planted probabilities."""
    from tfrs_dlrm.data.synthetic.planted import CLICK_RATE, PlantedModel, generator, sigmoid
    from tfrs_dlrm.metrics import evaluate_scores

    model = PlantedModel(0)
    # With logits that vary this much, the share of clicks falls a little less than their odds.
    shift = np.float32(1.2 * np.log(clicks / (1 - clicks) * (1 - CLICK_RATE) / CLICK_RATE))
    names = ["label", *(f"I{i}" for i in range(1, 14)), *(f"C{i}" for i in range(1, 27))]
    found = [np.empty(0), np.empty(0)]
    for stream, (name, count) in enumerate((("train", rows), ("eval", rows // 2)), 1):
        with pq.ParquetWriter(os.path.join(directory, f"{name}.parquet"), _arrow(names)) as writer:
            labels, logits = [], []
            for chunk in range(-(-count // _CHUNK)):
                rng = generator(1, stream, chunk)
                drawn = model.draw(rng, min(_CHUNK, count - chunk * _CHUNK))
                logits.append(model.logits(drawn) + shift)
                labels.append((rng.random(len(logits[-1])) < sigmoid(logits[-1])).astype(np.int8))
                integers = [pa.array(i, mask=i < 0) for i in drawn.integers]
                ids = [pa.array(i).cast(pa.string()) for i in drawn.ids]
                writer.write_table(pa.table([pa.array(labels[-1]), *integers, *ids], schema=_arrow(names)))
            found = [np.concatenate(labels), np.concatenate(logits)]
    return evaluate_scores(*found)


def _arrow(names: list[str]) -> pa.Schema:
    kinds = [pa.int8(), *[pa.int32()] * 13, *[pa.string()] * 26]
    return pa.schema(list(zip(names, kinds, strict=True)))


def prepared(kind: str, log: str, keep: float, output: str) -> float:
    """Prepares the log for a kind of run; returns the seconds."""
    import dataclasses

    import tfrs_dlrm as td
    from tfrs_dlrm.data.synthetic.synthetic import criteo_schema
    from tfrs_dlrm.schema import TextFormat

    schema = dataclasses.replace(criteo_schema(min_count=10), text=TextFormat())
    files = [os.path.join(log, f"{name}.parquet") for name in ("train", "eval")]
    shutil.rmtree(output, ignore_errors=True)
    if kind == "weights":
        files = [_weighted(files[0], keep, output), _weighted(files[1], 1.0, output)]
        schema = dataclasses.replace(schema, weight="weight")
    start = time.perf_counter()
    td.prepare(schema, files[:1], output, eval_inputs=files[1:], keep_negatives=keep if kind == "shift" else None)
    return time.perf_counter() - start


def _weighted(file: str, keep: float, output: str) -> str:
    """Writes a copy with a share of the negatives, each with the weight 1 / share."""
    table, rng = pq.read_table(file), np.random.default_rng(0)
    positive = table["label"].to_numpy() > 0
    kept = positive | (rng.random(len(positive)) < keep)
    weights = np.where(positive, 1.0, 1.0 / keep).astype(np.float32)
    path = f"{output}-{os.path.basename(file)}"
    pq.write_table(table.append_column("weight", pa.array(weights)).filter(pa.array(kept)), path)
    return path


def recipe(data: str, seed: int) -> Any:
    """The same for all, but for the size of a batch: a sample has an eighth of the rows, and half as many steps."""
    from tfrs_dlrm.config import DataConfig, DLRMConfig, OptimizerConfig, RunConfig, TrainConfig
    from tfrs_dlrm.data.preparing.manifest import PreparedManifest

    rows = PreparedManifest.load(data).rows("train")
    batch = 1024 if rows == _ROWS.value else 256
    steps = round(_EPOCHS.value * rows / batch)
    return RunConfig(
        data=DataConfig(path=data),
        model=DLRMConfig(embedding_dim=16, bottom_mlp=(64, 16), top_mlp=(64, 32, 1)),
        optimizer=OptimizerConfig(
            dense="adam", learning_rate=0.003, embedding_learning_rate=0.03, embedding_l2=1e-3,
            warmup_steps=20, decay_start_step=20, decay_steps=steps - 20, decay_power=1.0,
        ),
        train=TrainConfig(batch_size=batch, steps=steps, eval_every_steps=steps, tensorboard=False, seed=seed),
    )  # fmt: skip


def run(kind: str, seed: int, prepare_seconds: float, directory: str) -> dict[str, Any]:
    """Trains and evaluates."""
    from tfrs_dlrm.data.preparing.manifest import PreparedManifest
    from tfrs_dlrm.training.evaluation import evaluate_run
    from tfrs_dlrm.training.loop import train_and_evaluate

    data, workdir = os.path.join(directory, f"data-{kind}"), os.path.join(directory, f"run-{kind}-{seed}")
    shutil.rmtree(workdir, ignore_errors=True)
    config = recipe(data, seed)
    # Times of an epoch, without the evaluation of all rows at the end, which is the same for all.
    start = time.perf_counter()
    train_and_evaluate(config, workdir)
    whole = time.perf_counter() - start
    start = time.perf_counter()
    metrics = evaluate_run(workdir).scores.metrics()
    evaluation = time.perf_counter() - start
    rows = PreparedManifest.load(data).rows("train")
    seconds = {"prepare": prepare_seconds, "train": whole - evaluation}
    told = {"AUC": metrics["auc"], "log loss": metrics["log_loss"], "calibration": metrics["calibration"]}
    numbers = [f"{name} {value:.1f} s" for name, value in seconds.items()] + [f"{k} {v:.5f}" for k, v in told.items()]
    print(f"{kind:8} seed {seed}: {rows:9,} rows, {', '.join(numbers)}", flush=True)
    return {"kind": kind, "seed": seed, "rows": rows, "seconds": seconds, "metrics": metrics}


def main(_: object) -> None:
    directory = _OUTPUT.value
    os.makedirs(directory, exist_ok=True)
    planted = write_log(directory, _ROWS.value, _CLICKS.value)
    names = ("auc", "log_loss", "label_mean")
    print("planted:", ", ".join(f"{name} {planted[name]:.5f}" for name in names), flush=True)
    results = []
    for kind in _KINDS.value:
        seconds = prepared(kind, directory, _KEEP.value, os.path.join(directory, f"data-{kind}"))
        results += [run(kind, seed, seconds, directory) for seed in range(_SEEDS.value)]
    with open(os.path.join(directory, "results.json"), "w", encoding="utf-8") as f:
        json.dump({"machine": describe(machine()), "planted": planted, "runs": results}, f, indent=2)


if __name__ == "__main__":
    app.run(main)
