"""A recipe that leaves fields to the data: from prepared data to a run that is resumed."""

import json

import click_log
import pytest

from tfrs_dlrm.config import AUTO, FROM_DATA, DataConfig, DLRMConfig, OptimizerConfig, RunConfig, TrainConfig
from tfrs_dlrm.data.preparing.manifest import PreparedManifest
from tfrs_dlrm.tools.planner import plan_run
from tfrs_dlrm.training.fitted import data_facts
from tfrs_dlrm.training.loop import train_and_evaluate
from tfrs_dlrm.training.progress import TrainingProgress


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return click_log.make(str(tmp_path_factory.mktemp("clicks")))


def recipe(data, **train) -> RunConfig:
    left = {"batch_size": FROM_DATA, "eval_every_steps": FROM_DATA, "patience": FROM_DATA, "monitor": AUTO}
    return RunConfig(
        DataConfig(path=data),
        DLRMConfig(embedding_dim=4, bottom_mlp=(8, 4), top_mlp=(8, 1), dropout=FROM_DATA, linear=True),
        OptimizerConfig(embedding_learning_rate=FROM_DATA, embedding_accumulator=FROM_DATA),
        TrainConfig(tensorboard=False, **{**left, **train}),
    )


def test_facts_are_those_of_the_manifest(data):
    facts, manifest = data_facts(data), PreparedManifest.load(data)
    counts = manifest.labels["eval"]["label"]
    assert (facts.rows, facts.eval_rows) == (manifest.rows("train"), manifest.rows("eval"))
    assert facts.rarer == min(counts.positives, counts.count - counts.positives)


def test_a_run_says_what_it_chose_keeps_it_and_resumes_with_it(data, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(TrainingProgress, "say", lambda self, line: said.append(line))
    run = str(tmp_path / "run")
    train_and_evaluate(recipe(data, steps=6), run)
    written = json.loads((tmp_path / "run" / "config.json").read_text())
    assert -1 not in written["train"].values() and -1 not in written["optimizer"].values()
    assert written["train"]["monitor"] in ("log_loss", "auc_minus_normalized_entropy")
    assert any("--config.FIELD=VALUE" in line for line in said)
    line = next(line for line in said if line.strip().startswith("train.batch_size "))
    assert str(written["train"]["batch_size"]) in line and "training rows" in line

    said.clear()
    result = train_and_evaluate(recipe(data, steps=12), run)
    assert result.step == 12 and not any("--config.FIELD=VALUE" in line for line in said)
    again = json.loads((tmp_path / "run" / "config.json").read_text())
    assert again["train"] == written["train"] | {"steps": 12} and again["optimizer"] == written["optimizer"]


def test_plans_choose_alike(data):
    assert (
        plan_run(recipe(data), "one_device", "CPU").to_dict()
        == plan_run(recipe(data, batch_size=64), "one_device", "CPU").to_dict()
    )
