"""Training on a tenth of the negatives: AUC and calibration on the full log, and the time, beside all rows.

make bench-negatives     # 30 minutes

The log is that of the planted model (`tfrs_dlrm.data.synthetic`) with fewer clicks. The rows of `shift` are prepared
with `keep_negatives`. Those of `weights` are as many, but a kept negative weighs as many as it stands for, and nothing
is added to logits. Evaluation rows are of the full log.
"""

import json
import os
import resource
import shutil
import time
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from absl import app, flags
from machine import describe, machine

_ROWS = flags.DEFINE_integer("rows", 2_000_000, "Of the training log.")
_CLICKS = flags.DEFINE_float("clicks", 0.01, "The share of clicks, about.")
_KEEP = flags.DEFINE_float("keep", 0.1, "The share of the negatives to keep.")
_SEEDS = flags.DEFINE_integer("seeds", 1, "Runs of each kind.")
_KINDS = flags.DEFINE_list("kinds", ["all", "shift", "weights"], "Which runs.")
_OUTPUT = flags.DEFINE_string("output", "benchmarks/results-negatives", "Of logs, runs and results.")
_CHUNK = 65_536
# Evaluated while training, and afterwards.
_EVAL_ROWS, _TEST_ROWS = 100_000, 500_000


def write_log(directory: str, rows: int, clicks: float) -> dict[str, float]:
    """Writes the logs train, eval and test; returns the metrics of the planted probabilities of the last."""
    from tfrs_dlrm.data.synthetic.planted import CLICK_RATE, PlantedModel, generator, sigmoid
    from tfrs_dlrm.metrics import evaluate_scores

    model = PlantedModel(0)
    # With logits that vary this much, the share of clicks falls a little less than their odds.
    shift = np.float32(1.2 * np.log(clicks / (1 - clicks) * (1 - CLICK_RATE) / CLICK_RATE))
    names = ["label", *(f"I{i}" for i in range(1, 14)), *(f"C{i}" for i in range(1, 27))]
    found = [np.empty(0), np.empty(0)]
    for stream, (name, count) in enumerate((("train", rows), ("eval", _EVAL_ROWS), ("test", _TEST_ROWS)), 1):
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


def prepared(kind: str, log: str, keep: float, output: str) -> dict[str, float]:
    """Prepares the log for a kind of run; returns the seconds.

    A value has a row of a table if it occurs ten times in the log, or as often among the kept rows as that makes.
    """
    import dataclasses

    import tfrs_dlrm as td
    from tfrs_dlrm.data.synthetic.synthetic import criteo_schema
    from tfrs_dlrm.schema import TextFormat

    min_count = 10 if kind == "all" else max(1, round(10 * (keep + _CLICKS.value)))
    schema = dataclasses.replace(criteo_schema(min_count=min_count), text=TextFormat())
    files = [os.path.join(log, f"{name}.parquet") for name in ("train", "eval")]
    shutil.rmtree(output, ignore_errors=True)
    if kind == "weights":
        files = [_weighted(files[0], keep, output), _weighted(files[1], 1.0, output)]
        schema = dataclasses.replace(schema, weight="weight")
    start, cpu = time.perf_counter(), _cpu_seconds()
    td.prepare(schema, files[:1], output, eval_inputs=files[1:], keep_negatives=keep if kind == "shift" else None)
    return {"prepare": time.perf_counter() - start, "prepare CPU": _cpu_seconds() - cpu}


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _weighted(file: str, keep: float, output: str) -> str:
    """Writes a copy with a share of the negatives, each with the weight 1 / share."""
    table, rng = pq.read_table(file), np.random.default_rng(0)
    positive = table["label"].to_numpy() > 0
    kept = positive | (rng.random(len(positive)) < keep)
    weights = np.where(positive, 1.0, 1.0 / keep).astype(np.float32)
    path = f"{output}-{os.path.basename(file)}"
    pq.write_table(table.append_column("weight", pa.array(weights)).filter(pa.array(kept)), path)
    return path


def run(kind: str, seed: int, prepare_seconds: dict[str, float], directory: str, clicks: float) -> dict[str, Any]:
    """Trains as configs/default.py chooses, which stops when the evaluation no longer improves, and scores the test.

    `clicks` is the mean planted probability of the test rows: the clicks that they have differ from it by chance.
    """
    from tfrs_dlrm.config import load_recipe
    from tfrs_dlrm.data.preparing.manifest import PreparedManifest
    from tfrs_dlrm.training.loop import train_and_evaluate

    data, workdir = os.path.join(directory, f"data-{kind}"), os.path.join(directory, f"run-{kind}-{seed}")
    shutil.rmtree(workdir, ignore_errors=True)
    recipe = load_recipe("default")
    recipe.data.path = data
    recipe.train.seed, recipe.train.tensorboard = seed, False
    start, cpu = time.perf_counter(), _cpu_seconds()
    result = train_and_evaluate(recipe, workdir)
    seconds = {**prepare_seconds, "train": time.perf_counter() - start, "train CPU": _cpu_seconds() - cpu}
    metrics = tested(workdir, data, os.path.join(directory, "test.parquet"))
    rows = PreparedManifest.load(data).rows("train")
    told = {"AUC": metrics["auc"], "log loss": metrics["log_loss"], "calibration": metrics["calibration"]}
    told["of the planted clicks"] = metrics["prediction_mean"] / clicks
    numbers = [f"{name} {value:.1f} s" for name, value in seconds.items()] + [f"{k} {v:.5f}" for k, v in told.items()]
    steps = f"best at step {result.best_step} of {result.step}"
    print(f"{kind:8} seed {seed}: {rows:9,} rows, {steps}, {', '.join(numbers)}", flush=True)
    return {"kind": kind, "seed": seed, "rows": rows, "steps": steps, "seconds": seconds, "metrics": metrics}


def tested(workdir: str, data: str, log: str) -> dict[str, float]:
    """The metrics of a trained run on a raw log."""
    import tfrs_dlrm as td
    from tfrs_dlrm.metrics import evaluate_scores

    model, test = td.load_model(workdir), pq.read_table(log).to_pandas()
    batches = td.dataset(test, 8192, encoder=data, split="eval")
    logits = np.concatenate([model.logits(batch[0]).numpy() for batch in batches])
    return evaluate_scores(test["label"].to_numpy(), logits.ravel())


def main(_: object) -> None:
    directory = _OUTPUT.value
    os.makedirs(directory, exist_ok=True)
    planted = write_log(directory, _ROWS.value, _CLICKS.value)
    names = ("auc", "log_loss", "label_mean", "prediction_mean")
    print("planted:", ", ".join(f"{name} {planted[name]:.5f}" for name in names), flush=True)
    results = []
    for kind in _KINDS.value:
        seconds = prepared(kind, directory, _KEEP.value, os.path.join(directory, f"data-{kind}"))
        results += [run(kind, seed, seconds, directory, planted["prediction_mean"]) for seed in range(_SEEDS.value)]
    with open(os.path.join(directory, "results.json"), "w", encoding="utf-8") as f:
        json.dump({"machine": describe(machine()), "planted": planted, "runs": results}, f, indent=2)


if __name__ == "__main__":
    app.run(main)
