"""`prepare` by time and by group: which rows are in which set, against pandas; what is refused; resumed runs."""

import os

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from file_tree import assert_same_bytes

from tfrs_dlrm.data.preparing import job as prepare_job
from tfrs_dlrm.data.preparing.manifest import PreparedManifest
from tfrs_dlrm.data.preparing.prepare import prepare
from tfrs_dlrm.data.raw import sources
from tfrs_dlrm.data.raw.parsing import BadRowError
from tfrs_dlrm.schema import CategoricalFeature, DenseFeature, Label, Schema, TextFormat, Time

SCHEMA = Schema(
    Label("y"), dense=(DenseFeature("row"),), categorical=(CategoricalFeature("site"), CategoricalFeature("user"))
)
BEGIN = pd.Timestamp("2026-11-01")


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(sources, "BLOCK_BYTES", 2000)
    monkeypatch.setattr(sources, "BLOCK_ROWS", 100)
    monkeypatch.setattr(prepare_job, "BLOCKS_PER_SEGMENT", 2)


def log(rows=1500, seed=0, step="1ms"):
    """A month of rows whose times are in no order, with some that are equal."""
    rng = np.random.default_rng(seed)
    seconds = rng.integers(0, 30 * 86_400_000, rows) * pd.Timedelta("1ms")
    times = (BEGIN + pd.to_timedelta(seconds)).floor(step)
    return pd.DataFrame(
        {
            "y": rng.integers(0, 2, rows),
            "row": np.arange(rows),
            "site": [f"s{k}" for k in np.minimum(rng.zipf(1.3, rows), 40)],
            "user": [f"u{k}" for k in rng.integers(0, 200, rows)],
            "ts": times,
        }
    )


def kept(directory, split):
    """The numbers of the rows of a set, in order."""
    shards = PreparedManifest.load(str(directory)).shards(split)
    table = pa.concat_tables([pq.read_table(os.path.join(directory, s.path)) for s in shards])
    return table["row"].to_numpy().astype(int).tolist()


WAYS = {
    "iso": (None, "1ms", lambda t: t.dt.strftime("%Y-%m-%dT%H:%M:%S.%f")),
    "zone": (None, "1s", lambda t: (t + pd.Timedelta("90min")).dt.strftime("%Y-%m-%d %H:%M:%S+01:30")),
    "seconds": (None, "1s", lambda t: t.astype("datetime64[s]").astype("int64")),
    "millis": (None, "1ms", lambda t: t.astype("datetime64[ms]").astype("int64")),
    "hours": (None, "1h", lambda t: t.dt.strftime("%y%m%d%H")),
    "strptime": ("%d.%m.%Y %H:%M:%S", "1s", lambda t: t.dt.strftime("%d.%m.%Y %H:%M:%S")),
    "typed": (None, "1ms", lambda t: t),
    "typed, directives": ("%d.%m.%Y %H:%M:%S.%f", "1ms", lambda t: t.astype("datetime64[us]")),
    "typed, micros": ("epoch_micros", "1ms", lambda t: t),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_time_divides_the_rows_as_pandas_does(tmp_path, way):
    time_format, step, written = WAYS[way]
    data = log(step=step)
    late = data.ts >= "2026-11-25T06:00:01"
    text = data.assign(ts=written(data.ts))
    if way.startswith("typed"):
        inputs = tmp_path / "log.parquet"
        text.to_parquet(inputs)
    else:
        inputs = tmp_path / "log.csv"
        text.to_csv(inputs, index=False)
    options = {"eval_after": "2026-11-25T06:00:01", "time": "ts", "time_format": time_format}
    manifest = prepare(SCHEMA, [str(inputs)], str(tmp_path / "out"), **options)
    assert kept(tmp_path / "out", "train") == data.row[~late].tolist()
    assert kept(tmp_path / "out", "eval") == data.row[late].tolist()
    said = manifest.split
    assert (said["by"], said["eval_after"], said["time"]["column"]) == ("time", "2026-11-25T06:00:01", "ts")
    for split, rows in (("train", ~late), ("eval", late)):
        assert [pd.Timestamp(t) for t in said["time"][split]] == [data.ts[rows].min(), data.ts[rows].max()]


def test_no_value_of_a_group_is_in_both_sets_whatever_the_files(tmp_path):
    data = log()
    data.loc[data.index % 10 == 3, "user"] = ""  # visitors who are not logged in
    data.to_csv(tmp_path / "one.csv", index=False)
    mixed = data.sample(frac=1, random_state=1)
    mixed[:700].to_parquet(tmp_path / "two-0.parquet")
    mixed[700:].to_csv(tmp_path / "two-1.csv.gz", index=False)
    options = {"eval_fraction": 0.3, "split_by": "user", "seed": 5}
    without = SCHEMA.select(["row", "site"])
    prepare(without, [str(tmp_path / "one.csv")], str(tmp_path / "a"), **options)
    prepare(SCHEMA, [str(tmp_path / "two-*")], str(tmp_path / "b"), **options)
    prepare(SCHEMA, data, str(tmp_path / "c"), **options | {"seed": 6})
    sets = [data.set_index("row").loc[sorted(kept(tmp_path / name, "eval"))] for name in "abc"]
    known = [rows[rows.user != ""] for rows in sets]
    assert known[0].equals(known[1])
    assert set(known[0].user) != set(known[2].user)
    chosen = set(known[0].user)
    in_train = data.set_index("row").loc[kept(tmp_path / "a", "train")]
    assert not chosen & set(in_train.user) and chosen | set(in_train.user) == set(data.user)
    assert abs(len(chosen) - 0.3 * 200) < 3 * (200 * 0.3 * 0.7) ** 0.5
    nameless = (sets[0].user == "").sum()
    assert abs(nameless - 0.3 * 150) < 4 * (150 * 0.3 * 0.7) ** 0.5  # drawn one by one
    manifest = PreparedManifest.load(str(tmp_path / "a"))
    assert manifest.split == {"by": "group", "column": "user", "eval_fraction": 0.3, "seed": 5}


@pytest.mark.parametrize("way", ["eval_after", "split_by"])
def test_negatives_are_dropped_from_the_training_rows_alone(tmp_path, way):
    data = log()
    rule = (
        {"eval_after": "2026-11-20", "time": "ts"}
        if way == "eval_after"
        else {"split_by": "user", "eval_fraction": 0.2}
    )
    prepare(SCHEMA, data, str(tmp_path / "all"), **rule)
    prepare(SCHEMA, data, str(tmp_path / "some"), **rule, keep_negatives=0.5)
    assert kept(tmp_path / "some", "eval") == kept(tmp_path / "all", "eval")
    every, some = kept(tmp_path / "all", "train"), kept(tmp_path / "some", "train")
    assert set(some) < set(every)
    assert [r for r in every if data.y[r] == 1] == [r for r in some if data.y[r] == 1]
    negatives = sum(data.y[every] == 0)
    assert abs(sum(data.y[some] == 0) - negatives / 2) < 4 * negatives**0.5 / 2


def test_the_format_is_that_of_the_schema_and_missing_times_are_bad_rows(tmp_path):
    data = log(300, step="1min")
    text = data.ts.dt.strftime("%m/%d/%Y %H:%M")  # no value tells which comes first if no day is above 12
    text[[7, 250]] = ["", "n/a"]
    data.assign(ts=text).to_csv(tmp_path / "log.csv", index=False)
    hours = CategoricalFeature("ts", time=Time(("hour",), "%m/%d/%Y %H:%M"))
    schema = Schema(Label("y"), SCHEMA.dense, (*SCHEMA.categorical, hours), text=TextFormat(missing=("n/a",)))
    options = {"eval_after": "2026-11-20", "time": "ts"}
    with pytest.raises(
        BadRowError, match=r"log.csv: line 9, column 'ts': the time is missing. Correct it, or set such"
    ):
        prepare(schema, [str(tmp_path / "log.csv")], str(tmp_path / "error"), **options)
    options["bad_rows"] = "quarantine"
    manifest = prepare(schema, [str(tmp_path / "log.csv")], str(tmp_path / "out"), **options)
    good = data.drop(index=[7, 250])
    assert manifest.bad_rows == 2
    assert kept(tmp_path / "out", "eval") == good.row[good.ts >= "2026-11-20"].tolist()


def test_killed_in_either_pass_it_ends_with_the_same_bytes(tmp_path):
    data = log()
    data.to_csv(tmp_path / "log.csv", index=False)
    options = {"eval_after": "2026-11-20", "time": "ts", "keep_negatives": 0.7}

    def stop_at(stage, done):
        def progress(name, position, total, rows):
            if name == stage and rows >= done:
                raise KeyboardInterrupt

        return progress

    inputs = [str(tmp_path / "log.csv")]
    prepare(SCHEMA, inputs, str(tmp_path / "whole"), **options)
    for stage, done in (("vocabulary", 300), ("encode", 300), ("encode", 900)):
        with pytest.raises(KeyboardInterrupt):
            prepare(SCHEMA, inputs, str(tmp_path / "killed"), **options, progress=stop_at(stage, done))
    with pytest.raises(ValueError, match="already holds data prepared differently"):
        prepare(SCHEMA, inputs, str(tmp_path / "killed"), **options | {"eval_after": "2026-11-21"})
    prepare(SCHEMA, inputs, str(tmp_path / "killed"), **options)
    assert_same_bytes(tmp_path / "whole", tmp_path / "killed")


def test_sets_that_would_be_empty(tmp_path):
    data = log(200)
    out = str(tmp_path / "out")
    for after, purpose in (("2027-01-01", "evaluation"), ("2026-10-01", "training")):
        with pytest.raises(
            ValueError, match=f"eval_after={after}T00:00:00 leaves no row for {purpose}: the times in col"
        ):
            prepare(SCHEMA, data, out, eval_after=after, time="ts")
    with pytest.raises(ValueError, match="split_by='user' leaves no row for evaluation: too few values"):
        prepare(SCHEMA, data.assign(user="one"), out, split_by="user", eval_fraction=0.01)
    prepare(SCHEMA, data, out, eval_after="2026-11-20", time="ts")  # the same output, with a time that divides


REFUSED = {
    "time": ({"eval_after": "2026-11-20"}, "eval_after needs the column of the times; give its name as time"),
    "order": ({"keep_order": True}, "keep_order needs the column of the times"),
    "purpose": ({"time": "ts"}, "is for eval_after and keep_order; give one of them, or leave it out"),
    "format": ({"time_format": "%Y"}, "belongs to time"),
    "date": (
        {"eval_after": "25.11.2026", "time": "ts"},
        "eval_after='25.11.2026' is no time; write it, in UTC, as 2026-",
    ),
    "day": ({"eval_after": "2026-02-30", "time": "ts"}, "eval_after='2026-02-30' is no time"),
    "column": ({"eval_after": "2026-11-20", "time": "tz"}, "no column 'tz'; it has: y, row"),
    "unknown": ({"eval_after": "2026-11-20", "time": "user"}, "'user': its first rows are in no time format that is"),
    "parts": ({"eval_after": "2026-11-20", "time": "ts", "time_format": "%H:%M"}, "does not say the year or the month"),
    "both": ({"eval_after": "2026-11-20", "time": "ts", "eval_fraction": 0.1}, "eval_fraction=0.1 both say which rows"),
    "group": ({"eval_after": "2026-11-20", "time": "ts", "split_by": "user"}, "split_by='user' both say which rows"),
    "share": ({"split_by": "user"}, "draws the groups of eval_fraction; give eval_fraction, such as 0.1"),
    "lists": ({"split_by": "many", "eval_fraction": 0.5}, "split_by='many': its values are lists; name a column of"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_arguments_that_do_not_fit_are_refused(tmp_path, case):
    options, message = REFUSED[case]
    data = log(60)
    with pytest.raises(ValueError, match=message):
        prepare(SCHEMA, data.assign(many=[["a"]] * 60), str(tmp_path / "out"), **options)


def test_evaluation_files_and_a_rule_are_refused(tmp_path):
    for name, seed in (("a", 0), ("b", 1)):
        log(60, seed).to_csv(tmp_path / f"{name}.csv", index=False)
    given = [str(tmp_path / "a.csv")], str(tmp_path / "out")
    for options in ({"eval_after": "2026-11-20", "time": "ts"}, {"split_by": "user"}):
        with pytest.raises(ValueError, match=r"eval_inputs both say|draws the groups of eval_fraction; leave it out"):
            prepare(SCHEMA, *given, eval_inputs=[str(tmp_path / "b.csv")], **options)


def test_times_that_may_be_read_in_two_ways_are_refused(tmp_path):
    data = log(40)
    data["ts"] = [f"{k % 12 + 1:02d}/{k % 11 + 1:02d}/2026" for k in range(40)]
    with pytest.raises(ValueError, match="its times may be %m/%d/%Y or %d/%m/%Y; give one as time_format"):
        prepare(SCHEMA, data, str(tmp_path / "out"), eval_after="2026-06-01", time="ts")
    prepare(SCHEMA, data, str(tmp_path / "out"), eval_after="2026-06-01", time="ts", time_format="%d/%m/%Y")
    late = pd.to_datetime(data.ts, format="%d/%m/%Y") >= "2026-06-01"
    assert kept(tmp_path / "out", "eval") == data.row[late].tolist()


def test_the_format_is_that_of_the_first_file_with_times(tmp_path):
    data = log(90, step="1h").assign(ts=lambda rows: rows.ts.dt.strftime("%y%m%d%H"))
    data[:0].to_csv(tmp_path / "0.csv", index=False)
    data[:5].assign(ts="").to_csv(tmp_path / "1.csv", index=False)
    data[5:].to_csv(tmp_path / "2.csv", index=False)
    options = {"eval_after": "2026-11-20T12:00", "time": "ts", "bad_rows": "quarantine"}
    manifest = prepare(SCHEMA, [str(tmp_path / "?.csv")], str(tmp_path / "out"), **options)
    assert manifest.bad_rows == 5 and manifest.split["time"]["format"] == "%y%m%d%H"
    assert kept(tmp_path / "out", "eval") == data.row[5:][data.ts[5:] >= "26112012"].tolist()


def test_days_in_the_names_of_directories_divide_the_rows(tmp_path):
    data = log(60, step="1d")
    for day, rows in data.groupby(data.ts.dt.strftime("%Y-%m-%d")):
        (tmp_path / "logs" / f"dt={day}").mkdir(parents=True)
        rows.drop(columns="ts").to_csv(tmp_path / "logs" / f"dt={day}" / "part.csv", index=False)
    prepare(SCHEMA, [str(tmp_path / "logs")], str(tmp_path / "out"), eval_after="2026-11-20", time="dt")
    assert sorted(kept(tmp_path / "out", "eval")) == data.row[data.ts >= "2026-11-20"].tolist()


def test_an_unreadable_time_is_named(tmp_path):
    data = log(120)
    data["ts"] = data.ts.astype(str)
    data.loc[100, "ts"] = "yesterday"
    data.to_csv(tmp_path / "log.csv", index=False)
    options = {"eval_after": "2026-11-20", "time": "ts", "time_format": "iso8601"}
    with pytest.raises(
        BadRowError, match=r"line 102, column 'ts': 'yesterday' is no time in the format 'iso8601'. Corr"
    ):
        prepare(SCHEMA, [str(tmp_path / "log.csv")], str(tmp_path / "out"), **options)
