"""A trainer that is killed has been trained on each row exactly once, and ends as one that was not killed."""

import csv
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from run_weights import weights
from stream_runs import records, stopped_after

from tfrs_dlrm.config import DataConfig, DLRMConfig, OptimizerConfig, RunConfig, StreamConfig, TrainConfig
from tfrs_dlrm.data.preparing.prepare import prepare
from tfrs_dlrm.schema import CategoricalFeature, DenseFeature, Label, Schema, Table
from tfrs_dlrm.serving.bundle.manifest import read_manifest
from tfrs_dlrm.streaming.loop import train_on_stream
from tfrs_dlrm.training.workdir import Workdir

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
ROWS, RATE = 6000, 0.02
BAD = {17: b"{", 1000: b'{"clicked": 1}', 4321: b"", 4322: b"\xff", 5999: b"[]"}  # after so many rows


@pytest.fixture
def worker(monkeypatch):
    monkeypatch.setattr(DLRMConfig, "keras_class", DLRMConfig.keras_class)
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from streams import stream_worker

    return stream_worker


def make_data(directory):
    """A prepared log, and its rows as messages, with some malformed ones among them."""
    row = CategoricalFeature("row", encoding="ids", dtype="int64")
    tables = (Table("row", vocabulary_size=ROWS, initializer="zeros"),)
    schema = Schema(Label("clicked"), (DenseFeature("price"),), (CategoricalFeature("site"), row), tables)
    rng = np.random.default_rng(0)
    sites, prices = rng.integers(0, 20, ROWS), rng.normal(size=ROWS).round(3)
    clicks = rng.random(ROWS) < 1 / (1 + np.exp(2 - sites % 3 - prices))
    columns = (clicks.astype(int), prices, sites, range(ROWS))
    rows = [
        {"clicked": int(c), "price": float(p), "site": f"s{s}", "row": i} for c, p, s, i in zip(*columns, strict=True)
    ]
    with open(directory / "log.csv", "w") as f:
        writer = csv.DictWriter(f, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    prepare(schema, [str(directory / "log.csv")], str(directory / "prepared"), eval_fraction=0.1)
    messages = []
    for i, values in enumerate(rows):
        messages += [values] + ([BAD[i]] if i in BAD else [])
    return str(directory / "prepared"), messages


def run_until_interrupted(config, workdir, windows, moments):
    """Trains in this process until so many windows are done."""
    del moments
    stopped_after(RunConfig.from_dict(json.loads(config.read_text())), workdir, windows)


def run_until_killed(config, workdir, windows, moments):
    """Starts a trainer, and kills it a random moment after it has done so many windows more."""
    metrics = Path(workdir, "metrics.jsonl")
    command = [sys.executable, str(BENCHMARKS / "streams" / "stream_worker.py"), str(config), str(workdir)]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(BENCHMARKS.parent)}
    trainer = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        deadline, begun = time.monotonic() + 300, None
        while trainer.poll() is None and time.monotonic() < deadline:
            done = metrics.read_bytes().count(b"\n") if metrics.exists() else 0
            begun = done if begun is None or done < begun else begun
            if done >= begun + windows:
                time.sleep(moments.random() * 0.2)
                trainer.send_signal(signal.SIGKILL)
                break
            time.sleep(0.01)
        output, _ = trainer.communicate(timeout=300)
    finally:
        trainer.kill()
    assert trainer.returncode == -signal.SIGKILL, output[-3000:]


@pytest.mark.parametrize("run_part", [run_until_interrupted, pytest.param(run_until_killed, marks=pytest.mark.process)])
def test_a_stopped_trainer_sees_each_row_once(kafka, worker, tmp_path, moments, run_part):
    data, messages = make_data(tmp_path)
    kafka.send("clicks", messages)
    config = RunConfig(
        DataConfig(path=data, source=f"kafka://{kafka.servers}/clicks", bad_rows="quarantine"),
        DLRMConfig(embedding_dim=4, bottom_mlp=(4,), top_mlp=(8, 1)),
        OptimizerConfig("adam", 0.005, "rowwise_adagrad", RATE, embedding_per_table="row=sgd"),
        TrainConfig(batch_size=64, tensorboard=False),
        # Small windows, most of which no checkpoint follows.
        StreamConfig(window_rows=200, checkpoint_every_windows=7, stop_at_end=True),
    )
    exports = {"export_to": str(tmp_path / "exports"), "export_every_windows": 28}
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    worker.count_rows()
    run_part(tmp_path / "config.json", tmp_path / "cut", moments.randint(1, 12), moments)
    config.stream = dataclasses.replace(config.stream, **exports)
    train_on_stream(config, str(tmp_path / "cut"))
    config.stream = dataclasses.replace(config.stream, export_to="", export_every_windows=0)
    train_on_stream(config, str(tmp_path / "whole"))

    for run in ("whole", "cut"):
        np.testing.assert_allclose(worker.counts(Workdir(str(tmp_path / run)).checkpoint("latest"), RATE), 1, atol=1e-6)
        # Malformed messages: once each, with what they hold.
        bad = records(tmp_path / run, "quarantine.jsonl")
        texts = [m.decode("utf-8", "backslashreplace") for m in BAD.values()]
        assert sorted(b["text"] for b in bad) == sorted(texts)
        found = records(tmp_path / run)
        assert [r["window"] for r in found] == list(range(1, len(found) + 1))
        assert sum(r["rows"] for r in found) == ROWS and found[-1]["malformed"] == len(BAD)
    for name in ("metrics.jsonl", "quarantine.jsonl", "windows.jsonl"):
        assert records(tmp_path / "whole", name) == records(tmp_path / "cut", name), name
    left, right = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert left.keys() == right.keys()
    for name in left:
        np.testing.assert_array_equal(left[name], right[name], err_msg=name)
    # A bundle after window 28 of 31.
    assert sorted(p.name for p in (tmp_path / "exports").iterdir()) == ["1", "deploy"]
    step = next(r["step"] for r in records(tmp_path / "cut") if r["window"] == 28)
    assert read_manifest(str(tmp_path / "exports" / "1")).checkpoint == f"step-{step}"
