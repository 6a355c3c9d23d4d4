"""The checkpoints of a run: written while it goes on, and good whatever happens meanwhile."""

import json
import logging as std_logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from small_model import assert_equal, everything, make, train

import tfrs_dlrm as td
from tfrs_dlrm.checkpoint import Checkpoints, directory, save
from tfrs_dlrm.checkpoint import table_rows as rows
from tfrs_dlrm.distribute.strategies import Distribution, distribution_of


def checkpoints_of(model, home, **kwargs) -> Checkpoints:
    return Checkpoints(model, str(home / "checkpoints"), str(home / "best"), kwargs.pop("keep", 2), **kwargs)


def names(home) -> tuple[list[str], list[str]]:
    return tuple(sorted(os.listdir(home / name)) if (home / name).exists() else [] for name in ("checkpoints", "best"))


@pytest.fixture
def slow(monkeypatch):
    """Writing waits until `slow.set()`."""
    event, write = threading.Event(), rows.PartBatch.write

    def waiting(self, prefix):
        assert event.wait(300)
        return write(self, prefix)

    monkeypatch.setattr(rows.PartBatch, "write", waiting)
    return event


def test_training_goes_on_and_the_checkpoint_is_of_when_it_was_saved(tmp_path, slow):
    model = make()
    train(model)
    checkpoints = checkpoints_of(model, tmp_path)
    path = checkpoints.save(3)
    at_save = everything(model)
    train(model, seed=1)  # while it is being written
    changed = everything(model)
    (unfinished,), _ = names(tmp_path)
    assert unfinished.startswith("unfinished-step-3")
    assert all(np.any(changed[name] != at_save[name]) for name in at_save if name.startswith(("tables", "slots")))
    slow.set()
    checkpoints.wait()
    assert names(tmp_path) == (["step-3"], []) and os.path.basename(path) == "step-3"
    again = make(seed=5)
    td.restore_checkpoint(again, path)
    assert_equal(everything(again), at_save)


def test_one_save_waits_for_the_other_and_the_end_for_both(tmp_path, slow):
    model = make()
    with checkpoints_of(model, tmp_path) as checkpoints:
        checkpoints.save(1)
        threading.Timer(0.5, slow.set).start()
        assert "step-1" not in names(tmp_path)[0]
        checkpoints.save(2)
        assert "step-1" in names(tmp_path)[0]
    assert names(tmp_path) == (["step-1", "step-2"], [])


@pytest.mark.parametrize("why", ["memory", "configuration"])
def test_written_without_a_copy_where_there_is_no_room_for_one(tmp_path, monkeypatch, why):
    written, write = [], rows.PartBatch.write

    def noted(self, prefix):
        assert self._copy is None
        written.append(self)
        return write(self, prefix)

    monkeypatch.setattr(rows.PartBatch, "write", noted)
    if why == "memory":
        size = sum(v.nbytes for v in (np.asarray(x) for x in make().get_weights()))
        monkeypatch.setattr(save, "memory_of_host", lambda host: size)
    checkpoints = checkpoints_of(make(), tmp_path, asynchronous=why == "memory")
    checkpoints.save(1)
    assert names(tmp_path) == (["step-1"], []) and written


def test_an_error_behind_the_back_surfaces_at_the_next_call(tmp_path, monkeypatch):
    def full(**_):
        raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")

    checkpoints = checkpoints_of(make(), tmp_path)
    checkpoints.save(1)
    checkpoints.wait()
    for call in (checkpoints.wait, lambda: checkpoints.save(3)):
        with monkeypatch.context() as patch:
            patch.setattr(tf.raw_ops, "MergeV2Checkpoints", full)
            checkpoints.save(2, best=True)
            with pytest.raises(tf.errors.ResourceExhaustedError, match="No space left"):
                call()
        assert names(tmp_path) == (["step-1"], [])
    checkpoints.save(2)
    checkpoints.wait()
    assert names(tmp_path) == (["step-1", "step-2"], [])


def test_the_best_shares_its_bytes_and_is_replaced_by_a_better_one_only(tmp_path, monkeypatch):
    checkpoints = checkpoints_of(make(), tmp_path, keep=1, asynchronous=False)
    checkpoints.save(1, best=True)
    checkpoints.save(2)
    assert names(tmp_path) == (["step-2"], ["step-1"])
    real = directory.publish

    def publish(unfinished, path):
        assert (tmp_path / "best" / "step-1").is_dir()
        real(unfinished, path)

    monkeypatch.setattr(directory, "publish", publish)
    checkpoints.save(3, best=True)
    assert names(tmp_path) == (["step-3"], ["step-3"])
    for name in os.listdir(tmp_path / "best" / "step-3"):
        pair = [os.stat(tmp_path / which / "step-3" / name).st_ino for which in ("checkpoints", "best")]
        assert pair[0] == pair[1]


def test_the_best_is_copied_where_there_are_no_links(tmp_path, monkeypatch):
    def refused(*_):
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refused)
    model = make()
    checkpoints = checkpoints_of(model, tmp_path, asynchronous=False)
    checkpoints.save(1, best=True)
    again = make(seed=5)
    td.restore_checkpoint(again, str(tmp_path / "best" / "step-1"))
    assert_equal(everything(again), everything(model))


def test_the_latest_are_kept_and_what_a_run_went_back_from_is_not(tmp_path, caplog):
    model = make()
    checkpoints = checkpoints_of(model, tmp_path, asynchronous=False)
    kept = {}
    for step in (10, 20, 30, 40):
        train(model, seed=step)
        kept[step] = everything(model)
        checkpoints.save(step)
    assert names(tmp_path) == (["step-30", "step-40"], [])
    file = tmp_path / "checkpoints" / "step-40" / "rows.index"
    file.write_bytes(file.read_bytes()[:-30])
    with caplog.at_level(std_logging.WARNING, "absl"):
        assert checkpoints.restore() == str(tmp_path / "checkpoints" / "step-30")
    assert_equal(everything(model), kept[30])
    (warning,) = [r.getMessage() for r in caplog.records if "step-40" in r.getMessage()]
    assert "rows.index" in warning and "trying the checkpoint before it" in warning
    checkpoints.save(35)
    assert names(tmp_path) == (["step-30", "step-35"], [])


def test_none_is_good(tmp_path):
    checkpoints = checkpoints_of(make(), tmp_path, asynchronous=False)
    assert checkpoints.restore() is None
    for step in (1, 2):
        checkpoints.save(step)
        (tmp_path / "checkpoints" / f"step-{step}" / "manifest.json").unlink()
    with pytest.raises(ValueError, match="no checkpoint can be read; see the warnings above"):
        checkpoints.restore()


def test_leftovers_are_removed_and_what_was_being_replaced_comes_back(tmp_path):
    checkpoints = checkpoints_of(make(), tmp_path, asynchronous=False)
    checkpoints.save(1)
    checkpoints.save(2)
    home = tmp_path / "checkpoints"
    (home / "step-2").rename(home / "replaced-step-2")  # killed between two renames
    for name in ("unfinished-step-3", "unfinished-replaced-step-1", "replaced-step-1"):
        (home / name).mkdir()
    assert checkpoints.restore() == str(home / "step-2")
    assert names(tmp_path) == (["step-1", "step-2"], [])


def test_a_step_saved_again_replaces_the_former_one(tmp_path):
    model = make()
    checkpoints = checkpoints_of(model, tmp_path)
    checkpoints.save(1, best=True)
    train(model)
    checkpoints.save(1, best=True)
    checkpoints.wait()
    assert names(tmp_path) == (["step-1"], ["step-1"])
    for which in ("checkpoints", "best"):
        again = make(seed=5)
        td.restore_checkpoint(again, str(tmp_path / which / "step-1"))
        assert_equal(everything(again), everything(model))


def test_of_several_processes_the_chief_alone_writes(tmp_path, monkeypatch):
    checkpoints = checkpoints_of(make(), tmp_path)
    assert distribution_of().is_chief
    monkeypatch.setattr(Distribution, "is_chief", False)
    assert checkpoints.save(1, best=True) == str(tmp_path / "checkpoints" / "step-1")
    checkpoints.wait()
    assert names(tmp_path) == ([], [])


def test_checkpoints_of_older_versions_are_refused(tmp_path):
    tf.train.CheckpointManager(tf.train.Checkpoint(v=tf.Variable(1.0)), str(tmp_path / "checkpoints"), 2).save()
    with pytest.raises(ValueError, match="an older version of tfrs_dlrm, which this one cannot read; choose another"):
        checkpoints_of(make(), tmp_path).restore()


@pytest.mark.process
def test_sigkill_between_any_two_operations_on_files_loses_nothing(tmp_path, moments):
    """At ten random ones; there are about ninety."""
    kills = sorted(moments.sample(range(88), 10))
    command = [sys.executable, Path(__file__).parents[1] / "support" / "killed_save.py", tmp_path, *map(str, kills)]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, (kills, done.stderr[-3000:])
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(results) == 11 and results[-1]["operations"] > 60
    for result in results:
        restored, begun, killed = result["restored"], result["begun"], result["operations"] is None
        assert killed == (0 <= result["n"] < results[-1]["operations"])
        assert restored in ((begun - 1, begun) if killed else (3,)), result
        assert result["values"] == [restored], result
        # The best is known by the time that the run would go on from it.
        assert result["best_values"] == [result["best"]] and result["best"] in ((3,) if restored == 3 else (1, 3)), (
            result
        )
        assert all(name.startswith("step-") for some in result["names"].values() for name in some), result
        assert result["after"] == {"checkpoints": ["step-7"], "best": ["step-7"]}
