"""Which files a path, a directory or a pattern names. `tests/stores/test_stores.py` compares stores with disks."""

import os

import pytest
from log_trees import PATTERNS, place

from tfrs_dlrm.data.raw import file_patterns


@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns(tmp_path, monkeypatch, pattern):
    place(tmp_path)
    given = str(tmp_path / pattern)
    assert file_patterns.matching(given) == [str(tmp_path / path) for path in PATTERNS[pattern]]
    monkeypatch.chdir(tmp_path)
    if pattern:
        assert file_patterns.matching(pattern) == list(PATTERNS[pattern])


def test_expand_keeps_the_order_given_and_names_each_file_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b.tsv", "a.tsv", "z.csv", "[1].csv"):
        (tmp_path / name).write_text("x")
    (tmp_path / "folder.tsv").mkdir()
    assert file_patterns.expand(["z.csv", "*.tsv"]) == ["z.csv", "a.tsv", "b.tsv"]
    assert file_patterns.expand(["a.tsv", "./*.tsv", str(tmp_path / "a.tsv")]) == ["a.tsv", "./b.tsv"]
    assert file_patterns.expand(["[1].csv"]) == ["[1].csv"]  # a name first, a pattern second
    assert file_patterns.expand("a.tsv") == ["a.tsv"]
    assert file_patterns.expand(["."]) == ["./[1].csv", "./a.tsv", "./b.tsv", "./z.csv"]


def test_links_are_followed_once(tmp_path):
    (tmp_path / "a").mkdir(), (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "x.csv").write_text("1"), (tmp_path / "a" / "y.csv").write_text("1")
    os.symlink(tmp_path / "elsewhere", tmp_path / "a" / "link")
    os.symlink(tmp_path / "a", tmp_path / "a" / "loop")
    expected = [str(tmp_path / "a" / "link" / "x.csv"), str(tmp_path / "a" / "y.csv")]
    assert file_patterns.matching(str(tmp_path / "a")) == file_patterns.matching(f"{tmp_path}/a/**") == expected
    assert file_patterns.matching(f"{tmp_path}/a/**/*.csv") == expected


def test_nothing_is_named(tmp_path):
    place(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"only markers, hidden and empty files are there, such as '_SUCCESS'"):
        file_patterns.matching(str(tmp_path / "empty"))
    with pytest.raises(FileNotFoundError, match=r"only markers, hidden and empty files .* such as 'nothing.csv'"):
        file_patterns.matching(f"{tmp_path}/empty/*.csv")
    with pytest.raises(FileNotFoundError, match=r"no file matches '.*/\*\*/\*.parquet' \(looked from .*\)$"):
        file_patterns.matching(f"{tmp_path}/**/*.parquet")
    (tmp_path / "x.csv").write_text("")
    with pytest.raises(ValueError, match=r"x\.csv: the file is empty; leave it out"):
        file_patterns.expand(str(tmp_path / "x.csv"))
