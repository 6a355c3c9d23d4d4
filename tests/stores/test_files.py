import json
import os

import numpy as np
import pytest

from tfrs_dlrm.stores.files import check_writable, put, remove_unfinished, whole_file, write_json, write_text


def test_write_json(tmp_path):
    path = tmp_path / "evaluation.json"
    data = {"auc": float("nan"), "n": np.int64(3), "steps": (1, np.float32(0.5)), "curve": np.array([1.0, np.inf])}
    write_json(path, {"model": data, "note": "é", "none": None, "yes": True})
    text = path.read_text(encoding="utf-8")
    assert text.endswith("}\n")
    expected = {"auc": None, "n": 3, "steps": [1, 0.5], "curve": [1.0, None]}
    assert json.loads(text) == {"model": expected, "note": "é", "none": None, "yes": True}


def test_a_failed_write_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"auc": 0.5})
    with pytest.raises(TypeError):
        write_json(path, {"auc": object()})
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "half \udcff")
    assert json.loads(path.read_text()) == {"auc": 0.5}


def test_two_writers_of_one_file_do_not_mix(tmp_path):
    path = tmp_path / "a.txt"
    with whole_file(path) as first, whole_file(path) as second:
        first.write("one")
        second.write("two")
    assert path.read_text() == "one"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_content_and_name_are_on_disk(tmp_path, monkeypatch):
    done = []
    monkeypatch.setattr(os, "fsync", lambda f: done.append(os.readlink(f"/proc/self/fd/{f}")))
    monkeypatch.setattr(os, "replace", lambda a, b: done.append("replace"))
    written = tmp_path / "new"
    (written / "below").mkdir(parents=True)
    (written / "below" / "file").write_text("x")
    put(str(written), str(tmp_path / "final"))
    assert done == [str(written / "below" / "file"), str(written / "below"), str(written), "replace", str(tmp_path)]


def test_what_killed_writers_left_is_removed(tmp_path):
    for name in ("a.json.0123abcd.tmp", "b.json.0123abcd.tmp", "mine.tmp", "c.json"):
        (tmp_path / name).write_text("")
    os.utime(tmp_path / "b.json.0123abcd.tmp", (0, 0))
    remove_unfinished(str(tmp_path), older_than=3600)
    assert sorted(os.listdir(tmp_path)) == ["a.json.0123abcd.tmp", "c.json", "mine.tmp"]
    remove_unfinished(str(tmp_path))
    assert sorted(os.listdir(tmp_path)) == ["c.json", "mine.tmp"]
    remove_unfinished(str(tmp_path / "missing"))


def test_check_writable(tmp_path):
    check_writable(str(tmp_path / "not" / "yet"))
    assert os.listdir(tmp_path) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match=r"cannot be written: .*file is a file; choose another place"):
        check_writable(str(tmp_path / "file" / "out"))
