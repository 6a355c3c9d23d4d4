"""train/explain.py and the groups of train/evaluate.py, as a user runs them."""

import json
import subprocess
import sys
from pathlib import Path

import click_log
import pytest

from tfrs_dlrm.config import DataConfig, ModelConfig, RunConfig, TrainConfig
from tfrs_dlrm.training.loop import train_and_evaluate

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("program")
    data = click_log.make(str(folder / "log"), 1500)
    config = RunConfig(
        DataConfig(path=data),
        ModelConfig(embedding_dim=8, bottom_mlp=(8,), top_mlp=(8, 1)),
        train=TrainConfig(batch_size=100, steps=10, tensorboard=False),
    )
    train_and_evaluate(config, str(folder / "run"))
    return folder


def run(cwd, script, *arguments):
    command = [sys.executable, ROOT / script, "--workdir=run", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)


def test_explain(folder):
    done = run(
        folder, "train/explain.py", "--neighbours=site:s1", "--seeds=2", "--examples=200", "--top=3", "--label=clicked"
    )
    assert done.returncode == 0, done.stderr[-2000:]
    written = folder / "run" / "explanation"
    files = ["explanation.json", "importance.png", "interactions.png", "tables.png"]
    assert sorted(p.name for p in written.iterdir()) == files
    data = json.loads((written / "explanation.json").read_text())
    assert data["label"] == "clicked" and "(eval), label clicked" in done.stdout.split("\n")[0]
    assert data["neighbours"][0]["nearest"][0]["value"] in done.stdout
    assert all(part in done.stdout for part in ("Importance: ", "the 3 strongest of 15 pairs", "Nearest to s1 in"))
    assert "Wrote run/explanation/explanation.json, run/explanation/importance.png" in done.stdout
    assert all(f"{bar}: 100%" in done.stderr for bar in ("importance", "interactions", "tables"))


def test_groups_of_an_evaluation(folder):
    done = run(
        folder,
        "train/evaluate.py",
        "--group_by=slot,tags",
        "--gauc=user",
        "--top=2",
        "--json=by.json",
        "--label=clicked",
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "By slot, the 2 largest of 5 groups:" in done.stdout and "GAUC by user: 0." in done.stdout
    data = json.loads((folder / "by.json").read_text())
    assert sorted(data["group_by"]["slot"]["value"]) == list("01234") and data["label"] == "clicked"
    assert "run/evaluation.png and by.json." in done.stdout


def test_a_mistake_ends_in_one_line(folder):
    done = run(folder, "train/explain.py", "--features=sight")
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("error: no feature 'sight'; did you mean 'site'?") and done.stderr.count("\n") == 1
