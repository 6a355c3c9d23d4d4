"""The directory of `prepare`: whose it is, and what is left of earlier runs."""

import pytest

from tfrs_dlrm.data.preparing.workspace import COUNTED, ENCODED, TakenOverError, Workspace


def test_a_run_that_finished_no_segment_leaves_nothing(tmp_path):
    workspace = Workspace(str(tmp_path / "out"))
    workspace.begin({"files": ["a"]})
    for name in ("unfinished/units.json", "unfinished/counts/site/a.parquet", "train/a.parquet", "schema.json"):
        path = tmp_path / "out" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("of another job")
    workspace.begin({"files": ["b"]})
    assert sorted(p.name for p in (tmp_path / "out").rglob("*")) == ["attempts", "job.json", "run", "unfinished"]
    workspace.mark(COUNTED, "a", {"rows": 1})
    (tmp_path / "out/unfinished/units.json").write_text("of this job")
    Workspace(str(tmp_path / "out")).begin({"files": ["b"]})
    assert (tmp_path / "out/unfinished/units.json").exists()
    with pytest.raises(ValueError, match=r"already holds data prepared differently \(files changed\); choose another"):
        Workspace(str(tmp_path / "out")).begin({"files": ["c"]})


def test_a_process_that_outlives_its_run_finishes_nothing(tmp_path):
    workspace = Workspace(str(tmp_path))
    workspace.begin({})
    late = Workspace(str(tmp_path), "attempt", workspace.run)
    late.mark(COUNTED, "a", {"rows": 1})
    assert workspace.marks(COUNTED) == [{"rows": 1}]
    temporary = late.temporary(late.shard("train", "a"))
    with open(temporary, "w") as shard:
        shard.write("late")
    Workspace(str(tmp_path)).begin({})
    for finish in (
        lambda: late.publish(temporary, late.shard("train", "a")),
        lambda: late.mark(ENCODED, "a", {}),
    ):
        with pytest.raises(TakenOverError, match="another run of prepare has begun to write this directory"):
            finish()
    assert not (tmp_path / "train").exists() and workspace.marked(ENCODED) == []
