"""A run of two processes: stopped by a signal to one of them, gone on with, and evaluated."""

import json
import os
import signal
import sys
import threading
from pathlib import Path

import click_log
import cut_rates
import numpy as np
import pytest
from waiting import wait_for

from tfrs_dlrm.distribute.local_cluster import LocalCluster
from tfrs_dlrm.training.calibrate import calibrate
from tfrs_dlrm.training.evaluation import evaluate_run
from tfrs_dlrm.training.groups import Grouping
from tfrs_dlrm.training.workdir import Workdir

ROOT = Path(__file__).parents[2]


def cluster(tmp_path, program, *arguments):
    command = [sys.executable, str(ROOT / program), "--strategy=multi_worker", *arguments]
    return LocalCluster(
        "multi_worker", 2, 0, command, str(tmp_path / "logs"), {"PYTHONPATH": str(ROOT)}, terminal=False
    )


@pytest.mark.cluster
def test_stops_together_goes_on_and_evaluates(tmp_path):
    data, workdir = click_log.make(str(tmp_path / "log")), tmp_path / "run"
    arguments = [
        *(f"--config={ROOT}/configs/default.py", f"--config.data.path={data}", f"--workdir={workdir}"),
        *("--config.model.bottom_mlp=(16,8)", "--config.model.embedding_dim=8", "--config.train.batch_size=64"),
        *("--config.train.steps=400", "--config.train.eval_every_steps=100", "--config.train.patience=0"),
        *("--config.train.monitor=", "--config.optimizer.embedding_learning_rate=0.02"),
        "--config.optimizer.plateau_factor=0.5",
    ]

    def text():
        return "".join(f.read_text() for f in (tmp_path / "logs").glob("*.log"))

    first, codes = cluster(tmp_path, "train/main.py", *arguments), []
    thread = threading.Thread(target=lambda: codes.append(first.run(print)))
    thread.start()

    def reached():
        assert thread.is_alive(), text()
        return (workdir / "checkpoints" / "step-100").is_dir()

    wait_for(reached, "step 100")
    os.kill(first.tasks[1].process.pid, signal.SIGTERM)
    thread.join(300)
    assert codes == [143], text()
    stopped = max(int(p.name.removeprefix("step-")) for p in (workdir / "checkpoints").glob("step-*"))
    assert 100 < stopped < 400 and stopped % 50 == 0 and f"stopped by a signal after step {stopped}" in text()

    assert cluster(tmp_path, "train/main.py", *arguments).run(print) == 0, text()
    records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in records] == [100, 200, 300, 400]
    cut_rates.check(workdir, 0.5, {"dense": 0.001, "embedding": 0.02})
    assert f"resuming from {workdir}/checkpoints/step-{stopped}" in text()

    best = max((r["eval"] for r in records), key=lambda metrics: metrics["auc"])
    assert evaluate_run(str(workdir)).scores.metrics() == pytest.approx(best, rel=1e-6)  # on one device

    # Each process scores a part of the rows, and the chief puts them in order: it knows those that calibration fitted.
    calibrate(str(workdir)).found.save(Workdir(str(workdir)))
    asked = (f"--workdir={workdir}", "--group_by=slot")
    assert cluster(tmp_path, "train/evaluate.py", *asked).run(print) == 0, text()
    alone = evaluate_run(str(workdir))
    found = json.loads((workdir / "evaluation.json").read_text())["metrics"]["this model"]
    assert found == pytest.approx(alone.scores.metrics(), rel=1e-6)
    groups = Grouping(str(workdir), ["slot"]).measure(alone, "eval").to_dict()["group_by"]["slot"]
    of_workers = json.loads((workdir / "groups.json").read_text())["group_by"]["slot"]
    assert of_workers["value"] == groups["value"]
    np.testing.assert_allclose(of_workers["log_loss"], groups["log_loss"], rtol=1e-6)
