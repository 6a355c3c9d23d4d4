"""Logs that are cut into days: against pandas, and prepared as the days' own files are."""

import os

import numpy as np
import pandas as pd
import pytest

from tfrs_dlrm.data.encoding.vocabulary import read_vocabulary
from tfrs_dlrm.data.preparing import days as days_module
from tfrs_dlrm.data.preparing.days import split_into_days
from tfrs_dlrm.data.preparing.manifest import PreparedManifest
from tfrs_dlrm.data.preparing.prepare import prepare
from tfrs_dlrm.data.raw import sources
from tfrs_dlrm.data.raw.parsing import BadRowError
from tfrs_dlrm.schema import CategoricalFeature, DenseFeature, Label, Schema, TextFormat

SCHEMA = Schema(
    Label("y"),
    dense=(DenseFeature("price"),),
    categorical=(CategoricalFeature("site"),),
    text=TextFormat(missing=("-",)),
)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(sources, "BLOCK_BYTES", 2000)
    monkeypatch.setattr(sources, "BLOCK_ROWS", 100)
    monkeypatch.setattr(days_module, "_MOST_OPEN", 2)


def log(rows=600, seed=0):
    """Three days in no order; a quarter of the values have quotes, blanks or are missing."""
    rng = np.random.default_rng(seed)
    times = pd.Timestamp("2026-10-30 22:00") + pd.to_timedelta(rng.integers(0, 3 * 86_400, rows), unit="s")
    sites = np.array(["ä,b", 'say "x"', " c ", "-"])[rng.integers(0, 4, rows)]
    return pd.DataFrame(
        {"y": rng.integers(0, 2, rows), "price": rng.normal(0, 1, rows).round(3), "site": sites, "ts": times}
    )


def training_rows(directory):
    shards = PreparedManifest.load(str(directory)).shards("train")
    return pd.concat([pd.read_parquet(directory / shard.path) for shard in shards], ignore_index=True)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_days_are_those_of_pandas_and_are_prepared_as_their_own_files(tmp_path, kind):
    frame = log()
    parts = [frame[:400], frame[400:]]
    for i, part in enumerate(parts):
        part.to_csv(tmp_path / f"log-{i}.csv", index=False) if kind == "csv" else part.to_parquet(
            tmp_path / f"log-{i}.parquet"
        )
    inputs = [str(tmp_path / f"log-*.{kind}")]
    (tmp_path / "days.0123abcd.tmp").mkdir()  # of a killed call
    days = split_into_days(SCHEMA, inputs, "ts", str(tmp_path / "days"))
    expected = {day: rows for day, rows in frame.groupby(frame["ts"].dt.strftime("%Y-%m-%d"))}
    assert [os.path.basename(path) for path in days] == sorted(expected)
    assert len(days) == 4 and not list(tmp_path.glob("*.tmp")) and len(os.listdir(days[0])) > 1
    for path, (day, rows) in zip(days, sorted(expected.items()), strict=True):
        found = pd.read_parquet(path)
        assert found["site"].tolist() == rows["site"].tolist()
        np.testing.assert_array_equal(found["price"].astype(float), rows["price"])
        own = str(tmp_path / f"{day}.{kind}")
        rows.to_csv(own, index=False) if kind == "csv" else rows.to_parquet(own, index=False)
        prepare(SCHEMA, path, str(tmp_path / "cut" / day))
        prepare(SCHEMA, own, str(tmp_path / "own" / day))
        cut, whole = (training_rows(tmp_path / name / day) for name in ("cut", "own"))
        assert cut.equals(whole) and len(cut) == len(rows)
        first, second = (list(read_vocabulary(str(tmp_path / name / day), "site")) for name in ("cut", "own"))
        assert first == second
    before = {path: os.stat(path).st_mtime_ns for path in days}
    assert split_into_days(SCHEMA, inputs, "ts", str(tmp_path / "days")) == days
    assert before == {path: os.stat(path).st_mtime_ns for path in days}
    with pytest.raises(ValueError, match="holds something else than the days of this log"):
        split_into_days(SCHEMA, [inputs[0].replace("*", "0")], "ts", str(tmp_path / "days"))


def test_rows_that_cannot_be_used_leave_nothing_behind(tmp_path):
    frame, path = log(300), tmp_path / "log.csv"
    times = frame["ts"].astype(str)
    for place, value, reason in ((250, "", "the time is missing"), (220, "then", "'then' is no time in the format")):
        frame.assign(ts=times.where(frame.index != place, value)).to_csv(path, index=False)
        with pytest.raises(BadRowError, match=f"line {place + 2}, column 'ts': {reason}.*leave it out of the log"):
            split_into_days(SCHEMA, [str(path)], "ts", str(tmp_path / "days"))
        assert os.listdir(tmp_path) == ["log.csv"]
    sites = frame["site"].replace("ä,b", "a").where(frame.index != 200, "ä")
    frame.assign(site=sites).to_csv(path, index=False, encoding="latin-1")
    with pytest.raises(BadRowError, match=r"line 202, column 'site': invalid UTF-8: b'\\xe4'.*leave it out of the log"):
        split_into_days(SCHEMA, [str(path)], "ts", str(tmp_path / "days"))
    assert os.listdir(tmp_path) == ["log.csv"]
