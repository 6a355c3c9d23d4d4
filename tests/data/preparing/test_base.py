"""`prepare` on a base: three days against a plain loop, and what is refused."""

import dataclasses
import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from daily_logs import MAX_SIZE, MIN_COUNT, SCHEMA, day, occurrences, rows_of, vocabularies
from file_tree import assert_same_bytes, files_below

from tfrs_dlrm.data.preparing import job as prepare_job
from tfrs_dlrm.data.preparing.kept_counts import read_since
from tfrs_dlrm.data.preparing.manifest import PreparedManifest, prepared_fingerprint
from tfrs_dlrm.data.preparing.prepare import prepare
from tfrs_dlrm.data.raw import sources
from tfrs_dlrm.schema import CategoricalFeature, Schema

DAYS = (1, 2, 3)


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """Three days, each on the one before, with counts that halve every preparation."""
    root = tmp_path_factory.mktemp("chain")
    for n in DAYS:
        day(n).to_csv(root / f"{n}.csv", index=False)
        on = {"base": str(root / str(n - 1)), "half_life": 1} if n > 1 else {}
        prepare(SCHEMA if n == 1 else None, [str(root / f"{n}.csv")], str(root / str(n)), eval_fraction=0.0, **on)
    return root


@pytest.mark.parametrize(("table", "min_count", "max_size"), [("site", MIN_COUNT, MAX_SIZE), ("tags", 2, None)])
def test_three_days_have_the_rows_of_a_plain_loop(chain, table, min_count, max_size):
    expected = vocabularies([occurrences(day(n), table) for n in DAYS], min_count, max_size, 0.5)
    found = [rows_of(chain / str(n), table) for n in DAYS]
    assert found == expected
    assert [Schema.load(chain / str(n) / "schema.json").table(table).vocabulary_size for n in DAYS] == [
        len(rows) + 1 for rows in expected
    ]
    # A row that `since` says is unchanged has the value that it had; values keep their rows unless they lost them.
    for now, rows in enumerate(found):
        since = read_since(str(chain / str(DAYS[now])), table, len(rows) + 1)
        values = {row: value for value, row in rows.items()}
        for row in range(1, len(rows) + 1):
            had = [{r: v for v, r in earlier.items()}.get(row) == values[row] for earlier in found[: now + 1]]
            assert had[since[row] :] == [True] * (now + 1 - since[row]) and not any(had[: since[row]])
    lost = set(found[1]) - set(found[2])
    assert (len(lost) > 2 and len(found[2]) == max_size) if max_size else not lost


def test_rows_are_encoded_by_these_vocabularies_and_statistics_stay(chain):
    log, rows = day(3), rows_of(chain / "3", "site")
    table = pq.read_table(chain / "3" / "train" / "part-00000-00000.parquet")
    assert table["site"].to_pylist() == [rows.get(value or "<missing>", 0) for value in log["site"]]
    monday = day(1)["price"].to_numpy(np.float64)
    np.testing.assert_allclose(table["price"], (log["price"] - monday.mean()) / monday.std(), atol=1e-4)
    assert (chain / "3" / "statistics.json").read_bytes() == (chain / "1" / "statistics.json").read_bytes()
    first, last = (Schema.load(chain / n / "schema.json") for n in ("1", "3"))
    assert first.label == last.label and first.table("width") == last.table("width")
    manifest = PreparedManifest.load(str(chain / "3"))
    assert [link.name for link in manifest.chain] == [str(chain / "1"), str(chain / "2")]
    assert manifest.chain[1].fingerprint == prepared_fingerprint(str(chain / "2"))


def test_refreshed_statistics_are_those_of_the_day(chain, tmp_path):
    log = [str(chain / "2.csv")]
    prepare(None, log, str(tmp_path / "on"), base=str(chain / "1"), refresh_statistics=True)
    prepare(SCHEMA, log, str(tmp_path / "alone"))
    assert (tmp_path / "on" / "statistics.json").read_bytes() == (tmp_path / "alone" / "statistics.json").read_bytes()


def test_small_segments_and_a_second_call_give_the_same_bytes(chain, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "BLOCK_BYTES", 1500)
    monkeypatch.setattr(prepare_job, "BLOCKS_PER_SEGMENT", 2)
    for half_life in (1, "1.0"):  # the same
        prepare(None, [str(chain / "3.csv")], str(tmp_path / "3"), base=str(chain / "2"), half_life=half_life)
    assert len(list((tmp_path / "3" / "train").iterdir())) > 3
    for name in ("vocabulary/site.txt", "counts/site.parquet", "counts/tags.parquet", "lineage/site.parquet"):
        assert (tmp_path / "3" / name).read_bytes() == (chain / "3" / name).read_bytes(), name


def test_a_larger_table_has_room_for_more(chain, tmp_path):
    features = [
        dataclasses.replace(f, max_size=f.max_size and 2 * MAX_SIZE) if f.table == "site" else f
        for f in SCHEMA.categorical
    ]
    schema = dataclasses.replace(SCHEMA, categorical=tuple(features))
    prepare(schema, [str(chain / "2.csv")], str(tmp_path / "2"), base=str(chain / "1"))
    expected = vocabularies([occurrences(day(n), "site") for n in (1,)], MIN_COUNT, MAX_SIZE, 1.0)
    rows = rows_of(tmp_path / "2", "site")
    assert len(rows) > MAX_SIZE and {v: rows[v] for v in expected[0]} == expected[0]


def with_site(**changes):
    features = [dataclasses.replace(f, **changes) if f.table == "site" else f for f in SCHEMA.categorical]
    return dataclasses.replace(SCHEMA, categorical=tuple(features))


def one_class(root):
    day(4).assign(y=1).to_csv(root / "one.csv", index=False)
    return {"inputs": [str(root / "one.csv")]}


def empty(root):
    day(4).iloc[:0].to_csv(root / "empty.csv", index=False)
    return {"inputs": [str(root / "empty.csv")]}


def unusable(root):
    day(4).assign(y="?").to_csv(root / "bad.csv", index=False)
    return {"inputs": [str(root / "bad.csv")], "bad_rows": "quarantine"}


def unusable_evaluation(root):
    unusable(root)
    return {"eval_inputs": [str(root / "bad.csv")], "bad_rows": "quarantine"}


def damaged(root):
    path = root / "2" / "counts" / "site.parquet"
    path.write_bytes(path.read_bytes()[:-9])
    return {}


def replaced(root):
    (root / "2" / "vocabulary" / "site.txt").write_text("a\nb\n")
    return {}


def without(name):
    def change(root):
        (root / "2" / name).unlink()
        return {}

    return change


def of_an_earlier_version(root):
    path = root / "2" / "prepared.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in content.items() if k not in ("counts", "chain", "crc32c")}))
    return {}


WRONG = {
    "another schema": (lambda root: {"schema": with_site(min_count=9)}, "schema differs .* min_count.* Leave the sch"),
    "a smaller max_size": (lambda root: {"schema": with_site(max_size=9)}, r"max_size=9 is below .* give at least 14"),
    "a used day": (lambda root: {"inputs": [str(root / "1.csv")]}, r"1\.csv was used already, in .*1; .* Leave it out"),
    "no such base": (lambda root: {"base": str(root / "0")}, "base: .* no prepared data"),
    "half a base": (without("prepared.json"), "base: .* no prepared data"),
    "damaged counts": (damaged, r"counts/site\.parquet: damaged or changed .* restore it"),
    "a replaced vocabulary": (replaced, r"base: .*site\.txt: damaged or changed"),
    "no statistics": (without("statistics.json"), "base: .*the file is missing"),
    "an earlier version": (of_an_earlier_version, "earlier version, which kept no counts .* prepare it again"),
    "one class": (one_class, r"all training rows have the label 1, .* needs both"),
    "an empty day": (empty, "no rows|no row"),
    "an unusable day": (unusable, "no usable row for training"),
    "an unusable evaluation set": (unusable_evaluation, "no usable row for evaluation"),
    "days without days": (lambda root: {"half_life": "7d"}, "in days, and this preparation has no day"),
}


@pytest.mark.parametrize("case", list(WRONG))
def test_what_is_wrong_is_said_and_leaves_everything_as_it_was(chain, tmp_path, case):
    for name in ("1", "2"):
        shutil.copytree(chain / name, tmp_path / name)
    for n in DAYS:
        shutil.copy2(chain / f"{n}.csv", tmp_path)
    manifest = json.loads((tmp_path / "2" / "prepared.json").read_text())
    assert manifest["chain"][0]["files"][0]["path"] == str(chain / "1.csv")
    make, message = WRONG[case]
    more = make(tmp_path)
    if case == "a used day":
        more = {"inputs": [str(chain / "1.csv")]}
    arguments = {"schema": None, "inputs": [str(tmp_path / "3.csv")], "base": str(tmp_path / "2")} | more
    before = {name: (tmp_path / name).read_bytes() for name in files_below(tmp_path)}
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        prepare(output=str(tmp_path / "3"), **arguments)
    assert {name: (tmp_path / name).read_bytes() for name in files_below(tmp_path)} == before
    assert not (tmp_path / "3").exists()


def test_a_base_that_is_replaced_meanwhile_is_noticed(chain, tmp_path):
    shutil.copytree(chain / "1", tmp_path / "1")
    log, output = [str(chain / "2.csv")], str(tmp_path / "2")

    def stop(stage, done, total, rows):
        if stage == "encode":
            raise InterruptedError

    with pytest.raises(InterruptedError):
        prepare(None, log, output, base=str(tmp_path / "1"), progress=stop)
    shutil.rmtree(tmp_path / "1")
    prepare(SCHEMA, [str(chain / "3.csv")], str(tmp_path / "1"))
    with pytest.raises(ValueError, match=r"prepared differently \(.*base.* changed\)"):
        prepare(None, log, output, base=str(tmp_path / "1"))


def test_days_in_the_wrong_order_and_bases_that_are_none(tmp_path):
    prepare(SCHEMA, day(1), str(tmp_path / "1"), day="2026-11-24")
    prepare(None, day(2), str(tmp_path / "2"), base=str(tmp_path / "1"), day="2026-12-01", half_life="7d")
    prepare(None, day(2), str(tmp_path / "2b"), base=str(tmp_path / "1"), half_life=1)
    for name in ("counts", "vocabulary", "lineage"):
        assert_same_bytes(tmp_path / "2" / name, tmp_path / "2b" / name)
    with pytest.raises(ValueError, match=r"day=2026-11-23 is before 2026-12-01, the day of .*2; prepare days in their"):
        prepare(None, day(3), str(tmp_path / "3"), base=str(tmp_path / "2"), day="2026-11-23")
    with pytest.raises(ValueError, match=r"a frame of 240 rows was used already, in .*1"):
        prepare(None, day(1), str(tmp_path / "3"), base=str(tmp_path / "2"))
    with pytest.raises(ValueError, match="half_life='7d' is for a preparation on a base"):
        prepare(SCHEMA, day(3), str(tmp_path / "3"), half_life="7d")
    with pytest.raises(ValueError, match="schema=None takes the schema of a base"):
        prepare(None, day(3), str(tmp_path / "3"))
    hashed = dataclasses.replace(
        SCHEMA, categorical=(CategoricalFeature("site", out_of_range="hash"),), tables=SCHEMA.tables[:0]
    )
    prepare(hashed, day(1), str(tmp_path / "h"))
    with pytest.raises(ValueError, match="out_of_range='hash' gives unknown values rows that change"):
        prepare(None, day(2), str(tmp_path / "h2"), base=str(tmp_path / "h"))
