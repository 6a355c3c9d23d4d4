"""Learning rates that are cut where evaluations find nothing better."""

import dataclasses
import json
import os
import signal
from pathlib import Path

import click_log
import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from tensorflow.python.summary.summary_iterator import summary_iterator

from tfrs_dlrm.config import DataConfig, DLRMConfig, OptimizerConfig, RunConfig, TrainConfig
from tfrs_dlrm.data.preparing.prepare import prepare
from tfrs_dlrm.distribute.strategies import make_strategy
from tfrs_dlrm.models.tasks import task_of
from tfrs_dlrm.schema import Label
from tfrs_dlrm.training import factory, loop
from tfrs_dlrm.training.callbacks import Interrupted, StepCounter
from tfrs_dlrm.training.loop import train_and_evaluate
from tfrs_dlrm.training.state import RunState, quality
from tfrs_dlrm.training.workdir import Workdir

# The qualities of seven evaluations: better, worse, better, the same, worse, worse, better.
AUCS = [0.6, 0.5, 0.7, 0.7, 0.6, 0.65, 0.71]
CUTS = [0, 1, 1, 2, 3, 4, 4]  # so many after each, with a patience of 1
DENSE, ROWS, LOWEST = 0.05, 0.2, 0.002
OPTIMIZER = OptimizerConfig(
    "sgd", DENSE, "adagrad", ROWS, plateau_factor=0.25, end_learning_rate=LOWEST, embedding_per_table="site=sgd"
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return click_log.make(str(tmp_path_factory.mktemp("log")))


@pytest.fixture(scope="module", autouse=True)
def constructed():
    """Evaluations find AUCS."""

    def evaluate(run):
        return {"auc": AUCS[run.counter.step // 10 - 1], "log_loss": 0.5}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.TrainingRun, "evaluate", evaluate)
        yield


@pytest.fixture(scope="module")
def whole(data, constructed, tmp_path_factory):
    """The directory of a run that nothing stopped."""
    directory = tmp_path_factory.mktemp("whole")
    result = train_and_evaluate(make_config(data, tensorboard=True), str(directory))
    assert (result.step, result.best_step) == (70, 70)
    return directory


def make_config(data, optimizer=OPTIMIZER, **train):
    model = DLRMConfig(embedding_dim=8, bottom_mlp=(16, 8), top_mlp=(16, 1))
    fields = {"batch_size": 64, "steps": 70, "eval_every_steps": 10, "tensorboard": False, **train}
    return RunConfig(DataConfig(path=data, shuffle_rows=500), model, optimizer, TrainConfig(**fields))


def weights(workdir):
    """Tables, slots and dense weights of the latest checkpoint, without what optimizers count."""
    out = {}
    for file in ("rows", "dense"):
        reader = tf.train.load_checkpoint(os.path.join(Workdir(str(workdir)).checkpoint("latest"), file))
        names = [n for n in reader.get_variable_to_shape_map() if n != "_CHECKPOINTABLE_OBJECT_GRAPH"]
        out |= {n: reader.get_tensor(n) for n in names if file == "rows" or "kernel" in n or "bias" in n}
    return out


def records(workdir):
    return [json.loads(line) for line in (Path(workdir) / "metrics.jsonl").read_text().splitlines()]


def by_hand(base):
    """The rate of each round: nothing is cut before the first evaluation."""
    return [max(base * 0.25**cuts, LOWEST) for cuts in [0, *CUTS[:-1]]]


def assert_equal(a, b, tolerance=0.0):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=0, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("monitor, expected", [("", 0.75), ("log_loss", -0.5), ("auc_minus_log_loss", 0.25)])
def test_what_makes_an_evaluation_the_best(monitor, expected):
    assert quality(monitor, task_of(Label("y")), {"auc": 0.75, "log_loss": 0.5}) == expected
    if not monitor:
        assert quality(monitor, task_of(Label("y", task="regression")), {"rmse": 2.0}) == -2.0


@pytest.mark.parametrize("patience, cuts", [(1, CUTS), (2, [0, 0, 0, 0, 1, 1, 1]), (3, [0, 0, 0, 0, 0, 1, 1])])
def test_what_evaluations_make_of_the_factor(patience, cuts):
    state = RunState(OptimizerConfig(plateau_factor=0.1, plateau_patience=patience))
    for i, auc in enumerate(AUCS):
        before = float(state.rate_factor.numpy())
        assert state.evaluated(i, auc) == (state.rate_factor.numpy() != before)
        assert float(state.rate_factor.numpy()) == pytest.approx(0.1 ** cuts[i], rel=1e-6)
    assert (float(state.best_auc.numpy()), int(state.best_step.numpy())) == (0.71, 6)


@pytest.mark.slow
def test_the_rates_of_a_run_are_those_worked_out_by_hand(data, whole, tmp_path, monkeypatch):
    """And its weights are, bit by bit, those of a run with Keras' schedule of these rates."""
    found = [r["learning_rate"] for r in records(whole)]
    assert [r["dense"] for r in found] == pytest.approx(by_hand(DENSE), rel=1e-6)
    assert [r["embedding"] for r in found] == pytest.approx(by_hand(ROWS), rel=1e-6)
    assert by_hand(DENSE)[-1] == LOWEST < by_hand(ROWS)[-2]
    (events,) = (whole / "tensorboard").glob("events*")
    shown = {
        (v.tag, e.step): float(tf.make_ndarray(v.tensor))
        for e in summary_iterator(str(events))
        for v in e.summary.value
        if v.tag.startswith("learning_rate/")
    }
    assert [shown["learning_rate/dense", step] for step in range(10, 71, 10)] == [r["dense"] for r in found]
    assert len(shown) == 14

    def piecewise(config, peak, factor):
        assert factor == 1.0
        # Powers of 2, and one bound, so that both arrive at the same float32.
        return keras.optimizers.schedules.PiecewiseConstantDecay(list(range(9, 69, 10)), by_hand(peak))

    monkeypatch.setattr(factory, "_rate", piecewise)
    plain = dataclasses.replace(OPTIMIZER, plateau_factor=1.0, end_learning_rate=0.0)
    train_and_evaluate(make_config(data, plain), str(tmp_path))
    assert_equal(weights(whole), weights(tmp_path))


def test_a_run_that_was_stopped_goes_on_with_the_same_rates(data, whole, tmp_path, monkeypatch):
    """In the middle of a round with rates that were cut twice."""
    count = StepCounter.on_train_batch_end

    def send_signal(self, batch, logs=None):
        count(self, batch, logs)
        if self.step == 44:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(StepCounter, "on_train_batch_end", send_signal)
        with pytest.raises(Interrupted, match="after step 44"):
            train_and_evaluate(make_config(data), str(tmp_path))
    train_and_evaluate(make_config(data), str(tmp_path))
    assert records(whole) == records(tmp_path)
    assert_equal(weights(whole), weights(tmp_path))
    other = dataclasses.replace(OPTIMIZER, plateau_factor=0.5)
    with pytest.raises(ValueError, match=r"holds a run with optimizer.plateau_factor=0.25, now it is 0.5"):
        train_and_evaluate(make_config(data, other), str(tmp_path))
    with pytest.raises(ValueError, match=r"holds a run with train.monitor=, now it is log_loss"):
        train_and_evaluate(make_config(data, monitor="log_loss"), str(tmp_path))


def test_patience_goes_by_what_is_monitored(data, tmp_path):
    config = make_config(data, monitor="auc_minus_log_loss", patience=1)
    result = train_and_evaluate(config, str(tmp_path))
    assert (result.step, result.best_step) == (20, 10)
    assert result.reason == "the evaluation auc minus log loss did not improve in 1 evaluations"
    with pytest.raises(ValueError, match=r"config.train.monitor='log_loss': train.target_auc is of the best AUC"):
        make_config(data, monitor="log_loss", target_auc=0.7).check()


@pytest.mark.slow
def test_replicas_cut_as_one_device_does(data, whole, tmp_path):
    train_and_evaluate(make_config(data, steps=70), str(tmp_path), make_strategy("mirrored", 3))
    one, three = ([r["learning_rate"] for r in records(directory)] for directory in (whole, tmp_path))
    assert one == three
    assert_equal(weights(whole), weights(tmp_path), 1e-4)


@pytest.mark.parametrize(
    "optimizer, train, field",
    [
        (OPTIMIZER, {}, r"optimizer\.plateau_factor=0\.25"),
        (OptimizerConfig(), {"patience": 2}, r"train\.patience=2"),
        (OptimizerConfig(), {"target_auc": 0.7}, r"train\.target_auc=0\.7"),
        (OptimizerConfig(), {"monitor": "log_loss"}, r"train\.monitor='log_loss'"),
    ],
)
def test_without_an_evaluation_set_they_are_refused(tmp_path, optimizer, train, field):
    click_log.write(str(tmp_path / "log.csv"), 200)
    prepare(click_log.SCHEMA, [str(tmp_path / "log.csv")], str(tmp_path / "data"))
    with pytest.raises(ValueError, match=rf"config\.{field}: .* has no evaluation set to go by"):
        train_and_evaluate(make_config(str(tmp_path / "data"), optimizer, **train), str(tmp_path / "run"))
