"""The parsed rows that the first pass keeps for the second: the same bytes with them, without them, and with some."""

import dataclasses

import numpy as np
import pytest
from file_tree import assert_same_bytes
from mixed_log import SCHEMA, frame, spoil

from tfrs_dlrm.data.preparing import job as prepare_job
from tfrs_dlrm.data.preparing import kept_rows
from tfrs_dlrm.data.preparing.prepare import prepare
from tfrs_dlrm.data.raw import sources
from tfrs_dlrm.schema import CategoricalFeature, Label

LABELLED = dataclasses.replace(SCHEMA, more_labels=(Label("bought"),), group="site")
OPTIONS = {"eval_fraction": 0.2, "keep_negatives": 0.5, "bad_rows": "quarantine", "time": "day", "keep_order": True}


@pytest.fixture
def log(tmp_path, monkeypatch):
    """Labels, weights, groups, lists, numbers and times, some of them missing, and bad lines, in many segments."""
    monkeypatch.setattr(sources, "BLOCK_BYTES", 1500)
    monkeypatch.setattr(prepare_job, "BLOCKS_PER_SEGMENT", 2)
    rows = frame(500)
    days = np.where(rows["row"] % 9 == 4, "", np.where(rows["row"] % 2, "2026-12-03", "2026-12-02"))
    rows.assign(bought=rows["y"], site="s" + rows["site"], day=days).to_csv(tmp_path / "log.csv", index=False)
    spoil(tmp_path / "log.csv")
    return str(tmp_path / "log.csv")


def between_passes(action):
    """A progress callback that calls `action` once, before the second pass reads."""
    todo = [action]

    def progress(stage, *_):
        if stage == "encode" and todo:
            todo.pop()()

    return progress


def kept_files(output):
    return sorted((output / "unfinished/parsed").glob("*"))


def test_the_second_pass_reads_kept_rows_in_place_of_the_log(log, tmp_path, monkeypatch):
    plain, every, some = (tmp_path / name for name in ("plain", "every", "some"))
    found = []
    with monkeypatch.context() as patch:
        patch.setattr(kept_rows, "FREE_BYTES", 1 << 60)  # no disk has room
        prepare(LABELLED, log, str(plain), progress=between_passes(lambda: found.extend(kept_files(plain))), **OPTIONS)
        assert found == []

    def remove_some():
        for file in kept_files(some)[3:7]:
            file.unlink()

    prepare(LABELLED, log, str(some), progress=between_passes(remove_some), **OPTIONS)
    assert_same_bytes(plain, some)
    with monkeypatch.context() as patch:

        def no_log():
            found.extend(kept_files(every))
            patch.setattr(sources, "blocks", None)

        prepare(LABELLED, log, str(every), progress=between_passes(no_log), **OPTIONS)
    assert len(found) > 10 and {path.suffix for path in found} == {".arrows"}
    assert_same_bytes(plain, every)


def test_rows_that_the_second_pass_may_refuse_are_not_kept(log, tmp_path):
    refusing = CategoricalFeature("slot", encoding="ids", dtype="int64", out_of_range="error")
    schema = dataclasses.replace(SCHEMA, categorical=(*SCHEMA.categorical[:2], refusing), tables=SCHEMA.tables[:1])
    found = []
    output = tmp_path / "out"
    look = between_passes(lambda: found.extend(kept_files(output)))
    manifest = prepare(schema, log, str(output), bad_rows="quarantine", progress=look)
    assert found == [] and manifest.bad_rows > 0
