"""Processes of a parameter-server cluster are killed, and the run resumes from its last checkpoint."""

import json
import os
import signal
import sys
import threading
from pathlib import Path

import click_log
import cut_rates
import pytest
from waiting import wait_for

from tfrs_dlrm.distribute.local_cluster import LocalCluster

ROOT = Path(__file__).parents[2]
ROUND, STEPS = 100, 700


@pytest.mark.cluster
def test_a_worker_a_server_and_the_coordinator_are_killed(tmp_path):
    data = click_log.make(str(tmp_path / "log"))
    program = [
        *(sys.executable, str(ROOT / "train/main.py"), "--strategy=parameter_server"),
        *(f"--config={ROOT}/configs/default.py", f"--config.data.path={data}", f"--workdir={tmp_path}/run"),
        *("--config.model.bottom_mlp=(16,8)", "--config.model.embedding_dim=8", "--config.train.batch_size=64"),
        *(f"--config.train.steps={STEPS}", f"--config.train.eval_every_steps={ROUND}", "--config.train.patience=0"),
        *("--config.train.monitor=", "--config.optimizer.embedding_learning_rate=0.02"),
        "--config.optimizer.plateau_factor=0.5",
    ]
    cluster = LocalCluster(
        "parameter_server", 2, 2, program, str(tmp_path / "logs"), {"PYTHONPATH": str(ROOT)}, terminal=False
    )
    said, codes = [], []
    thread = threading.Thread(target=lambda: codes.append(cluster.run(said.append)))
    thread.start()

    def checkpoints():
        return sorted(int(p.name.removeprefix("step-")) for p in (tmp_path / "run" / "checkpoints").glob("step-*"))

    def reached(step):
        assert thread.is_alive(), (said, log())
        return (checkpoints() or [0])[-1] >= step

    def log():
        return (tmp_path / "logs" / "chief-0.log").read_text()

    last = {}
    for name, step in (("worker-1", ROUND), ("ps-1", 3 * ROUND), ("chief-0", 5 * ROUND)):
        wait_for(lambda step=step: reached(step), f"step {step}")
        (task,) = (t for t in cluster.tasks if t.name == name)
        last[name] = checkpoints()[-1]
        os.kill(task.process.pid, signal.SIGKILL)
    thread.join(600)
    assert codes == [0], (said, log())
    ended = [line.split(" ")[0] for line in said]
    assert ended == ["worker-1", "ps-1", "chief-0", "chief-0"], said  # the coordinator after its server, and killed
    # Not more than a round was lost: it went on from the last checkpoint there was, or from one written meanwhile.
    begun = [int(line.rsplit("step-", 1)[1].split()[0]) for line in log().splitlines() if "resuming from" in line]
    assert len(begun) == 2 and begun[0] >= last["ps-1"] and begun[1] >= last["chief-0"], (begun, last)
    assert json.loads((tmp_path / "run" / "result.json").read_text())["step"] == STEPS
    steps = [json.loads(line)["step"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(ROUND, STEPS + 1, ROUND))
    cut_rates.check(tmp_path / "run", 0.5, {"dense": 0.001, "embedding": 0.02})
