"""Planted problems are found, each alone, and a clean log has none; numbers equal NumPy and pandas."""

import dataclasses
import importlib
import sys
from pathlib import Path

import numpy as np
import planted_logs
import pytest

from tfrs_dlrm.data.preparing.prepare import prepare
from tfrs_dlrm.data.preparing.profiling.column_profile import ColumnProfile, Profile, TopValues
from tfrs_dlrm.programs import launch
from tfrs_dlrm.tools.profile.examine import examine
from tfrs_dlrm.tools.profile.new_values import new_shares
from tfrs_dlrm.tools.profile.page import short_names
from tfrs_dlrm.tools.profile.stability import stability
from tfrs_dlrm.tools.profile.text import distinct, text

ROWS = 3000


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    """The directory of a log by rows and seed, prepared once."""
    root, made = tmp_path_factory.mktemp("logs"), {}

    def log(rows=ROWS, seed=0):
        if (rows, seed) not in made:
            made[rows, seed] = str(root / f"{rows}-{seed}")
            prepare(planted_logs.SCHEMA, planted_logs.clean(rows, seed), made[rows, seed])
        return made[rows, seed]

    return log


@pytest.mark.parametrize("problem", planted_logs.PROBLEMS)
def test_a_planted_problem_is_found_alone(logs, tmp_path, problem):
    spoil, kind, column = planted_logs.PROBLEMS[problem]
    prepare(planted_logs.SCHEMA, spoil(planted_logs.clean(ROWS, 1)), str(tmp_path / "log"))
    alone = kind in ("leakage", "constant", "row id")
    found = examine(str(tmp_path / "log"), "" if alone else logs()).findings
    assert [(f.kind, f.name) for f in found] == [(kind, column)]
    assert found[0].is_drift != alone
    assert found[0].number < found[0].limit if kind == "constant" else found[0].number > found[0].limit


@pytest.mark.parametrize(("rows", "seeds"), [(ROWS, 2), (1000, 5), (150, 5)])
def test_clean_logs_of_one_distribution_have_no_findings(logs, rows, seeds):
    for seed in range(1, seeds + 1):
        for against in (rows, ROWS):
            assert [*examine(logs(rows, seed), logs(against)).findings] == []


def test_new_values_along_a_chain_and_beside_it(logs, tmp_path):
    """Both ways count the values of the log that the earlier vocabulary lacks."""
    counts, frame = planted_logs.clean(ROWS, 0).site.value_counts(), planted_logs.clean(ROWS, 3)
    new = ~frame.site.isin(counts.index[counts >= 2])
    prepare(None, frame, str(tmp_path / "on"), base=logs())
    report = examine(str(tmp_path / "on"), logs())
    assert not report.findings
    site = report.profile.column("site")
    assert site.since[1] + site.out_of_vocabulary == pytest.approx(new.mean(), abs=1e-6)
    assert report.before.column("site").expected_new == pytest.approx(new.mean(), abs=0.02)
    beside = new_shares(logs(ROWS, 3), Profile.load(logs(ROWS, 3)), planted_logs.SCHEMA, logs())
    assert beside["site"] == pytest.approx(new.mean())
    # The counts of the second day hold the first one too, so they say nothing about it alone.
    assert new_shares(str(tmp_path / "on"), report.profile, planted_logs.SCHEMA, logs(ROWS, 3)) == {}
    frame["site"] = np.where(np.arange(ROWS) % 2, "x" + frame.site, frame.site)
    prepare(None, planted_logs.clean(ROWS, 0)[::-1], str(tmp_path / "quiet"), base=str(tmp_path / "on"))
    prepare(None, frame, str(tmp_path / "loud"), base=str(tmp_path / "quiet"))
    found = examine(str(tmp_path / "loud"), str(tmp_path / "quiet")).findings
    assert ("new values", "site") in [(f.kind, f.name) for f in found]


def test_stability_index_equals_numpy(logs, tmp_path):
    frame, before = planted_logs.clean(ROWS, 1), planted_logs.clean(ROWS, 0)
    frame["price"] *= 1.3
    prepare(planted_logs.SCHEMA, frame, str(tmp_path / "log"))
    now, old = Profile.load(str(tmp_path / "log")), Profile.load(logs())

    def index(p, q):
        p, q = ((x + 0.5) / (x + 0.5).sum() for x in (p, q))
        return ((p - q) * np.log(p / q)).sum()

    prices = [x.price.to_numpy(np.float32) for x in (frame, before)]
    tenths = np.quantile(prices[1], np.arange(1, 10) / 10, method="inverted_cdf")
    edges = [np.nextafter(prices[1].min(), np.float32(-np.inf)), *tenths]
    p, q = (np.bincount(np.searchsorted(edges, x), minlength=11) for x in prices)
    assert stability(now.column("price"), old.column("price")).index == pytest.approx(index(p, q), abs=0.005)
    sites = [set(c[c >= 0.01 * ROWS].index) for c in (frame.site.value_counts(), before.site.value_counts())]
    names = sorted(sites[0] | sites[1])
    p, q = (np.array([*x.site.value_counts()[names], (~x.site.isin(names)).sum()]) for x in (frame, before))
    found = stability(now.column("site"), old.column("site"))
    assert found.bins == len(names) + 1 and found.index == pytest.approx(index(p, q))


def test_a_value_that_lost_its_row_counts_as_absent():
    before, now = (TopValues(names, rows, (), 1000) for names, rows in ((("a", "b"), (940, 60)), (("a",), (940,))))
    p, q = (np.array(x) + 0.5 for x in ([940, 0, 60], [940, 60, 0]))
    expected = ((p - q) / p.sum() * np.log(p / q)).sum()
    columns = [ColumnProfile("c", "c", "category", 0, 2, 1000, top=top) for top in (now, before)]
    assert stability(*columns).index == pytest.approx(expected) and expected > 0.5


def test_logs_have_names_that_differ():
    assert short_names("/u/0002/data/", "/u/0001/data") == ("0002/data", "0001/data")
    assert short_names("s3://b/tuesday", "monday") == ("tuesday", "monday")
    assert short_names("/data") == ("data",) and short_names("a", "a") == ("a", "a")


def test_a_plus_only_where_rows_were_not_counted(logs):
    profile = Profile.load(logs())
    age = profile.column("age")
    assert age.missing and distinct(age, profile) == str(age.distinct)
    assert distinct(age, dataclasses.replace(profile, rows=ROWS + 1)) == f"{age.distinct}+"


def test_program(logs, tmp_path, capfd):
    prepare(planted_logs.SCHEMA, planted_logs.clean(ROWS, 1).assign(price=3.0), str(tmp_path / "log"))
    data, against = f"--data={tmp_path / 'log'}", f"--against={logs()}"
    assert launch.call("profile", [data, against]) == 0
    out = capfd.readouterr().out
    assert "constant: price: all 3,000 rows have the value 3 (1; limit 2)." in out and "Leave the feature out" in out
    assert launch.call("profile", [data, "--fail_on=drift"]) == 0
    assert launch.call("profile", [data, "--fail_on=anything"]) == 3
    assert launch.call("profile", [data, against, "--fail_on=drift"]) == 3
    capfd.readouterr()
    assert launch.call("profile", [f"--data={tmp_path}"]) == 1
    assert "no profile.json" in capfd.readouterr().err
    lines = text(examine(str(tmp_path / "log"), logs())).split("\n")
    first = next(i for i, line in enumerate(lines) if line.startswith("column"))
    ends = [lines[first].index(name) + len(name) for name in ("missing", "distinct", "AUC", "no row", "moved")]
    for line in lines[first : first + 7]:  # numbers end where the names of their columns do
        assert all(line[end - 1] != " " and line[end : end + 2] == "  " for end in ends)


def test_the_script_hides_no_module_of_python(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3] / "train"))
    for name in ("profile", "cProfile"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    assert importlib.import_module("cProfile").run and importlib.import_module("profile").Profile
