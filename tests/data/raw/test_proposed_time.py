"""Parts of times that are proposed, and that prepare reads."""

import datetime

import numpy as np
import pyarrow as pa
from csv_logs import write_csv

from tfrs_dlrm.data.preparing.prepare import prepare
from tfrs_dlrm.data.raw.infer import infer_schema
from tfrs_dlrm.schema import Time

COUNT = 120


START = datetime.datetime(2026, 11, 1, tzinfo=datetime.UTC)


MOMENTS = [START + datetime.timedelta(minutes=97 * i) for i in range(COUNT)]


LATER = [m + datetime.timedelta(days=12) for m in MOMENTS]


MORNING = [START + datetime.timedelta(minutes=i % 60) for i in range(COUNT)]


BOTH = ("hour", "weekday")


# By column: what it holds, the values, and the parts and the format that are proposed.
TIMES = {
    "iso": ("timestamps", [m.strftime("%Y-%m-%d %H:%M:%S") for m in MOMENTS], Time(BOTH)),
    "zone": ("timestamps", [m.isoformat(timespec="milliseconds") for m in MOMENTS], Time(BOTH)),
    "z": ("timestamps", [m.strftime("%Y-%m-%dT%H:%M:%SZ") for m in MOMENTS], Time(BOTH)),
    "day": ("dates", [m.strftime("%Y-%m-%d") for m in MOMENTS], Time(("weekday",))),
    "german": ("dates", [m.strftime("%d.%m.%Y") for m in MOMENTS], Time(("weekday",), "%d.%m.%Y")),
    "slashes": ("timestamps", [m.strftime("%m/%d/%Y %H:%M") for m in LATER], Time(BOTH, "%m/%d/%Y %H:%M")),
    "minute": ("times of day", [m.strftime("%H:%M") for m in MOMENTS], Time(("hour",), "%H:%M")),
    "hour": ("hours YYMMDDHH", [m.strftime("%y%m%d%H") for m in MOMENTS], Time(BOTH, "%y%m%d%H")),
    "compact": ("dates YYYYMMDD", [m.strftime("%Y%m%d") for m in MOMENTS], Time(("weekday",), "%Y%m%d")),
    "compact_hour": ("hours YYYYMMDDHH", [m.strftime("%Y%m%d%H") for m in MOMENTS], Time(BOTH, "%Y%m%d%H")),
    "seconds": ("seconds since 1970", [str(int(m.timestamp())) for m in MOMENTS], Time(BOTH, "epoch_seconds")),
    "milliseconds": (
        "milliseconds since 1970",
        [str(int(m.timestamp()) * 1000) for m in MOMENTS],
        Time(BOTH, "epoch_millis"),
    ),
    "nanoseconds": (
        "nanoseconds since 1970",
        [str(int(m.timestamp()) * 10**9) for m in MOMENTS],
        Time(BOTH, "epoch_nanos"),
    ),
    "american": (
        "timestamps",
        [m.strftime("%m/%d/%Y %I:%M:%S %p") for m in LATER],
        Time(BOTH, "%m/%d/%Y %I:%M:%S %p"),
    ),
    "afternoon": ("times of day", [m.strftime("%I:%M%p").lower() for m in MOMENTS], Time(("hour",), "%I:%M%p")),
    "excel": ("timestamps", [m.strftime("%m/%d/%y %H:%M") for m in LATER], Time(BOTH, "%m/%d/%y %H:%M")),
    "named": ("dates", [m.strftime("%d %b %Y") for m in MOMENTS], Time(("weekday",), "%d %b %Y")),
    "oracle": ("dates", [m.strftime("%d-%b-%y").upper() for m in MOMENTS], Time(("weekday",), "%d-%b-%y")),
    "long": ("timestamps", [m.strftime("%B %d, %Y %I:%M %p") for m in MOMENTS], Time(BOTH, "%B %d, %Y %I:%M %p")),
    "web": ("timestamps", [m.strftime("%d/%b/%Y:%H:%M:%S +0000") for m in MOMENTS], Time(BOTH, "%d/%b/%Y:%H:%M:%S %z")),
    "mail": (
        "timestamps",
        [m.strftime("%a, %d %b %Y %H:%M:%S +0000") for m in MOMENTS],
        Time(BOTH, "%a, %d %b %Y %H:%M:%S %z"),
    ),
    "tweet": (
        "timestamps",
        [m.strftime("%a %b %d %H:%M:%S +0000 %Y") for m in MOMENTS],
        Time(BOTH, "%a %b %d %H:%M:%S %z %Y"),
    ),
    "fractions": ("seconds since 1970", [f"{m.timestamp() + 0.25:.2f}" for m in MOMENTS], Time(BOTH, "epoch_seconds")),
    "mixed": ("timestamps", [m.strftime("%Y-%m-%d %H:%M PM") for m in MOMENTS], None),
    "one_hour": ("timestamps", [m.strftime("%Y-%m-%d %H:%M:%S") for m in MORNING], None),
}


def test_parts_of_times_are_proposed(tmp_path):
    texts = {name: values for name, (_, values, _) in TIMES.items()}
    others = {
        "zip": [f"{26110100 + i % 40}" for i in range(COUNT)],
        "ratio": [f"{i % 90}:{i % 61:02d}" for i in range(COUNT)],
        "version": [f"1.{i % 5}.{i % 7}" for i in range(COUNT)],
        "count": [str(20261301 + i % 99) for i in range(COUNT)],
    }
    path = write_csv(tmp_path / "log.csv", {"y": ["0", "1"] * 60, **texts, **others})
    typed = {"y": [0, 1] * 60} | {k: typed_of(v) for k, v in texts.items()} | others
    typed["stamp"], typed["date"] = pa.array(MOMENTS), pa.array([m.date() for m in MOMENTS])
    for source in (path, pa.table(typed)):
        proposal = infer_schema(source)
        for name, (kind, values, time) in TIMES.items():
            note = proposal.notes[name]
            assert any(note.startswith(f"a time: {kind}, such as '{value}'") for value in values), note
            assert proposal.kinds()[name] == (f"time: {', '.join(time.parts)}" if time else "left out"), (name, note)
            found = [f for f in proposal.schema.categorical if f.column == name]
            assert [f.name for f in found] == [f"{name}_{part}" for part in (time.parts if time else ())]
            assert {f.time.format for f in found} <= {time and time.format}
        assert not any("time" in proposal.notes[name] for name in others)
        directory = tmp_path / ("text" if source is path else "typed")
        assert prepare(proposal.schema, source, str(directory)).rows("train") == COUNT
    assert proposal.kinds()["stamp"] == "time: hour, weekday" and proposal.kinds()["date"] == "time: weekday"
    two_days = {"y": [0, 1] * 60, "x": list(range(5)) * 24, "day": ["2026-11-01", "2026-11-02"] * 60}
    assert infer_schema(pa.table(two_days)).notes["day"].endswith("too few days for a weekday; the rows are of 2 days")
    assert proposal.notes["one_hour"].endswith("left out: it is always the same hour; the rows are of 1 day")


def test_first_rows_of_many_may_be_of_one_hour(tmp_path):
    """The rows that are not looked at may be of other hours and days."""
    log = {"y": ["0", "1"] * 60, "t": TIMES["one_hour"][1], "t_hour": [str(i % 5) for i in range(COUNT)]}
    proposal = infer_schema(write_csv(tmp_path / "log.csv", log), rows=COUNT // 2)
    assert proposal.kinds()["t"] == "time: hour, weekday" and proposal.certainty["t"] == "likely"
    assert [f.name for f in proposal.schema.categorical] == ["t_hour", "t_weekday", "t_hour_2"]


def test_a_day_that_may_be_a_month_is_a_guess(tmp_path):
    """The order in which rows cover fewer days is taken, and both are said."""
    days = [datetime.date(2026, 4, 1 + i % 11) for i in range(COUNT)]
    american = [f"{d.month}-{d.day}-{d.year}" for d in days]
    log = {"y": ["0", "1"] * 60, "a": [d.strftime("%d/%m/%Y") for d in days], "b": american}
    proposal = infer_schema(write_csv(tmp_path / "log.csv", log))
    assert proposal.certainty["a"] == proposal.certainty["b"] == "guess"
    assert proposal.notes["a"].endswith("; is it %d/%m/%Y of 11 days or %m/%d/%Y of 305 days?")
    assert proposal.notes["b"].endswith("; is it %m-%d-%Y of 11 days or %d-%m-%Y of 305 days?")
    formats = {f.column: f.time.format for f in proposal.schema.categorical}
    assert formats == {"a": "%d/%m/%Y", "b": "%m-%d-%Y"}


def test_months_and_days_are_proposed_where_later_rows_have_them(tmp_path):
    rng = np.random.default_rng(0)
    day, order = np.datetime64("2020-03-01"), np.arange(COUNT)
    columns = {
        "sale": day + order // 2,  # two months of a log that grows
        "year": day + 9 * order,  # three years of it
        "newest_first": day + 9 * order[::-1],
        "birth": day + rng.integers(-20_000, 0, COUNT),
        "joined": day + rng.integers(0, 60, COUNT),
    }
    seen = (day.astype("datetime64[m]") + rng.integers(0, 2_000_000, COUNT)).astype(str)  # a shuffled log
    log = {name: values.astype(str) for name, values in columns.items()} | {"y": ["0", "1"] * 60, "seen": seen}
    proposal = infer_schema(write_csv(tmp_path / "log.csv", log))
    parts = {c: kind.removeprefix("time: ") for c, kind in proposal.kinds().items() if c != "y"}
    assert parts == {
        "sale": "weekday",
        "year": "weekday, month",
        "newest_first": "weekday, month",
        "birth": "weekday, month, days",
        "joined": "weekday",
        "seen": "hour, weekday, month",
    }
    new = "those of later rows are not among its"
    assert proposal.notes["sale"].endswith(f"weekday of UTC; without month and days: {new} 60 days")
    assert proposal.notes["year"].endswith(f"weekday and month of UTC; without days: {new} 1,072 days")
    assert proposal.notes["birth"].endswith("; days since the first because the rows are not in its order")
    assert proposal.certainty["birth"] == "likely"


def typed_of(values):
    for kind in (pa.int64(), pa.float64()):
        try:
            return pa.array(values).cast(kind)
        except pa.ArrowInvalid:
            pass
    return pa.array(values)
