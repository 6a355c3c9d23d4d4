"""A search on a small log: its model is the best of its trials, by their table and by scikit-learn; kills; budgets."""

import dataclasses
import json
import re

import click_log
import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import log_loss, roc_auc_score

import tfrs_dlrm as td
from tfrs_dlrm.config import DataConfig, DLRMConfig, OptimizerConfig, RunConfig, SearchConfig, TrainConfig, load_recipe
from tfrs_dlrm.programs.launch import call
from tfrs_dlrm.tools.comparison import contestants
from tfrs_dlrm.tools.search import run, search_and_train

CANDIDATES = ("dlrm:optimizer.learning_rate=0", "logistic_regression", "dcn")


def recipe(data, **search):
    return RunConfig(
        data=DataConfig(path=data),
        model=DLRMConfig(embedding_dim=4, bottom_mlp=(4,), top_mlp=(4, 1)),
        optimizer=OptimizerConfig(learning_rate=0.01, embedding_learning_rate=0.05),
        train=TrainConfig(
            batch_size=64, steps=16, eval_every_steps=8, monitor="auc_minus_normalized_entropy", tensorboard=False
        ),
        search=SearchConfig(candidates=CANDIDATES, **search),
    )


class Killed(BaseException):
    """Ends a search as a signal would."""


@pytest.fixture
def runs(monkeypatch):
    """The directory and the length of each run that a search trains."""
    made, original = [], run.train_and_evaluate

    def train(config, workdir, *more, **arguments):
        made.append((workdir.rpartition("/")[2], config.train.steps))
        return original(config, workdir, *more, **arguments)

    monkeypatch.setattr(run, "train_and_evaluate", train)
    monkeypatch.setattr(run, "FEW_FOR_AUC", 1)
    return made


@pytest.mark.slow
def test_the_model_is_the_best_of_the_trials_which_a_kill_does_not_repeat(tmp_path, runs):
    data, workdir = click_log.make(str(tmp_path), rows=1200), tmp_path / "run"
    lines = []

    def killed_before_the_third(line):
        lines.append(line)
        if line.startswith("[3/3]"):
            raise Killed

    with pytest.raises(Killed):
        search_and_train(recipe(data), str(workdir), say=killed_before_the_third)
    assert [name for name, _ in runs] == ["dlrm-optimizer.learning_rate=0", "logistic_regression"]
    search_and_train(recipe(data), str(workdir), say=lines.append)
    assert [name for name, _ in runs[2:]] == ["dcn", "run"]
    assert len([line for line in lines if re.match(r"    AUC 0\.\d{4}, log loss 0\.\d{4}; step \d+ of 16", line)]) == 3

    found = json.loads((workdir / "trials.json").read_text())
    assert [trial["label"] for trial in found["trials"]] == list(CANDIDATES)
    best = max(found["trials"], key=lambda trial: trial["best"]["auc"] - trial["best"]["normalized_entropy"])
    assert found["chosen"] == best["label"] and lines[-4].split()[:2] == ["AUC", "log"]
    assert lines[-3].startswith(best["label"]) and lines[-3].endswith("<- chosen")
    config = json.loads((workdir / "config.json").read_text())
    assert config["model"]["name"] == best["label"].partition(":")[0] and config["search"]["candidates"] == []
    assert not (workdir / "trials").exists()

    model = td.load_model(str(workdir))
    batches = list(td.dataset(data, 4096, split="eval"))
    labels, weights = (np.concatenate([np.asarray(batch[i]) for batch in batches]) for i in (1, 2))
    chances = 1 / (1 + np.exp(-np.concatenate([model.logits(batch[0]) for batch in batches]).astype(float)))
    assert best["best"]["auc"] == pytest.approx(roc_auc_score(labels, chances, sample_weight=weights), abs=1e-6)
    assert best["best"]["log_loss"] == pytest.approx(log_loss(labels, chances, sample_weight=weights), abs=1e-6)

    result = search_and_train(recipe(data), str(workdir))  # finished: nothing is trained
    assert result.best == best["best"] and result.step == best["step"] and [n for n, _ in runs[4:]] == ["run"]
    changed = recipe(data)
    changed.optimizer.embedding_l2 = 0.5
    with pytest.raises(ValueError, match=r"holds a trial of .* with another recipe; choose another --workdir"):
        search_and_train(changed, str(workdir))


@pytest.mark.slow
def test_short_trials_of_which_the_best_is_trained_on_and_budgets_that_end_early(tmp_path, runs):
    data = click_log.make(str(tmp_path), rows=1200)
    few = recipe(data, trial_rows=64 * 4)
    few.search.candidates = ("logistic_regression",)
    result = search_and_train(few, str(tmp_path / "run"), tf.distribute.OneDeviceStrategy("/cpu:0"))
    assert runs == [("logistic_regression", 4), ("run", 16)] and result.step == 16
    steps = [json.loads(line)["step"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert steps == [4, 8, 16]  # no step is done twice

    lines = []
    few.search.budget = "0.001s"
    result = search_and_train(few, str(tmp_path / "short"), say=lines.append)
    assert result.step == result.best_step == 1 and 0 < result.best["auc"] < 1
    assert any("ended this trial; a larger one trains it longer" in line for line in lines)
    assert lines[-1].endswith(
        "ended the run at step 1 of at most 16; the same command with a larger budget continues it"
    )
    few.search.budget = "1h"
    assert search_and_train(few, str(tmp_path / "short")).step == 16


@pytest.mark.parametrize("budget", ["", "10", "-5m", "0s", "ten minutes", "10m30"])
def test_a_budget_is_a_time_with_its_unit(budget, tmp_path, capsys):
    arguments = ["--config=configs/auto.py", f"--config.data.path={tmp_path}", f"--config.search.budget={budget}"]
    assert call("train", [*arguments, f"--workdir={tmp_path}/run"]) == 1
    found = f"config.search.budget={budget!r}: a time above 0 with its unit is needed: seconds as in 90s"
    assert found in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_candidates_are_named_where_a_budget_or_a_run_does_not_fit(tmp_path, capsys):
    assert call("train", ["--config=configs/default.py", f"--config.data.path={tmp_path}", "--budget=10m"]) == 1
    assert "--budget=10m: default has no candidates to try; --config=configs/auto.py has" in capsys.readouterr().err
    with pytest.raises(ValueError, match="search_and_train tries them"):
        td.train_and_evaluate(recipe(str(tmp_path)), str(tmp_path / "run"))
    with pytest.raises(ValueError, match=r"config.search.trial_rows=0: at least 1"):
        SearchConfig(trial_rows=0).check()
    data = click_log.make(str(tmp_path), rows=1200)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="holds a run without trials; choose another --workdir"):
        search_and_train(recipe(data), str(tmp_path / "run"))


def test_the_recipe_is_the_default_one_with_candidates_that_can_be_trained():
    auto, default = (load_recipe(n) for n in ("auto", "default"))
    auto.data.path = default.data.path = "data/none"
    found = contestants(auto, auto.search.candidates)
    assert "dlrm" in auto.search.candidates and dataclasses.replace(auto, search=SearchConfig()) == default
    assert {c.config.model.name for c in found} >= {"dlrm", "dcn", "deepfm", "logistic_regression"}
