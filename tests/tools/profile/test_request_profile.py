"""Training data against what a server was asked: alike without findings, and each skew by name."""

import dataclasses

import numpy as np
import pandas as pd
import planted_logs
import pytest

from tfrs_dlrm.data.preparing.prepare import prepare
from tfrs_dlrm.programs import launch
from tfrs_dlrm.schema import CategoricalFeature, DenseFeature, Label, Schema
from tfrs_dlrm.serving.request_logs.request_log import RequestLog
from tfrs_dlrm.tools.profile import request_profile as newest
from tfrs_dlrm.tools.profile.examine import examine

ROWS = 2000


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A prepared log with a feature that requests lack."""
    path = tmp_path_factory.mktemp("data") / "log"
    position = DenseFeature("position", training_only=True)
    schema = dataclasses.replace(planted_logs.SCHEMA, dense=(*planted_logs.SCHEMA.dense, position))
    prepare(schema, planted_logs.clean(ROWS, 0).assign(position=np.arange(ROWS) % 7), str(path))
    return str(path)


def ask(directory, frame, **changed):
    """Writes a request log of the rows of a frame, in requests of 50."""
    log = RequestLog(str(directory), 1.0)
    for begin in range(0, len(frame), 50):
        part = frame[begin : begin + 50]
        inputs = {name: part[name].to_numpy(np.float32) for name in ("price", "age")}
        inputs |= {
            name: np.array([v.encode() for v in part[name]], object) for name in ("site", "user", "city", "tags")
        }
        inputs |= {name: change(inputs[name]) for name, change in changed.items()}
        log.write(f"r{begin}", inputs, np.full(len(part), 0.5, np.float32), 1)
    log.close()
    return str(directory)


def test_requests_like_the_log_are_not_suspicious(data, tmp_path):
    frame = planted_logs.clean(1500, 1)
    report = examine(data, requests=[ask(tmp_path / "requests", frame)])
    assert report.findings == () and report.served.rows == 1500
    assert [c.name for c in report.served.columns] == ["price", "age", "site", "user", "city", "tags"]
    price, age, tags = (report.served.column(name) for name in ("price", "age", "tags"))
    assert price.quantiles["0.5"] == pytest.approx(np.quantile(frame.price, 0.5, method="inverted_cdf"), rel=1e-6)
    assert (age.missing, tags.missing) == pytest.approx((frame.age.isna().mean(), (frame.tags == "").mean()))
    assert price.auc is None and tags.top.label_mean == ()
    assert report.served.column("site").top.among == 1500 and report.served.column("user").out_of_vocabulary < 0.5


def test_requests_of_the_traffic_behind_kept_negatives_are_not_suspicious(tmp_path):
    rng = np.random.default_rng(0)
    site = rng.choice(["a", "b"], 20_000)
    y = rng.random(len(site)) < np.where(site == "a", 0.002, 0.03)
    frame = pd.DataFrame({"y": y, "price": (rng.normal(size=len(site)) + 3 * y).astype(np.float32), "site": site})
    schema = Schema(Label("y"), dense=(DenseFeature("price"),), categorical=(CategoricalFeature("site"),))
    prepare(schema, frame, str(tmp_path / "data"), keep_negatives=0.02)
    log = RequestLog(str(tmp_path / "requests"), 1.0)
    inputs = {"price": frame.price[:3000].to_numpy(), "site": np.array([v.encode() for v in site[:3000]], object)}
    log.write("r", inputs, np.full(3000, 0.5, np.float32), 1)
    log.close()
    assert examine(str(tmp_path / "data"), requests=[str(tmp_path / "requests")]).findings == ()


def test_skew_is_named(data, tmp_path, capfd):
    changed = {
        "price": lambda x: x * 100,
        "age": lambda x: np.full_like(x, np.nan),
        "site": lambda x: np.array([b"S" + v for v in x], object),
        "city": lambda x: np.array([b"c3"] * len(x), object),
    }
    logs = ask(tmp_path / "requests", planted_logs.clean(600, 1), **changed)
    every = examine(data, requests=[logs]).findings
    found = {f.name: f for f in reversed(every)}  # the first of each column
    assert {f.kind for f in found.values()} == {"skew"} and set(found) == set(changed)
    assert "100.00% of the requests lack it" in found["age"].text and found["site"].number == 1.0
    assert "no row" in found["site"].text and "stability index of requests" in found["price"].text
    page = tmp_path / "page.html"
    arguments = [f"--data={data}", f"--requests={logs}", f"--output={page}", "--fail_on=drift"]
    assert launch.call("profile", arguments) == 3
    out, html = capfd.readouterr().out, page.read_text(encoding="utf-8")
    assert "skew: age: " in out and f"Wrote {page}." in out and "600 rows of" in out
    assert html.count("<img ") == 1 and "compare how the feature" not in html and "Compare how the feature" in html
    assert "http" not in html.replace("http-equiv", "").replace("http://www.w3.org", "")


def test_the_newest_rows_of_whole_files(data, tmp_path, monkeypatch):
    frame = planted_logs.clean(400, 1)
    ask(tmp_path / "b", frame[:100].assign(price=1.0))
    ask(tmp_path / "a", frame[:200].assign(price=np.arange(200)))
    ask(tmp_path / "b", frame[:30].assign(price=500.0))
    whole = [str(tmp_path / "a"), str(tmp_path / "b")]
    for rows, expected in ((30, {500.0: 30}), (50, {500.0: 30, **dict.fromkeys(np.arange(180.0, 200), 1)})):
        monkeypatch.setattr(newest, "SAMPLE_ROWS", rows)
        for logs in (whole, whole[::-1], [str(tmp_path)]):
            price = newest.request_profile(logs, data).column("price").distribution
            assert dict(zip(price.values, price.rows, strict=True)) == expected
    log = RequestLog(str(tmp_path / "c"), 1.0)
    log.write("r", {"price": np.ones(9, np.float32)}, np.zeros(9, np.float32), 1)
    (path,) = tmp_path.glob("c/*.unfinished")
    path.write_bytes(path.read_bytes()[:-5])  # in the middle of a record
    assert newest.request_profile([str(tmp_path)], data).rows == 50
    with pytest.raises(FileNotFoundError, match="only files in progress"):
        newest.request_profile([str(tmp_path / "c")], data)
    with pytest.raises(ValueError, match=r"s3://b/x: request logs are read from a disk, .*; copy them first"):
        newest.request_profile(["s3://b/x"], data)


def test_a_log_of_another_model_is_refused(data, tmp_path):
    log = RequestLog(str(tmp_path), 1.0)
    log.write("r", {"price": np.array([b"x"], object)}, np.zeros(1, np.float32), 1)
    log.close()
    with pytest.raises(ValueError, match="feature 'price' is a bytes_list, and a float_list in the schema"):
        examine(data, requests=[str(tmp_path)])
