"""The programs end in one line of what is wrong, not in a traceback."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import click_log
import pytest

ROOT = Path(__file__).parents[2]


def run(cwd, script, *arguments):
    return subprocess.run(
        [sys.executable, ROOT / script, *arguments], cwd=cwd, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--config.train.bach_size=3"], "config.train has no field 'bach_size'; did you mean 'batch_size'? It has"),
        (["--config.train.batch_size=many"], "--config.train.batch_size=many: invalid literal for int()"),
        (["--strategy=tpus"], "--strategy=tpus: value should be one of <one_device|mirrored|"),
        (["--config={root}/configs/default.py", "--config.data.path=nowhere"], "no prepared data there; make it with"),
    ],
)
def test_train_says_what_is_wrong(tmp_path, arguments, message):
    done = run(tmp_path, "train/main.py", *(a.format(root=ROOT) for a in arguments))
    assert done.returncode != 0
    assert message in done.stderr and done.stderr.startswith("error: ") and "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_evaluate_and_export_without_a_run(tmp_path):
    for script, arguments in (("train/evaluate.py", []), ("export/main.py", ["--output=out"])):
        done = run(tmp_path, script, "--workdir=nothing", *arguments)
        assert done.returncode == 1
        assert done.stderr == "error: nothing: no run in there (no config.json); python train/main.py makes one\n"


def test_help_lists_the_flags_of_the_program_alone(tmp_path):
    shown = run(tmp_path, "train/main.py", "--help").stdout
    assert "--workdir" in shown and "--strategy" in shown and "quickstart" in shown
    assert "--alsologtostderr" not in shown


@pytest.mark.process
def test_sigterm_writes_a_checkpoint_and_says_how_to_go_on(tmp_path):
    data = click_log.make(str(tmp_path / "log"))
    command = [
        *(sys.executable, ROOT / "train/main.py", f"--config={ROOT}/configs/default.py", "--workdir=run"),
        *(f"--config.data.path={data}", "--config.model.bottom_mlp=(16,8)", "--config.model.embedding_dim=8"),
        *("--config.train.epochs=100000", "--config.train.patience=0", "--config.train.batch_size=64"),
    ]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        metrics = tmp_path / "run" / "metrics.jsonl"
        deadline = time.monotonic() + 90
        while not metrics.exists() and time.monotonic() < deadline:
            time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        shown, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 143
    step = re.search(r"stopped by a signal after step (\d+); the checkpoint is (\S+)\. The same command goes on", shown)
    assert step and (tmp_path / step[2] / "manifest.json").is_file() and step[2].endswith(f"step-{step[1]}")
