"""Updates of a run, with real training: what is compared, what becomes of the run, and what is refused."""

import json
import os
import shutil

import numpy as np
import pandas as pd
import pytest
import updated_run
from run_weights import weights

from tfrs_dlrm.config import OptimizerConfig, RunConfig
from tfrs_dlrm.data.encoding.vocabulary import read_vocabulary
from tfrs_dlrm.data.preparing.manifest import PreparedManifest
from tfrs_dlrm.distribute.strategies import make_strategy
from tfrs_dlrm.serving.bundle.manifest import read_manifest
from tfrs_dlrm.serving.exporting.export import ExportOptions, export
from tfrs_dlrm.tools.update import UpdateOptions, read_updates, run, update
from tfrs_dlrm.training.calibrate import calibrate
from tfrs_dlrm.training.evaluation import evaluate_run
from tfrs_dlrm.training.loop import train_and_evaluate
from tfrs_dlrm.training.workdir import Workdir

ANY = UpdateOptions(tolerance=10.0)


def files(directory):
    return {os.path.relpath(os.path.join(d, f), directory) for d, _, names in os.walk(directory) for f in names}


def contents(directory):
    return {name: open(os.path.join(directory, name), "rb").read() for name in files(directory)}


def test_two_days(tmp_path):
    """Each day's numbers equal those of the programs, called one by one; the run is the current model."""
    workdir = updated_run.make(tmp_path)
    first, vocabulary = shutil.copytree(workdir, tmp_path / "first"), read_vocabulary
    options = UpdateOptions(tolerance=10.0, learning_rate=0.003)
    days = [updated_run.log(tmp_path, n) for n in (1, 2)]
    found = update(workdir, days[0], options)
    record, data = found.record, os.path.join(workdir, "updates/0001/data")
    assert record.accepted and not found.earlier and record.rows["train"] + record.rows["eval"] == 400
    for split, metrics in (("eval", record.current), ("train", None)):
        scored = evaluate_run(str(first), data, split).scores
        if metrics:
            assert metrics == scored.metrics()
        else:
            parts = [scored, evaluate_run(str(first), data, "eval").scores]
            labels, logits, w = (
                np.concatenate([getattr(p, n) for p in parts]) for n in ("labels", "logits", "weights")
            )
            loss = np.average(np.logaddexp(0, logits) - labels * logits, weights=w)
            assert record.before["log_loss"] == pytest.approx(loss, rel=1e-6)
    assert record.candidate == evaluate_run(workdir).scores.metrics()
    # The same training by hand.
    config = Workdir(str(first)).config()
    config.data = type(config.data)(path=data)
    config.optimizer = OptimizerConfig(learning_rate=0.003, embedding_learning_rate=0.1)
    config.train.warm_start, config.train.monitor, config.train.patience = str(first), "log_loss", 0
    train_and_evaluate(config, str(tmp_path / "hand"))
    mine, theirs = weights(workdir), weights(tmp_path / "hand")
    assert len(os.listdir(os.path.join(workdir, "checkpoints"))) == 1
    assert mine.keys() == theirs.keys() and all(np.array_equal(mine[n], theirs[n]) for n in mine if "seconds" not in n)
    # The share of new values, by pandas.
    log = pd.read_csv(days[0])
    before, now = (set(vocabulary(d, "site")) for d in (str(first / "encoder"), data))
    assert record.new_values["site"] == pytest.approx(np.mean([s in now - before for s in log.site]))
    assert record.unseen_values["site"] == pytest.approx(np.mean([s not in now for s in log.site]))

    second = update(workdir, days[1], options, make_strategy("one_device")).record
    assert second.update == 2 and [r.update for r in read_updates(workdir)] == [1, 2]
    assert PreparedManifest.load(Workdir(workdir).config().data.path).chain[-1].name == data
    assert sorted(os.listdir(os.path.join(workdir, "updates"))) == ["0002"]
    assert os.listdir(os.path.join(workdir, "updates/0002")) == ["data"]
    assert evaluate_run(workdir).scores.metrics() == second.candidate
    again = update(workdir, days[0], options)
    assert again.earlier and again.record == record
    with pytest.raises(ValueError, match=r"day-1.csv was used already, in .*; its rows would count twice"):
        update(workdir, days, options)


def test_a_worse_model_is_left_out(tmp_path):
    workdir, day = updated_run.make(tmp_path), updated_run.log(tmp_path, 1)
    expected = contents(workdir)
    worse = UpdateOptions(learning_rate=3.0, embedding_learning_rate=30.0, export=str(tmp_path / "exports"))
    record = update(workdir, day, worse).record
    assert not record.accepted and ("more than the tolerance of 1.00%" in record.reason or "diverged" in record.reason)
    found = contents(workdir)
    assert json.loads(found.pop("updates.jsonl"))["decision"] == "rejected" and found == expected
    assert not (tmp_path / "exports").exists() and os.listdir(os.path.join(workdir, "updates")) == []
    assert update(workdir, day, worse).earlier
    second = update(workdir, day, ANY)  # other choices
    assert second.record.accepted and second.record.update == 2 and update(workdir, day, worse).record == second.record


@pytest.mark.slow
def test_a_calibration_and_the_form_of_a_bundle_stay(tmp_path):
    workdir, exports = updated_run.make(tmp_path), str(tmp_path / "exports/clicks")
    calibrate(workdir).found.save(Workdir(workdir))
    export(workdir, exports, options=ExportOptions(context=("user",), storage="float16"))
    record = update(workdir, updated_run.log(tmp_path, 1), UpdateOptions(tolerance=10.0, export=exports)).record
    assert record.version == 2
    one, two = (read_manifest(os.path.join(exports, v)) for v in "12")
    assert (two.context, two.tables["storage"]) == (one.context, "float16")
    assert two.calibration == one.calibration is not None
    assert evaluate_run(workdir).scores.metrics() == record.candidate


def test_bad_days_leave_no_trace(tmp_path):
    workdir = updated_run.make(tmp_path)
    expected = contents(workdir)
    day = updated_run.log(tmp_path, 1)
    frame = pd.read_csv(day)
    first = PreparedManifest.load(Workdir(workdir).config().data.path).train_stamps()[0]["path"]
    cases = {
        "empty": (frame[:0], {}, "empty.csv"),
        "one class": (frame[frame.clicked == 1], {}, "all training rows have the label 1"),
        "small": (frame[:30], {}, "fewer than a batch of 40; wait for more rows"),
        "no eval": (frame[:60], {"eval_fraction": 0.0001}, "leaves no row to compare the models on"),
    }
    for name, (rows, options, message) in cases.items():
        path = tmp_path / f"{name.replace(' ', '_')}.csv"
        rows.to_csv(path, index=False)
        with pytest.raises(ValueError, match=message):
            update(workdir, str(path), UpdateOptions(**options))
        assert contents(workdir) == expected, name
    with pytest.raises(ValueError, match="was used already"):
        update(workdir, first)
    with pytest.raises(FileNotFoundError, match=r"none\.csv"):
        update(workdir, str(tmp_path / "none.csv"))
    with pytest.raises(FileNotFoundError, match="nowhere: holds no run"):
        update(str(tmp_path / "nowhere"), day)
    assert not (tmp_path / "nowhere").exists() and contents(workdir) == expected
    config = Workdir(workdir).config()
    damages = {
        "prepared.json": (os.remove, "no prepared data"),
        "vocabulary/site.txt": (lambda path: path.write_bytes(b"x"), "damaged or changed since it was written"),
    }
    for name, (damage, message) in damages.items():
        base = shutil.copytree(config.data.path, tmp_path / os.path.basename(name))
        changed = RunConfig.from_dict(config.to_dict())
        changed.data.path = str(base)
        with open(os.path.join(workdir, "config.json"), "w") as f:
            json.dump(changed.to_dict(), f)
        damage(base / name)
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            update(workdir, day)
        assert files(workdir) == set(expected), message


def test_choices_that_cannot_be(tmp_path):
    for wrong in ({"eval_fraction": 0.0}, {"epochs": 0.0}, {"tolerance": -1.0}, {"half_life": "x"}, {"day": "x"}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))}="):
            update(str(tmp_path), "log.csv", UpdateOptions(**wrong))


def test_one_update_at_a_time(tmp_path, monkeypatch):
    workdir, days = updated_run.make(tmp_path), [updated_run.log(tmp_path, n) for n in (1, 2)]

    def another(*args, **kwargs):
        with pytest.raises(ValueError, match=r"run: in use by this process .* which updates the run in it since"):
            update(workdir, days[1], ANY)
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "train_and_evaluate", another)
    with pytest.raises(KeyboardInterrupt):
        update(workdir, days[0], ANY)
    with pytest.raises(ValueError, match=r"update 1 of .*day-1.csv is unfinished; finish it .*, or give it up: remove"):
        update(workdir, days[1], ANY)
    with pytest.raises(ValueError, match=r"update 1 with tolerance=10.0 is unfinished"):
        update(workdir, days[0])
    os.remove(os.path.join(workdir, "updates/unfinished.json"))  # as the message says
    monkeypatch.undo()
    assert update(workdir, days[1], ANY).record.update == 2  # the directory of the first was there
