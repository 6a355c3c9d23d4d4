"""A model of Monday on data that extend Monday's: its scores, and its weights on the larger vocabulary."""

import dataclasses
import shutil

import daily_run
import numpy as np
import pytest
import tensorflow as tf
from daily_logs import SCHEMA, day, rows_of
from daily_run import TABLES, compiled, known_only, same_rows

import tfrs_dlrm as td
from tfrs_dlrm.config import DataConfig
from tfrs_dlrm.training import warm_start as warm_start_module
from tfrs_dlrm.training.evaluation import evaluate_run
from tfrs_dlrm.training.factory import load_run
from tfrs_dlrm.training.groups import Grouping
from tfrs_dlrm.training.workdir import Workdir


@pytest.fixture(scope="module")
def days(tmp_path_factory):
    return daily_run.make(tmp_path_factory.mktemp("days"))


@pytest.mark.parametrize("now", [2, 3])
def test_monday_scores_later_days(days, now):
    found = evaluate_run(str(days / "run"), str(days / str(now)), "train", "latest")
    model, _, _ = load_run(str(days / "run"), "latest")
    monday = td.Encoder.load(str(days / "run" / "encoder"))
    frame = known_only(days, day(now), now)
    assert (frame["site"] == "never").sum() > 20 and (frame["site"] != "never").sum() > 10
    expected = model.logits(monday(frame)).numpy()
    np.testing.assert_allclose(found.scores.logits, np.ravel(expected), atol=1e-6)
    np.testing.assert_array_equal(found.scores.labels, frame["y"])
    assert "extends the data of the run" in found.note and "count as unseen" in found.note
    # Groups have the names of the later data.
    groups = Grouping(str(days / "run"), ["site"]).measure(found, "train").to_dict()["group_by"]["site"]
    rows = rows_of(days / str(now), "site")
    named = [(row, value) for row, value in zip(groups["row"], groups["value"], strict=True) if row]
    assert named and all(rows[value] == row for row, value in named if value in rows)
    assert sum(value in rows for _, value in named) > 5


@pytest.mark.parametrize("now", [2, 3])
def test_weights_move_by_position_and_rows_that_changed_hands_begin_anew(days, now, monkeypatch):
    monkeypatch.setattr(warm_start_module, "rows_by_value", None)  # no value is compared
    directory = str(days / str(now))
    model, fresh = compiled(directory), compiled(directory)
    report = td.warm_start(model, directory, str(days / "run"), "latest")
    old, _, path = load_run(str(days / "run"), "latest", compiled=True)
    reader = tf.train.load_checkpoint(f"{path}/rows")

    same = same_rows(days, "site", now)
    table, before = model.embeddings.tables["site"].numpy(), fresh.embeddings.tables["site"].numpy()
    slot = model.embedding_optimizer.slots["site"]["accumulator"].numpy()
    other = np.setdiff1d(np.arange(len(table)), same)
    assert len(other) > 2 and len(same) > 3 and other.min() < old.embeddings.tables["site"].shape[0]
    np.testing.assert_array_equal(table[same], reader.get_tensor("tables/site")[same])
    np.testing.assert_array_equal(slot[same], reader.get_tensor("slots/site/accumulator")[same])
    assert np.any(slot[same] > 0)
    np.testing.assert_array_equal(table[other], before[other])
    fresh_slot = fresh.embedding_optimizer.slots["site"]["accumulator"].numpy()
    np.testing.assert_array_equal(slot[other], fresh_slot[other])
    assert dataclasses.astuple(report.tables["site"])[:2] == (len(same), len(other))
    # The parts of the compressed table keep their rows too, and have more behind them.
    for part in ("tags__quotient", "tags__remainder"):
        kept = reader.get_tensor(f"tables/{part}")
        np.testing.assert_array_equal(model.embeddings.tables[part].numpy()[: len(kept)], kept)

    np.testing.assert_array_equal(daily_run.logits(days, now, model), daily_run.logits(days, now))


def test_another_number_of_remainders_is_refused_though_both_parts_grew(days):
    model, (old, _, _) = compiled(str(days / "3"), remainders=5), load_run(str(days / "run"), "latest")
    for part in ("tags__quotient", "tags__remainder"):
        assert len(model.embeddings.tables[part].numpy()) > len(old.embeddings.tables[part].numpy())
    with pytest.raises(ValueError, match=r"holds 4 rows of tables/tags__remainder, and the new model's is 5; store"):
        td.warm_start(model, str(days / "3"), str(days / "run"), "latest")


def test_weights_move_under_a_mirrored_strategy(days):
    """Parameter servers are in tests/distribute/test_checkpoints_travel.py."""
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        found = daily_run.logits(days, 3, daily_run.moved(days, 3))
    np.testing.assert_allclose(found, daily_run.logits(days, 3), atol=1e-6)


def test_a_run_goes_on_where_another_one_ended(days, tmp_path):
    begun = Workdir(str(days / "run")).config()
    run = dataclasses.replace(
        begun,
        data=DataConfig(path=str(days / "2")),
        train=dataclasses.replace(begun.train, warm_start=str(days / "run"), epochs=1),
    )
    td.train_and_evaluate(run, str(tmp_path / "run"))
    assert len(evaluate_run(str(tmp_path / "run"), str(days / "3")).scores.labels) == 240
    with pytest.raises(ValueError, match=r"extends the data of .*; evaluate takes it, and a new run with config"):
        td.train_and_evaluate(dataclasses.replace(begun, data=DataConfig(path=str(days / "3"))), str(days / "run"))


def test_data_that_do_not_go_on_from_the_run(days, tmp_path):
    td.prepare(dataclasses.replace(SCHEMA, tables=TABLES), day(9), str(tmp_path / "9"))
    with pytest.raises(ValueError, match=r"another schema|other vocabularies"):
        evaluate_run(str(days / "run"), str(tmp_path / "9"), "train")
    td.prepare(None, day(2), str(tmp_path / "r"), base=str(days / "1"), refresh_statistics=True)
    with pytest.raises(ValueError, match=r"statistics of numbers were refreshed since .* without --refresh_statistics"):
        evaluate_run(str(days / "run"), str(tmp_path / "r"), "train")
    shutil.copytree(days / "2", tmp_path / "2")
    path = tmp_path / "2" / "lineage" / "site.parquet"
    path.write_bytes(path.read_bytes()[::-1])
    with pytest.raises(ValueError, match=r"lineage/site\.parquet: damaged or changed .* restore it"):
        evaluate_run(str(days / "run"), str(tmp_path / "2"), "train")
