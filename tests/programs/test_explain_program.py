"""`explain`, and the groups of `evaluate`, as a user runs them."""

import json

import click_log
import pytest

from tfrs_dlrm.config import DataConfig, DLRMConfig, RunConfig, TrainConfig
from tfrs_dlrm.programs import launch
from tfrs_dlrm.training.loop import train_and_evaluate


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("program")
    data = click_log.make(str(folder / "log"), 1500)
    config = RunConfig(
        DataConfig(path=data),
        DLRMConfig(embedding_dim=8, bottom_mlp=(8,), top_mlp=(8, 1)),
        train=TrainConfig(batch_size=100, steps=10, tensorboard=False),
    )
    train_and_evaluate(config, str(folder / "run"))
    return folder


@pytest.fixture
def run(folder, monkeypatch, capfd):
    monkeypatch.chdir(folder)

    def program(name, *arguments):
        capfd.readouterr()
        return launch.call(name, ["--workdir=run", *arguments]), *capfd.readouterr()

    return program


def test_explain(folder, run):
    code, out, err = run("explain", "--neighbours=site:s1", "--seeds=2", "--examples=200", "--top=3", "--label=clicked")
    assert code == 0, err[-2000:]
    written = folder / "run" / "explanation"
    files = ["explanation.json", "importance.png", "interactions.png", "tables.png"]
    assert sorted(p.name for p in written.iterdir()) == files
    data = json.loads((written / "explanation.json").read_text())
    assert data["label"] == "clicked" and "(eval), label clicked" in out.split("\n")[0]
    assert data["neighbours"][0]["nearest"][0]["value"] in out
    assert all(part in out for part in ("Importance: ", "the 3 strongest of 15 pairs", "Nearest to s1 in"))
    assert "Wrote run/explanation/explanation.json, run/explanation/importance.png" in out
    assert all(f"{bar}: 100%" in err for bar in ("importance", "interactions", "tables"))


def test_groups_of_an_evaluation(folder, run):
    code, out, err = run(
        "evaluate",
        "--group_by=slot,tags",
        "--gauc=user",
        "--top=2",
        "--json=by.json",
        "--label=clicked",
    )
    assert code == 0, err[-2000:]
    assert "By slot, the 2 largest of 5 groups:" in out and "GAUC by user: 0." in out
    data = json.loads((folder / "by.json").read_text())
    assert sorted(data["group_by"]["slot"]["value"]) == list("01234") and data["label"] == "clicked"
    assert "run/evaluation.png and by.json." in out


def test_a_mistake_ends_in_one_line(run):
    code, out, err = run("explain", "--features=sight")
    assert code == 1 and out == ""
    assert err.startswith("error: no feature 'sight'; did you mean 'site'?") and err.count("\n") == 1
