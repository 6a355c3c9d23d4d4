"""Evaluation sets of one class: told before training, trained by another metric, and left out of every report."""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tfrs_dlrm.config import DataConfig, DLRMConfig, OptimizerConfig, RunConfig, TrainConfig
from tfrs_dlrm.data.preparing.prepare import prepare
from tfrs_dlrm.programs import launch
from tfrs_dlrm.schema import CategoricalFeature, DenseFeature, Label, Schema, Table
from tfrs_dlrm.training import loop
from tfrs_dlrm.training.loop import train_and_evaluate

FEATURES = {
    "dense": (DenseFeature("price", transform="log1p"),),
    "categorical": (CategoricalFeature("site"),),
    "tables": (Table("site", 4),),
}


def log(rows: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Three clicks, all of them early."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {"clicked": 0, "price": rng.exponential(5, rows), "site": rng.integers(0, 8, rows).astype(str)}
    )
    frame.loc[[3, 150, 420], "clicked"] = 1
    return frame


def config(path, **train) -> RunConfig:
    return RunConfig(
        DataConfig(path=str(path)),
        DLRMConfig(embedding_dim=4, bottom_mlp=(8, 4), top_mlp=(8, 1)),
        OptimizerConfig("adam", 0.005, "rowwise_adagrad", 0.02),
        TrainConfig(**{"batch_size": 100, "epochs": 1, "tensorboard": False, **train}),
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("clicks") / "prepared"
    prepare(Schema(Label("clicked"), **FEATURES), log()[:900], str(path), eval_inputs=log()[900:])
    return path


@pytest.mark.parametrize(
    ("train", "advice"),
    [
        ({}, "so there is no AUC to choose the best by; give --config.train.monitor=log_loss, or prepare"),
        ({"monitor": "auc_minus_log_loss"}, "give --config.train.monitor=log_loss, or prepare the data"),
        ({"target_auc": 0.8}, "reach config.train.target_auc=0.8; give --config.train.target_auc=0 --config.train.mon"),
    ],
)
def test_no_epoch_is_trained_for_a_choice_that_cannot_be_made(data, tmp_path, train, advice, monkeypatch):
    monkeypatch.setattr(loop, "make_model", lambda *_: pytest.fail("a model was made"))
    with pytest.raises(ValueError, match="all 100 labels of the evaluation set are 0, so there is no AUC") as e:
        train_and_evaluate(config(data, **train), str(tmp_path / "run"))
    assert advice in str(e.value)
    assert not (tmp_path / "run").exists()


def test_by_log_loss_it_trains_and_leaves_out_what_does_not_exist(data, tmp_path, capfd):
    run = tmp_path / "run"
    result = train_and_evaluate(config(data, epochs=2, monitor="log_loss", patience=3), str(run))
    assert 0 < result.best["log_loss"] < 1.5
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert all(not {"auc", "normalized_entropy", "calibration"} & record["eval"].keys() for record in records)
    assert "null" not in (run / "metrics.jsonl").read_text() and "NaN" not in (run / "metrics.jsonl").read_text()
    assert launch.call("evaluate", [f"--workdir={run}", "--gauc=site"]) == 0
    out = capfd.readouterr().out
    assert "left out, because all 100 labels are 0: AUC, NE, calibration." in out and "nan" not in out
    assert "GAUC by site: none, no group has both classes." in out
    assert "NaN" not in (run / "groups.json").read_text()


@pytest.mark.slow
def test_every_program_goes_on_without_the_auc(data, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    arguments = ["--config=configs/default.py", f"--config.data.path={data}", "--config.train.batch_size=100"]
    arguments += ["--config.train.steps=9", "--config.train.monitor=log_loss"]
    assert launch.call("train", [*arguments, "--workdir=run"]) == 0
    assert launch.call("explain", ["--workdir=run", "--parts=importance"]) == 0
    assert launch.call("report", ["--workdir=run", "--examples=50"]) == 0
    assert launch.call("export", ["--workdir=run", "--output=bundle", "--tables=int8"]) == 0
    models = "--models=logistic_regression,dlrm"
    assert launch.call("compare", [*arguments, models, "--seeds=2", "--nomeasure", "--output=compared"]) == 0
    out, err = capfd.readouterr()
    assert "left out, because all 50 labels are 0: AUC" in out and "nan" not in out, err
    for path in Path().rglob("*.json*"):
        assert "NaN" not in path.read_text(), path


def test_a_label_of_numbers_that_are_all_equal_trains(tmp_path):
    frame = log().assign(clicked=2.5)
    schema = Schema(Label("clicked", task="regression"), **FEATURES)
    prepare(schema, frame[:900], str(tmp_path / "prepared"), eval_inputs=frame[900:])
    result = train_and_evaluate(config(tmp_path / "prepared"), str(tmp_path / "run"))
    assert result.best["rmse"] < 2
    assert "null" not in (tmp_path / "run" / "metrics.jsonl").read_text()


def test_further_labels_that_no_evaluation_row_has(tmp_path):
    frame = log().assign(bought=0.0)
    frame.loc[np.arange(0, 1000, 7), "clicked"] = 1
    frame.loc[900:, "bought"] = np.nan
    schema = Schema(Label("clicked"), more_labels=(Label("bought", name="bought"),), **FEATURES)
    prepare(schema, frame[:900], str(tmp_path / "prepared"), eval_inputs=frame[900:])
    result = train_and_evaluate(config(tmp_path / "prepared"), str(tmp_path / "run"))
    assert result.best["examples_bought"] == 0 and "auc" in result.best
    assert "auc_bought" not in result.best and "log_loss_bought" not in result.best


def test_weights_that_are_all_0_are_refused(tmp_path):
    frame = log().assign(weight=1.0)
    frame.loc[900:, "weight"] = 0.0
    schema = Schema(Label("clicked"), weight="weight", **FEATURES)
    prepare(schema, frame[:900], str(tmp_path / "prepared"), eval_inputs=frame[900:])
    with pytest.raises(ValueError, match="no row of the evaluation set has a weight above 0"):
        train_and_evaluate(config(tmp_path / "prepared", monitor="log_loss"), str(tmp_path / "run"))


def test_prepare_and_infer_say_it(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    log().to_csv("clicks.csv", index=False)
    assert launch.call("infer", ["--input=clicks.csv", "--output=schema.json"]) == 0
    assert "0.3% are 1; only 3 of 1,000 rows are 1: an evaluation set needs many" in capfd.readouterr().out
    prepare_it = ["--schema=schema.json", "--input=clicks.csv"]
    assert launch.call("prepare", [*prepare_it, "--eval_fraction=0.1", "--output=one"]) == 0
    out = capfd.readouterr().out
    assert "Note: label: 3 of" in out and "training rows are 1; a model learns little from so few." in out
    assert "rows of the evaluation set are 0; it has no AUC there." in out
    log()[:5].assign(price="cheap").to_csv("bad.csv", index=False)
    assert launch.call("prepare", [*prepare_it, "--eval_input=bad.csv", "--bad_rows=quarantine", "--output=two"]) == 1
    assert "bad.csv: no usable row for evaluation; bad_rows='error', and another output, says" in capfd.readouterr().err
    assert launch.call("prepare", [*prepare_it, "--eval_fraction=0.00001", "--output=three"]) == 0
    assert "Note: the evaluation set has no row: a run then keeps its last" in capfd.readouterr().out
    assert os.path.exists("three/prepared.json")
