"""Whole runs on a small log: they learn, stop when told, and go on as if they had never been interrupted."""

import dataclasses
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import click_log
import numpy as np
import prepared_files
import pytest
import tensorflow as tf
from cases import matrix
from run_weights import weights

from tfrs_dlrm.checkpoint import save
from tfrs_dlrm.config import DataConfig, DLRMConfig, OptimizerConfig, RunConfig, TrainConfig
from tfrs_dlrm.schema import Schema, Table
from tfrs_dlrm.serving.exporting.export import export
from tfrs_dlrm.stores.lock import InUseError
from tfrs_dlrm.training import loop
from tfrs_dlrm.training.callbacks import Interrupted, StepCounter
from tfrs_dlrm.training.evaluation import NonFiniteError, evaluate_run
from tfrs_dlrm.training.loop import train_and_evaluate
from tfrs_dlrm.training.workdir import Workdir


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return click_log.make(str(tmp_path_factory.mktemp("log")))


def make_config(data, **train):
    return RunConfig(
        DataConfig(path=data, shuffle_rows=500),
        DLRMConfig(embedding_dim=8, bottom_mlp=(16, 8), top_mlp=(16, 1)),
        OptimizerConfig("adam", 0.005, "rowwise_adagrad", 0.02),
        TrainConfig(**{"batch_size": 64, "epochs": 2, "eval_every_steps": 20, "tensorboard": False, **train}),
    )


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """The run of `make_config` that nothing interrupts; tests only read it."""
    workdir = tmp_path_factory.mktemp("run") / "whole"
    train_and_evaluate(make_config(data), str(workdir))
    return workdir


def steps_of(directory):
    return sorted(p.name for p in Path(directory).iterdir())


def lines(workdir):
    return Path(workdir, "metrics.jsonl").read_text().splitlines()


def assert_same_run(a, b):
    assert lines(a) == lines(b)
    left, right = weights(a), weights(b)
    assert left.keys() == right.keys()
    for name in left:
        np.testing.assert_array_equal(left[name], right[name], err_msg=name)


def test_a_batch_with_more_rows_than_there_are_is_refused_before_training(data, tmp_path):
    with pytest.raises(ValueError, match=r"\d+ train rows are too few for a batch of 100000; lower it by --config\.t"):
        train_and_evaluate(make_config(data, batch_size=100000), str(tmp_path / "run"))
    assert not (tmp_path / "run").exists() or not list((tmp_path / "run").rglob("*.index"))


def test_a_run_learns_and_reports(data, tmp_path):
    result = train_and_evaluate(make_config(data, epochs=6, tensorboard=True), str(tmp_path))
    records = [json.loads(line) for line in lines(tmp_path)]
    steps = [r["step"] for r in records]
    assert steps[:3] == [20, 40, 60] and steps[-1] == result.step
    assert result.best["auc"] == max(r["eval"]["auc"] for r in records) > 0.63
    assert result.best_step == max(records, key=lambda r: r["eval"]["auc"])["step"]
    assert list(tmp_path.glob("tensorboard/events*"))
    # The best checkpoint, scored anew, gives the metrics that were reported of it.
    assert evaluate_run(str(tmp_path)).scores.metrics() == result.best


def test_stops_at_the_target(data, tmp_path):
    result = train_and_evaluate(make_config(data, epochs=50, target_auc=0.6), str(tmp_path))
    assert "target 0.6" in result.reason and result.best["auc"] >= 0.6 and result.step < 400
    again = train_and_evaluate(make_config(data, epochs=50, target_auc=0.6), str(tmp_path))
    assert again == result


@pytest.mark.slow
def test_stops_without_improvement_and_keeps_the_best(data, tmp_path):
    result = train_and_evaluate(make_config(data, epochs=100, patience=3), str(tmp_path))
    aucs = [json.loads(line)["eval"]["auc"] for line in lines(tmp_path)]
    assert "did not improve in 3" in result.reason
    assert aucs.index(max(aucs)) == len(aucs) - 4 and result.best["auc"] == max(aucs)


@pytest.mark.parametrize("step", matrix([27, 40], fast=[27]))
def test_sigterm_changes_nothing(data, whole, tmp_path, monkeypatch, step):
    """In the middle of a round, and on its last step, when the evaluation is still to come."""
    config = make_config(data)
    count = StepCounter.on_train_batch_end

    def send_signal(self, batch, logs=None):
        count(self, batch, logs)
        if self.step == step:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(StepCounter, "on_train_batch_end", send_signal)
        before = signal.getsignal(signal.SIGTERM)
        with pytest.raises(Interrupted, match=rf"after step {step}; the checkpoint is .*step-{step}"):
            train_and_evaluate(config, str(tmp_path / "cut"))
        assert signal.getsignal(signal.SIGTERM) == before
    train_and_evaluate(config, str(tmp_path / "cut"))
    assert_same_run(whole, tmp_path / "cut")


@pytest.mark.slow
def test_sigterm_on_the_last_step_lets_the_run_end(data, tmp_path, monkeypatch):
    count = StepCounter.on_train_batch_end

    def send_signal(self, batch, logs=None):
        count(self, batch, logs)
        if self.step == 30:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(StepCounter, "on_train_batch_end", send_signal)
    result = train_and_evaluate(make_config(data, steps=30), str(tmp_path))
    assert result.step == 30 and result.best and steps_of(tmp_path / "best") == ["step-30"]
    with pytest.raises(
        Interrupted, match=r"after step 30; the checkpoint is .*step-30"
    ):  # for what trains another next
        result.unless_interrupted()
    assert train_and_evaluate(make_config(data, steps=30), str(tmp_path)).unless_interrupted() == result


@pytest.mark.slow
def test_a_run_that_stopped_goes_on_under_other_limits(data, tmp_path):
    stopped = train_and_evaluate(make_config(data, target_auc=0.5), str(tmp_path))
    assert "target 0.5" in stopped.reason
    result = train_and_evaluate(make_config(data, target_auc=0.0), str(tmp_path))
    assert result.step > stopped.step and "all" in result.reason


@pytest.mark.parametrize("evaluation", matrix([0, -1], fast=[0]))
def test_a_failed_evaluation_throws_no_weight_away(data, whole, tmp_path, monkeypatch, evaluation):
    """The weights are saved, the error says how to go on, and the run ends as if the evaluation had not failed."""
    config, step = make_config(data), json.loads(lines(whole)[evaluation])["step"]
    real = loop.score_split

    def fail(model, *given):
        if int(model.embedding_optimizer.iterations.numpy()) == step:
            raise ValueError("eval/part-0.parquet: cannot be read; prepare the data again")
        return real(model, *given)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "score_split", fail)
        with pytest.raises(ValueError, match=rf"the evaluation at step {step} failed, .*step-{step}: eval/part-0") as e:
            train_and_evaluate(config, str(tmp_path / "cut"))
    assert "run the same command again, which resumes from the last checkpoint, evaluates it and con" in str(e.value)
    assert f"step-{step}" in steps_of(tmp_path / "cut" / "checkpoints")
    assert train_and_evaluate(config, str(tmp_path / "cut")).best_step
    assert_same_run(whole, tmp_path / "cut")


@pytest.mark.parametrize("asynchronous", matrix([True, False], fast=[True]))
@pytest.mark.slow
def test_a_full_disk_keeps_the_last_good_checkpoint(data, whole, tmp_path, monkeypatch, asynchronous):
    real = save.write_rows

    def full(work, stored, prefix, at_a_time):
        if "step-40" in prefix:
            raise tf.errors.ResourceExhaustedError(None, None, "rows-parts/000000.data; No space left on device")
        return real(work, stored, prefix, at_a_time)

    config = make_config(data, async_checkpoints=asynchronous)
    with monkeypatch.context() as patch:
        patch.setattr(save, "write_rows", full)
        with pytest.raises(OSError, match=r"the disk is full; .* which resumes from the last checkpoint"):
            train_and_evaluate(config, str(tmp_path / "cut"))
    assert steps_of(tmp_path / "cut" / "checkpoints") == ["step-20"]
    train_and_evaluate(config, str(tmp_path / "cut"))
    assert_same_run(whole, tmp_path / "cut")


@pytest.mark.slow
def test_steps_per_execution_changes_no_weight(data, whole, tmp_path):
    train_and_evaluate(make_config(data, steps_per_execution=7), str(tmp_path / "seven"))
    assert_same_run(whole, tmp_path / "seven")


_DRIVER = """
import json, os, signal, sys
import tfrs_dlrm
from tfrs_dlrm.config import RunConfig
from tfrs_dlrm.training.callbacks import StepCounter
from tfrs_dlrm.training.loop import train_and_evaluate
from tfrs_dlrm.training.workdir import Workdir
config, workdir, last = RunConfig.from_dict(json.loads(sys.argv[1])), sys.argv[2], int(sys.argv[3])
count = StepCounter.on_train_batch_end
def die(self, batch, logs=None):
    count(self, batch, logs)
    if self.step == last:
        os.kill(os.getpid(), signal.SIGKILL)
StepCounter.on_train_batch_end = die
train_and_evaluate(config, workdir)
"""


@pytest.mark.process
def test_sigkill_at_two_random_steps_changes_nothing(data, whole, tmp_path, moments):
    config = make_config(data)
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"}
    for step in (kills := sorted(moments.sample(range(3, 69), 2))):
        command = [sys.executable, "-c", _DRIVER, json.dumps(config.to_dict()), str(tmp_path / "cut"), str(step)]
        killed = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        assert killed.returncode == -signal.SIGKILL, (kills, killed.stderr[-2000:])
    train_and_evaluate(config, str(tmp_path / "cut"))
    assert_same_run(whole, tmp_path / "cut")


@pytest.mark.parametrize(
    "where, message",
    [
        pytest.param("label", r"the loss is nan at step 33; .*last good .* is .*step-20", marks=pytest.mark.matrix),
        # A fused ReLU turns NaN into 0: the loss stays finite while the weights are lost.
        ("dense", r"(the loss is nan at step 33|weights .* are not finite at step 40); .*good checkpoint is .*step-20"),
    ],
)
def test_nothing_that_is_not_finite_gets_into_a_checkpoint(data, tmp_path, monkeypatch, where, message):
    make_model = loop.make_model

    def poisoned(*args):
        model = make_model(*args)
        train_step = model.train_step

        def poisoned_step(inputs):
            features, label, weight = inputs
            poison = tf.where(tf.equal(model.optimizer.iterations, 32), math.nan, 0.0)
            if where == "dense":
                return train_step(({**features, "dense": features["dense"] + poison}, label, weight))
            return train_step((features, label + poison, weight))

        model.train_step = poisoned_step
        return model

    monkeypatch.setattr(loop, "make_model", poisoned)
    with pytest.raises(NonFiniteError, match=message):
        train_and_evaluate(make_config(data), str(tmp_path))
    for directory in ("checkpoints", "best"):
        assert steps_of(tmp_path / directory) == ["step-20"]
    assert all(np.isfinite(v).all() for v in weights(tmp_path).values() if v.dtype.kind == "f" and v.ndim)


def test_another_run_in_the_workdir_is_refused(data, tmp_path):
    train_and_evaluate(make_config(data, epochs=0.2), str(tmp_path / "run"))
    other = make_config(data)
    other.model.top_mlp = (32, 1)
    with pytest.raises(ValueError, match=r"model.top_mlp=\[16, 1\], now it is \[32, 1\]; choose another --workdir"):
        train_and_evaluate(other, str(tmp_path / "run"))


def test_data_of_another_schema_or_vocabulary_are_refused(data, tmp_path):
    workdir = str(tmp_path / "run")
    train_and_evaluate(make_config(data, epochs=0.2), workdir)
    price = dataclasses.replace(click_log.SCHEMA.dense[0], transform="none")
    other = dataclasses.replace(click_log.SCHEMA, dense=(price, *click_log.SCHEMA.dense[1:]))
    changed = click_log.make(str(tmp_path / "changed"), schema=other)
    message = "another schema than the checkpoints in .*: dense 'price' transform: 'log1p' != 'none'"
    with pytest.raises(ValueError, match=message):
        evaluate_run(workdir, changed)
    with pytest.raises(ValueError, match=message):
        train_and_evaluate(make_config(changed), workdir)
    again = click_log.make(str(tmp_path / "again"))
    vocabulary = Path(again, "vocabulary", "site.txt")
    vocabulary.write_text("".join(reversed(vocabulary.read_text().splitlines(keepends=True))))
    prepared_files.record(again)  # as if prepared from other rows
    with pytest.raises(ValueError, match=r"other vocabularies or statistics than the checkpoints .* mean other values"):
        evaluate_run(workdir, again)


@pytest.mark.slow
def test_a_damaged_checkpoint_is_passed_over(data, whole, tmp_path):
    train_and_evaluate(make_config(data, steps=40), str(tmp_path / "cut"))
    latest = tmp_path / "cut" / "checkpoints" / "step-40" / "rows.data-00000-of-00001"
    latest.write_bytes(latest.read_bytes()[:100])
    train_and_evaluate(make_config(data), str(tmp_path / "cut"))
    assert_same_run(whole, tmp_path / "cut")


@pytest.mark.slow
def test_bfloat16_trains_and_evaluates(data, tmp_path):
    result = train_and_evaluate(make_config(data, epochs=4, precision="bfloat16"), str(tmp_path))
    assert result.best["auc"] > 0.62
    assert evaluate_run(str(tmp_path)).scores.metrics()["auc"] == pytest.approx(result.best["auc"], abs=1e-6)
    assert tf.keras.mixed_precision.global_policy().name == "float32"


def test_ids_out_of_range_are_counted_in_the_log(data, tmp_path):
    """The tables are made smaller than what the data were encoded for, as after a mistake with files."""
    copy = tmp_path / "prepared"
    shutil.copytree(data, copy)
    schema = Schema.load(copy / "schema.json")
    rows = schema.table("slot").vocabulary_size
    schema.with_vocabulary_sizes({"slot": rows - 2}).save(copy / "schema.json")
    prepared_files.record(copy)
    train_and_evaluate(make_config(str(copy), steps=40), str(tmp_path / "run"))
    records = [json.loads(line) for line in lines(tmp_path / "run")]
    assert [r["step"] for r in records] == [20, 40]
    for record in records:
        assert set(record["out_of_range"]) == {"slot"}
        # Two of six values, each 64 * 20 / 6 times: 427.
        assert 300 < record["out_of_range"]["slot"] == record["train"]["out_of_range"] < 550


@pytest.mark.parametrize("compressed", [True, False], ids=["compressed", "mixed"])
@pytest.mark.slow
def test_a_run_on_compressed_tables_resumes_and_exports(data, tmp_path, compressed):
    """Bit by bit, as on plain ones: each way to store a table less exactly, and tables of several dimensions."""
    copy = str(tmp_path / "prepared")
    shutil.copytree(data, copy)
    if compressed:
        schema = Schema.load(f"{copy}/schema.json")
        change = {"site": {"remainders": 2}, "slot": {"dtype": "bfloat16"}}
        tables = [dataclasses.replace(t, **change.get(t.name, {"stored_in": "all"})) for t in schema.tables]
        dataclasses.replace(schema, tables=(*tables, Table("all", 4, 20))).save(f"{copy}/schema.json")
        prepared_files.record(copy)

    def config(steps):
        out = make_config(copy, steps=steps, eval_every_steps=80)
        out.optimizer.embedding_per_table = "" if compressed else "site=lazy_adam"
        out.model.mixed_dim_temperature = 0.0 if compressed else 0.5
        return out

    once, twice = str(tmp_path / "once"), str(tmp_path / "twice")
    train_and_evaluate(config(160), once)
    train_and_evaluate(config(80), twice)
    train_and_evaluate(config(160), twice)
    assert_same_run(once, twice)
    assert evaluate_run(once).scores.metrics()["auc"] > 0.6
    exported = export(once, str(tmp_path / "exported"))
    assert exported.comparison.largest_difference < 1e-6


def test_a_second_trainer_in_the_same_workdir_is_refused_and_harms_nothing(data, whole, tmp_path, monkeypatch):
    config, errors = make_config(data), []
    evaluate = loop.TrainingRun.evaluate

    def with_another(self):
        if not errors:
            with pytest.raises(InUseError) as e:
                train_and_evaluate(make_config(data, epochs=1), str(tmp_path / "run"))
            errors.append(str(e.value))
            assert Workdir(str(tmp_path / "run")).config() == config  # reading is free
        return evaluate(self)

    monkeypatch.setattr(loop.TrainingRun, "evaluate", with_another)
    train_and_evaluate(config, str(tmp_path / "run"))
    assert "run: in use by this process on" in errors[0] and "which trains the run in it since" in errors[0]
    assert_same_run(tmp_path / "run", whole)
    assert not list((tmp_path / "run").glob(".*"))


def test_an_unwritable_workdir_is_found_before_the_work(data, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "ensure_prepared", lambda *_: pytest.fail("the data come first"))
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"file/run: cannot be written: .*; choose another place"):
        train_and_evaluate(make_config(data), str(tmp_path / "file" / "run"))


def test_a_damaged_file_of_a_run_is_named_wherever_it_is_read(data, whole, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    for name in prepared_files.ENCODING:
        prepared_files.change_a_character(run / "encoder" / name)
        for use in (
            lambda: train_and_evaluate(make_config(data, epochs=3), str(run)),
            lambda: evaluate_run(str(run)),
            lambda: export(str(run), str(tmp_path / "out")),
        ):
            with pytest.raises(ValueError, match=f"encoder/{name}: damaged or changed .* the same file .* {data}$"):
                use()
        shutil.copy(Path(data, name), run / "encoder" / name)  # the advice
    assert not (tmp_path / "out").exists()
    assert evaluate_run(str(run)).scores.metrics() == evaluate_run(str(whole)).scores.metrics()


def test_a_run_of_an_earlier_version_has_no_checksums(data, whole, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    (run / "encoder" / "checksums.json").unlink()
    assert evaluate_run(str(run)).scores.metrics() == evaluate_run(str(whole)).scores.metrics()
