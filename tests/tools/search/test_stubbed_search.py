"""A search whose runs take no time: what is done with time, signals, kills, and recipes that change between calls."""

import json
import math
import os
import shutil
import signal
from pathlib import Path

import click_log
import pandas as pd
import pytest
import tensorflow as tf
from mortal import Killed, Life

from tfrs_dlrm.config import DataConfig, DLRMConfig, OptimizerConfig, RunConfig, SearchConfig, TrainConfig
from tfrs_dlrm.stores.files import write_json
from tfrs_dlrm.tools.search import run, search_and_train, trials
from tfrs_dlrm.training.callbacks import Interrupted
from tfrs_dlrm.training.evaluation import NonFiniteError
from tfrs_dlrm.training.run import TIME_IS_UP, Result

CANDIDATES = ("logistic_regression", "dlrm", "dcn", "deepfm")
AUC = dict(zip(CANDIDATES, (0.6, 0.8, 0.7, 0.75), strict=True))
STEPS, TRIAL_STEPS = 40, 10


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return click_log.make(str(tmp_path_factory.mktemp("log")), rows=1200)


class Runs:
    """Stands for `train_and_evaluate`, and for the clock.

    A step takes `step_seconds` of the model; `events` are called, once each, when a run of a model begins.
    """

    def __init__(self):
        self.now, self.step_seconds, self.events, self.calls = 1000.0, dict.fromkeys(CANDIDATES, 1.0), {}, []

    def monotonic(self):
        return self.now

    def train(self, config, workdir, strategy=None, show_progress=False, seconds=math.inf):
        model, directory = config.model.name, Path(workdir)
        self.calls.append((model, directory.name, config.train.steps, seconds))
        found = self.events.pop(model, lambda: None)()
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "checkpoints").mkdir(exist_ok=True)
        done = directory / "checkpoints" / "step.json"
        step = json.loads(done.read_text()) if done.exists() else 0
        begun = directory / "config.json"
        assert not begun.exists() or json.loads(begun.read_text())["model"] == json.loads(
            json.dumps(config.to_dict()["model"])
        )
        begun.write_text(json.dumps(config.to_dict()))
        wanted = math.ceil(max(1, seconds / self.step_seconds[model])) if seconds < math.inf else STEPS
        after = max(step, min(config.train.steps, step + wanted))
        self.now += (after - step) * self.step_seconds[model]
        done.write_text(json.dumps(after))
        reason = TIME_IS_UP if after < config.train.steps else "all steps are done"
        return Result(after, reason, after, {"auc": AUC[model], "log_loss": 1 - AUC[model]}, found)


@pytest.fixture
def runs(monkeypatch):
    found = Runs()
    monkeypatch.setattr(run, "train_and_evaluate", found.train)
    monkeypatch.setattr(run, "time", found)
    monkeypatch.setattr(run, "make_model", lambda *arguments: None)
    monkeypatch.setattr(run, "free_models", lambda: None)
    monkeypatch.setattr(run, "FEW_FOR_AUC", 1)
    return found


def recipe(data, *candidates, **search):
    return RunConfig(
        data=DataConfig(path=data),
        model=DLRMConfig(embedding_dim=4, bottom_mlp=(4,), top_mlp=(4, 1)),
        optimizer=OptimizerConfig(learning_rate=0.01),
        train=TrainConfig(batch_size=64, steps=STEPS, tensorboard=False),
        search=SearchConfig(
            candidates=candidates or CANDIDATES, **{"trial_rows": 64 * TRIAL_STEPS, "budget": "1000s", **search}
        ),
    )


def searched(config, workdir):
    """The lines of a search, and its `trials.json`."""
    lines = []
    search_and_train(config, str(workdir), say=lines.append)
    return lines, json.loads((workdir / "trials.json").read_text())


def files(directory):
    """The text of every file below a directory, but for the seconds of trials."""
    found = {str(p.relative_to(directory)): p.read_text() for p in directory.rglob("*") if p.is_file()}
    content = json.loads(found.pop("trials.json"))
    timeless = [{**trial, "seconds": 0} for trial in content["trials"]]
    return found, {**content, "trials": timeless, "seconds": 0}


def test_a_slow_trial_leaves_the_time_of_the_best(data, runs, tmp_path):
    """By hand: 100 s, trials of 10 of 40 steps; 10 s for the first, so 30 s are left for the best."""
    runs.step_seconds.update(dlrm=20.0)
    lines, found = searched(recipe(data, budget="100s"), tmp_path / "run")
    assert runs.calls == [
        ("logistic_regression", "logistic_regression", TRIAL_STEPS, 100.0),
        ("dlrm", "dlrm", TRIAL_STEPS, 60.0),
        ("dlrm", "run", STEPS, 30.0),
    ]
    assert [trial["seconds"] for trial in found["trials"]] == [10.0, 60.0] and found["seconds"] == 110.0
    assert "the budget of 100s ended this trial, to leave time for the best" in lines
    untried = "too few to try: dcn, deepfm; a larger budget in another --workdir tries them"
    assert f"30s are left of the budget, {untried}" in lines


def test_a_trial_counts_all_of_its_sessions_and_a_late_signal_ends_the_search(data, runs, tmp_path):
    def early():
        runs.now += 7
        raise Interrupted(3, "checkpoints/step-3", signal.SIGINT)

    late = Interrupted(TRIAL_STEPS, "checkpoints/step-10", signal.SIGTERM)
    runs.events.update(dlrm=early, dcn=lambda: late)
    with pytest.raises(Interrupted, match="after step 3"):
        searched(recipe(data), tmp_path / "run")
    assert len(runs.calls) == 2
    runs.now += 500  # nobody trains
    with pytest.raises(Interrupted) as error:
        searched(recipe(data), tmp_path / "run")
    assert error.value is late and error.value.exit_code == 128 + signal.SIGTERM
    assert [model for model, *_ in runs.calls] == ["logistic_regression", "dlrm", "dlrm", "dcn"]
    _, found = searched(recipe(data), tmp_path / "run")
    assert [trial["seconds"] for trial in found["trials"]] == [10.0, 17.0, 10.0, 10.0]
    assert found["seconds"] == 47.0 + 30.0  # and 30 steps of the best


def test_candidates_that_diverge_or_do_not_fit(data, runs, tmp_path, monkeypatch):
    def diverges():
        raise NonFiniteError("the loss is nan")

    def check(config, *arguments):
        checked.append(config.model.name)
        if config.model.name == "dlrm":
            raise ValueError("too little memory")

    checked = []
    monkeypatch.setattr(run, "check_memory", check)
    runs.events.update(logistic_regression=diverges)
    lines, found = searched(recipe(data), tmp_path / "run")
    assert "    diverged, 0s" in lines and "dlrm: left out: too little memory" in lines
    assert found["chosen"] == "deepfm" and [trial["label"] for trial in found["trials"]] == [
        "logistic_regression", "dcn", "deepfm"
    ]  # fmt: skip
    assert checked == list(CANDIDATES)
    searched(recipe(data), tmp_path / "run")
    assert checked == list(CANDIDATES)  # each once, and none to resume
    with pytest.raises(ValueError, match="too little memory"):
        searched(recipe(data, "dlrm"), tmp_path / "none")
    runs.events.update(dcn=diverges)
    with pytest.raises(ValueError, match=r"all trials diverged, .* and choose another --workdir"):
        searched(recipe(data, "dcn"), tmp_path / "diverged")


def test_few_evaluation_rows_of_a_class_choose_no_model(data, runs, tmp_path, monkeypatch):
    """By pandas' count of the labels."""
    labels = pd.read_parquet(f"{data}/eval", columns=["label"]).label
    rarer = labels.value_counts().min()
    monkeypatch.setattr(run, "FEW_FOR_AUC", rarer + 1)
    lines, found = searched(recipe(data, "dcn", "deepfm"), tmp_path / "few")
    assert lines[0].startswith(f"{rarer} evaluation rows of the rarer class are too few to choose among models by")
    assert found["chosen"] == "dlrm" and [trial["label"] for trial in found["trials"]] == ["dlrm"]
    assert searched(recipe(data, "dcn", "deepfm"), tmp_path / "few")[1] == found  # resumed
    assert searched(recipe(data, "dcn"), tmp_path / "one")[1]["chosen"] == "dcn"
    monkeypatch.setattr(run, "FEW_FOR_AUC", rarer)
    assert searched(recipe(data, "dcn", "deepfm"), tmp_path / "enough")[1]["chosen"] == "deepfm"
    monkeypatch.setattr(run, "FEW_FOR_AUC", rarer + 1)  # begun as it was, it goes on so
    assert searched(recipe(data, "dcn", "deepfm"), tmp_path / "enough")[1]["chosen"] == "deepfm"


def test_models_are_made_in_the_scope_of_the_strategy_and_freed_outside(data, runs, tmp_path, monkeypatch):
    strategy, seen = tf.distribute.OneDeviceStrategy("/cpu:0"), []
    monkeypatch.setattr(run, "make_model", lambda *arguments: seen.append(tf.distribute.get_strategy() is strategy))
    monkeypatch.setattr(run, "free_models", lambda: seen.append(tf.distribute.has_strategy()))
    search_and_train(recipe(data, "dlrm", "dcn"), str(tmp_path / "run"), strategy)
    assert seen == [True, False, False] * 2


def stopped(data, runs, workdir, model, **search):
    """A search that a signal ends when the trial of a model begins."""

    def end():
        raise Interrupted(1, "checkpoints/step-1")

    runs.events[model] = end
    with pytest.raises(Interrupted):
        searched(recipe(data, **search), workdir)


def test_trials_of_another_length_or_recipe_are_refused(data, runs, tmp_path):
    stopped(data, runs, tmp_path / "run", "dcn")
    with pytest.raises(ValueError, match=r"trial_rows=640, .* trials of 1280; give --config.search.trial_rows=640, or"):
        searched(recipe(data, trial_rows=1280), tmp_path / "run")
    other = recipe(data)
    other.optimizer.learning_rate = 0.5
    with pytest.raises(ValueError, match="holds a trial of 'logistic_regression' with another recipe"):
        searched(other, tmp_path / "run")
    judges = recipe(data, "dlrm", "dcn:train.monitor=log_loss")
    with pytest.raises(ValueError, match=r"one train.monitor must judge all of them; found auc, log_loss"):
        searched(judges, tmp_path / "other")
    searched(recipe(data), tmp_path / "run")
    searched(recipe(data, trial_rows=1280), tmp_path / "run")  # the best is chosen


def test_a_search_of_a_version_with_fewer_fields_goes_on(data, runs, tmp_path):
    stopped(data, runs, tmp_path / "run", "deepfm")
    path = tmp_path / "run" / "trials.json"
    content = json.loads(path.read_text())
    for config in content["recipes"].values():
        del config["stream"]["new_values"]
    path.write_text(json.dumps(content))
    assert searched(recipe(data), tmp_path / "run")[1]["chosen"] == "dlrm"
    assert [model for model, *_ in runs.calls] == [*CANDIDATES, "deepfm", "dlrm"]  # what had finished is not repeated


def test_the_best_is_one_of_the_candidates_of_now(data, runs, tmp_path):
    stopped(data, runs, tmp_path / "run", "deepfm")
    _, found = searched(recipe(data, "logistic_regression", "dcn"), tmp_path / "run")
    assert found["chosen"] == "dcn" and runs.calls[-1][:2] == ("dcn", "run")
    assert "dlrm" in {trial["label"] for trial in found["trials"]}
    with pytest.raises(ValueError, match="holds the run of 'dcn', which is no candidate now; choose another --workdir"):
        searched(recipe(data, "dlrm"), tmp_path / "run")


def test_a_run_that_is_not_of_the_search_is_refused(data, runs, tmp_path, monkeypatch):
    """A run in the directory of a search that was stopped between trials, and before the best was moved."""
    stopped(data, runs, tmp_path / "trying", "dcn")
    with monkeypatch.context() as patch:
        patch.setattr(run.TrialRuns, "adopt", lambda self, chosen: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            searched(recipe(data), tmp_path / "chosen")
    for name in ("trying", "chosen"):
        own = recipe(data, "dlrm").model
        runs.train(RunConfig(model=own, train=TrainConfig(steps=5)), str(tmp_path / name))
        with pytest.raises(ValueError, match=r"but trials.json and trials/"):
            searched(recipe(data), tmp_path / name)
        for found in (tmp_path / name).iterdir():  # as the message says
            if found.name not in ("trials.json", "trials"):
                shutil.rmtree(found) if found.is_dir() else found.unlink()
        assert searched(recipe(data), tmp_path / name)[1]["chosen"] == "dlrm"


def test_kills_change_nothing(data, runs, tmp_path, monkeypatch):
    """Before and after each write, move, deletion and run."""
    config = recipe(data, *CANDIDATES[:3])
    fitted = run.fitted_contestants(run.contestants(config, config.search.candidates), config.data, 0)
    monkeypatch.setattr(run, "fitted_contestants", lambda *arguments: fitted)  # it takes time and writes nothing
    searched(config, tmp_path / "whole")
    expected, life = files(tmp_path / "whole"), Life()

    monkeypatch.setattr(trials, "write_json", life.mortal(write_json))
    monkeypatch.setattr(run, "train_and_evaluate", life.mortal(runs.train))
    monkeypatch.setattr(os, "replace", life.mortal(os.replace))
    monkeypatch.setattr(shutil, "rmtree", life.mortal(shutil.rmtree))
    for moment in range(1000):
        workdir, life.left = tmp_path / f"cut-{moment}", moment
        try:
            searched(config, workdir)
        except Killed:
            life.left = math.inf
            searched(config, workdir)
        else:
            break
        assert files(workdir) == expected, moment
    assert moment > 40
