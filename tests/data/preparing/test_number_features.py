"""Buckets, times, crosses, vectors and transforms equal NumPy and pandas: in data, in memory and in a bundle."""

import dataclasses
import json
import re

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

import tfrs_dlrm as td
from tfrs_dlrm.data.encoding.row_names import find_row, row_names
from tfrs_dlrm.data.preparing.number_sketch import NumberSketch
from tfrs_dlrm.data.raw.parsing import BadRowError
from tfrs_dlrm.schema import CategoricalFeature, DenseFeature, Label, Schema, Table, Time
from tfrs_dlrm.serving.exporting.export import ExportOptions
from tfrs_dlrm.serving.request_logs.label_join import join_labels
from tfrs_dlrm.serving.request_logs.request_log import RequestLog
from tfrs_dlrm.serving.runtime.requests import to_examples
from tfrs_dlrm.streaming.address import StreamAddress
from tfrs_dlrm.streaming.messages import Decoder
from tfrs_dlrm.streaming.reader import Message
from tfrs_dlrm.tools.explain.sample import columns_of

PARTS = ("hour", "weekday", "day", "month", "days")
SCHEMA = Schema(
    Label("y"),
    dense=(
        DenseFeature("price", column="Price", transform=("log1p", "standardize")),
        DenseFeature("age_days", column="When", time=Time(("days",)), fill_value="mean", indicator=True),
        DenseFeature(
            "title", "Title", transform="standardize", fill_value="mean", indicator=True, size=3, separator="|"
        ),
        DenseFeature("image", transform="log1p", size=2, projected=True),
    ),
    categorical=(
        CategoricalFeature("price_bucket", column="Price", encoding="buckets", buckets=8),
        CategoricalFeature("price_edges", column="Price", encoding="buckets", edges=(0, 0.1, 1, 10)),
        CategoricalFeature("clicks", encoding="buckets", buckets="log2"),
        CategoricalFeature("ts", column="When", time=Time(PARTS)),
        CategoricalFeature("seen", time=Time(("hour", "month"), "epoch_seconds")),
        CategoricalFeature("slot", time=Time(("hour", "day"), "%y%m%d%H")),
        CategoricalFeature("site", min_count=2),
        CategoricalFeature("hour_x_site", cross=("ts_hour", "site"), min_count=2),
        CategoricalFeature(cross=("price_bucket", "seen_hour", "site"), encoding="hash"),
    ),
    tables=(Table("price_bucket_x_seen_hour_x_site", vocabulary_size=97),),
)
ISO = ["%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d %H:%M:%S.123456", "%Y-%m-%dT%H:%M+00:00"]
OFTEN = 400


def make(rows=OFTEN, seed=0):
    """Rows of a log; the times are also those of `moments`."""
    rng = np.random.default_rng(seed)
    price = np.round(rng.lognormal(0, 2, rows), 2).astype(np.float32)
    moments = pd.to_datetime(rng.integers(-300_000_000, 2_300_000_000, rows), unit="s").astype("datetime64[s]")
    texts = [moment.strftime(ISO[i % len(ISO)]) for i, moment in enumerate(moments)]
    return pd.DataFrame(
        {
            "y": rng.integers(0, 2, rows),
            "Price": np.where(rng.random(rows) < 0.1, np.nan, price),
            "clicks": np.where(rng.random(rows) < 0.1, np.nan, rng.integers(-2, 3000, rows)),
            "When": np.where(rng.random(rows) < 0.05, "", texts),
            "seen": [int(m.timestamp()) for m in moments[::-1]],
            "slot": [m.strftime("%y%m%d%H") for m in moments],
            "site": [f"s{k}" for k in rng.integers(0, 5, rows)],
            "Title": _vectors(rng, rows, 3),
            "image": _vectors(rng, rows, 2),
        }
    )


def _vectors(rng, rows, size):
    """Lists of numbers, some of them missing, and some whole lists missing or empty."""
    numbers = rng.normal(0, 2, (rows, size)).astype(np.float32).tolist()
    lists = [[None if gone else x for x, gone in zip(v, rng.random(size) < 0.05, strict=True)] for v in numbers]
    kinds = rng.random(rows)
    return [None if kind < 0.05 else [] if kind < 0.1 else v for kind, v in zip(kinds, lists, strict=True)]


def as_text(rows):
    """The frame as text files have it: one vector between separators, the other as JSON."""

    def joined(vector, separator):
        return "" if vector is None else separator.join("" if x is None else repr(x) for x in vector)

    images = [f"[{joined(v, ', ')}]" for v in rows["image"]]
    return rows.assign(Title=[joined(v, "|") for v in rows["Title"]], image=images)


def matrix(vectors, size):
    return np.array([v if v is not None and len(v) else [np.nan] * size for v in vectors], np.float32).astype(float)


def odd(edges):
    """Values at and beside edges, out of range, missing, and no values at all."""
    at = np.float32(edges)
    numbers = [np.nan, np.inf, -np.inf, 0, -0.0, 0.1, 1, 10, -1e30, 1e30, *at, *np.nextafter(at, np.float32(-np.inf))]
    texts = ["", "x", "2023-02-29", "2024-02-29", "1970-01-01", "1969-12-31T23:59:59", "2038-01-19T03:14:08Z"]
    texts += ["1900-02-28 12:30", "2000-02-29T24:00", "9999-12-31T23:59+05:30", "2024-01-01T00:30+01:00", "0001-01-01"]
    texts += ["2024-12-31T23:30:00-01", "2024-13-01", "2024-1-1", " 2024-01-01"]
    n = max(len(numbers), len(texts))
    epochs = [-1, 0, -2, -86401, 2**31, 2**33, 951782400, 1709251199, -(2**40), 2**40]
    slots = ["", "24022923", "23022901", "70010100", "68123123", "5010203", "24022924", "240229"]
    clicks = [np.nan, -5, -0.5, 0, 0.999, 1, 3, 2.9999, 2**20, 7, 4095, 1e30]
    titles = [[np.nan] * 3, [np.inf, 1, -1], [0, np.nan, -np.inf], [-1e4, 1e4, 3.5], [1, 2, 3]]
    images = [[0.5, -0.5], [np.nan, 7], [np.nan, np.nan]]
    frame = {
        "title": titles,
        "image": images,
        "price": numbers,
        "ts": texts,
        "seen": epochs,
        "slot": slots,
        "clicks": clicks,
        "site": ["s1", "", "new"],
    }
    return pd.DataFrame({name: [values[i % len(values)] for i in range(n)] for name, values in frame.items()})


def time_of(texts):
    """The times of ISO texts in pandas, in seconds since 1970; NaN for none. Years that pandas lacks are by hand."""
    by_hand = {"9999-12-31T23:59+05:30": "9999-12-31T18:29", "0001-01-01": "0001-01-01T00:00"}
    by_hand |= {"2024-12-31T23:30:00-01": "2025-01-01T00:30", "2024-1-1": "", " 2024-01-01": ""}
    out = []
    for text in texts:
        found = pd.to_datetime(by_hand.get(text, text), utc=True, errors="coerce", format="ISO8601") if text else pd.NaT
        if by_hand.get(text):
            out.append(np.datetime64(by_hand[text], "s").astype(np.int64))
        else:
            out.append(np.nan if pd.isna(found) else found.timestamp())
    return np.array(out, np.float64)


def part(seconds, name):
    """The row of a part of times, by NumPy's calendar."""
    known = np.isfinite(seconds)
    moments = np.where(known, seconds, 0).astype(np.int64).astype("datetime64[s]")
    days = moments.astype("datetime64[D]")
    values = {
        "hour": (moments - days).astype(np.int64) // 3600 + 1,
        "weekday": (days.astype(np.int64) + 3) % 7 + 1,
        "day": (days - days.astype("datetime64[M]")).astype(np.int64) + 1,
        "month": (days.astype("datetime64[M]") - days.astype("datetime64[Y]").astype("datetime64[M]")).astype(int) + 1,
        "days": days.astype(np.int64),
    }[name]
    return np.where(known, values, np.nan if name == "days" else 0)


def bucket(values, edges):
    values = np.asarray(values, np.float32)
    known = np.isfinite(values)
    rows = np.searchsorted(np.float32(edges), np.where(known, values, 0), side="right") + 1
    return np.where(known, rows, 0)


def bucket_edges(values, parts):
    """Fills one interval after the other, number by number."""
    numbers = pd.Series(np.float32(values)).dropna().value_counts().sort_index()
    edges, inside, left = [], 0, int(numbers.sum())
    for number, count in numbers.items():
        share = np.ceil(left / (parts - len(edges)))
        # A number that fills an interval has its own, and so have those after one that is full.
        if inside and (inside >= share or count >= share) and len(edges) < parts - 1:
            edges.append(number)
            left, inside = left - inside, 0
        inside += count
    return np.array(edges)


def test_the_zeros_of_a_column_do_not_take_the_intervals_of_its_other_numbers():
    sketch = NumberSketch.of(np.float32([0] * 90 + [1, 2, 3, 4, 5, 5, 5, 5, 6, 7]))
    assert sketch.edges(5) == [1, 4, 5, 6]  # 0 is alone, 3 share 1 to 3 of 10; then 4 before 5, which has a share
    assert sketch.edges(2) == [1] and sketch.edges(99) == [1, 2, 3, 4, 5, 6, 7]
    assert NumberSketch.of(np.ones(9, np.float32)).edges(8) == []
    assert NumberSketch.of(np.arange(12, dtype=np.float32)).edges(4) == [3, 6, 9]


class Expected:
    """The encoding of the training rows of a frame, by NumPy and pandas alone."""

    def __init__(self, train):
        self.price = np.float64(np.float32(train["Price"]))
        logs = np.log1p(self.price[np.isfinite(self.price)])
        self.mean, self.std = logs.mean(), logs.std()
        days = part(time_of(train["When"]), "days")
        self.origin = np.nanmin(days)
        self.mean_days = np.nanmean(days) - self.origin
        self.price_edges = bucket_edges(self.price, 8)
        self.days_edges = bucket_edges(days - self.origin, 64)
        largest = np.nanmax(train["clicks"])
        self.log2 = [0, *(2**k - 1 for k in range(1, 60) if 2**k - 1 <= largest)]
        self.sites = train["site"].value_counts()
        hours = part(time_of(train["When"]), "hour").astype(int)
        self.pairs = pd.Series(list(zip(hours, train["site"], strict=True))).value_counts()
        assert self.sites.min() > 1
        title = matrix(train["Title"], 3)
        self.title = np.nanmean(title, axis=0), np.nanstd(title, axis=0)

    def dense(self, price, times, title, image):
        price = np.where(np.isfinite(price), np.float64(np.float32(price)), 0)
        days = part(times, "days") - self.origin
        logs = (np.log1p(np.maximum(price, 0)) - self.mean) / self.std
        gone = ~np.isfinite(title)
        title = np.where(gone, 0, (np.where(gone, 0, title) - self.title[0]) / self.title[1])
        image = np.log1p(np.maximum(np.where(np.isfinite(image), image, 0), 0))
        numbers = np.stack([logs, np.where(np.isnan(days), self.mean_days, days), np.isnan(days)], axis=1)
        return np.concatenate([numbers, title, gone.any(axis=1, keepdims=True), image], axis=1)

    def ids(self, price, clicks, times, seen, slot):
        rows = [bucket(price, self.price_edges), bucket(price, [0, 0.1, 1, 10]), bucket(clicks, self.log2)]
        rows += [part(times, name) for name in PARTS[:-1]]
        rows += [bucket(part(times, "days") - self.origin, self.days_edges)]
        rows += [part(seen, "hour"), part(seen, "month"), part(slot, "hour"), part(slot, "day")]
        return np.stack(rows, axis=1).astype(int)


def slots(texts):
    found = pd.to_datetime(pd.Series(texts).str.zfill(8), format="%y%m%d%H", errors="coerce")
    return np.array([np.nan if pd.isna(t) else t.timestamp() for t in found])


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    home = tmp_path_factory.mktemp("numbers")
    rows = make()
    as_text(rows).to_csv(home / "log.csv", index=False)
    td.prepare(SCHEMA, str(home / "log.csv"), str(home / "data"), eval_fraction=0.0)
    return home, rows, Expected(rows)


def encoded(directory, schema):
    table = pq.read_table(f"{directory}/train")
    dense = np.stack([table[name].to_numpy() for name in schema.dense_columns], axis=1)
    return dense, np.stack([table[f.name].to_numpy() for f in schema.one_hot], axis=1)


def test_prepared_rows_equal_numpy_and_pandas(prepared):
    home, rows, expected = prepared
    schema = Schema.load(home / "data/schema.json")
    dense, ids = encoded(home / "data", schema)
    times, seen = time_of(rows["When"]), np.float64(rows["seen"])
    wanted = expected.dense(rows["Price"], times, matrix(rows["Title"], 3), matrix(rows["image"], 2))
    np.testing.assert_allclose(dense, wanted, rtol=1e-6, atol=1e-6)
    found = expected.ids(rows["Price"], rows["clicks"], times, seen, slots(rows["slot"]))
    np.testing.assert_array_equal(ids[:, : found.shape[1]], found)
    assert columns_of(schema, "title") == ["title_0", "title_1", "title_2", "title_missing"]  # explained as one
    sizes = {t.name: t.vocabulary_size for t in schema.tables}
    assert sizes["price_bucket"] == 2 + len(expected.price_edges) and sizes["clicks"] == 2 + len(expected.log2)
    assert sizes["ts_hour"] == 25 and sizes["ts_weekday"] == 8 and sizes["slot_day"] == 32 and sizes["ts_month"] == 13
    # The counted cross: equal pairs have equal rows, in the order of their counts, and rare ones row 0.
    counts = expected.pairs[expected.pairs >= 2]
    assert sizes["hour_x_site"] == 1 + len(counts)
    pair_rows = dict(zip(zip(found[:, 3], rows["site"], strict=True), ids[:, -2], strict=True))
    for pair, row in pair_rows.items():
        assert (row > 0) == (pair in counts.index), pair
        assert row == 0 or sorted(counts, reverse=True)[row - 1] == counts[pair]
    text = [
        "".join(f"{len(str(p))}:{p}" for p in parts)
        for parts in zip(found[:, 0], found[:, 8], rows["site"], strict=True)
    ]
    np.testing.assert_array_equal(ids[:, -1], tf.strings.to_hash_bucket_fast(text, 97))


def test_an_encoder_in_memory_equals_the_prepared_rows(prepared):
    home, rows, _ = prepared
    encoder = td.Encoder.load(str(home / "data"))
    names = ["price", "ts", "title", "image", "clicks", "seen", "slot", "site"]
    assert list(encoder.signature()) == names
    kinds = {name: spec.dtype.name for name, spec in encoder.signature().items()}
    dtypes = ["float32", "string", "float32", "float32", "float32", "int64", "string", "string"]
    assert kinds == dict(zip(names, dtypes, strict=True))
    assert encoder.signature()["title"].shape == [None, 3]
    dense, ids = encoded(home / "data", encoder.schema)
    # Columns of timestamps, in pandas and Arrow, are read as their texts are.
    typed = rows.assign(When=pd.to_datetime(rows["When"], format="ISO8601", utc=True), slot=rows["slot"].astype(int))
    typed["seen"] = pd.to_datetime(rows["seen"], unit="s")
    fitted = td.fit_encoder(SCHEMA, rows)
    again = td.Encoder.from_config(json.loads(json.dumps(fitted.get_config())))
    # So are lists of a fixed size, of other floats, and arrays of two axes.
    title = [v if v is None or len(v) else None for v in rows["Title"]]
    arrow = pa.Table.from_pandas(typed).set_column(
        typed.columns.get_loc("Title"), "Title", pa.array(title, pa.list_(pa.float32(), 3))
    )
    arrays = {name: value.numpy() for name, value in encoder.raw_inputs(rows).items()}
    assert arrays["title"].shape == (len(rows), 3)
    of_typed = td.fit_encoder(SCHEMA, arrow)
    frames = [(rows, encoder), (typed, encoder), (arrow, encoder), (arrays, encoder), (as_text(rows), encoder)]
    for frame, of in (*frames, (rows, fitted), (typed, of_typed), (rows, again)):
        features = of(frame)
        np.testing.assert_allclose(features["dense"], dense, rtol=1e-6, atol=1e-6)
        np.testing.assert_array_equal(features["ids"], ids)
    assert fitted.schema == encoder.schema


def test_a_bundle_equals_numpy_and_pandas_on_odd_values(prepared, tmp_path):
    """`serving_default` on raw values scores as `encoded` on what NumPy and pandas make of them."""
    home, _, expected = prepared
    encoder = td.Encoder.load(str(home / "data"))
    tf.random.set_seed(0)
    tables = tuple(dataclasses.replace(t, dim=4, initializer="normal", scale=0.5) for t in encoder.schema.tables)
    model = td.DLRM(dataclasses.replace(encoder.schema, tables=tables), (8, 4), (8, 1))
    values = odd(expected.price_edges)
    raw = {name: tf.constant(list(values[name]), spec.dtype) for name, spec in encoder.signature().items()}
    vectors = [np.array(list(values[name])) for name in ("title", "image")]
    features = encoder(raw)
    times = time_of(values["ts"])
    seen = np.where(values["seen"] == -1, np.nan, values["seen"].astype(np.float64))
    wanted_dense = expected.dense(values["price"], times, *vectors)
    np.testing.assert_allclose(features["dense"], wanted_dense, rtol=1e-6, atol=1e-6)
    ids = expected.ids(values["price"], values["clicks"], times, seen, slots(values["slot"]))
    np.testing.assert_array_equal(features["ids"][:, : ids.shape[1]], ids)
    model(features)
    for weights in model.bottom_mlp.trainable_variables:  # so that numbers as large as these leave a score
        weights.assign(1e-7 * weights)
    options = ExportOptions(context=("ts", "seen", "image"))
    path, _ = td.export_model(model, str(home / "data"), str(tmp_path / "model"), options)
    signatures = tf.saved_model.load(path).signatures
    everything = np.concatenate([ids, features["ids"][:, ids.shape[1] :]], axis=1).astype(np.int32)
    dense = wanted_dense.astype(np.float32)
    wanted = signatures["encoded"](ids=tf.constant(everything), dense=tf.constant(dense))["probability"]
    found = signatures["serving_default"](**raw)["probability"]
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert len(np.unique(np.round(wanted, 5))) > 0.9 * len(values)
    # Candidates share both times; a cross of a time and a site is one of each candidate.
    shared = {name: value[1:2] for name, value in raw.items() if name in ("ts", "seen", "image")}
    candidates = {name: value[None] for name, value in raw.items() if name not in shared}
    ranked = signatures["rank"](**shared, **candidates)["scores"]
    alone = {name: tf.repeat(shared[name], len(values), axis=0) if name in shared else raw[name] for name in raw}
    np.testing.assert_allclose(ranked[0], signatures["serving_default"](**alone)["probability"], atol=1e-6)
    # As an Example without its missing values, and with a vector that is too short.
    rows = to_examples({name: value.numpy() for name, value in raw.items()})
    del rows[0].features.feature["title"]
    examples = tf.constant([row.SerializeToString() for row in rows])
    np.testing.assert_allclose(signatures["serialized_examples"](examples)["probability"], found, atol=1e-6)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"\[1,1\] is not compatible with expected shape \[\?,2\]"):
        encoder.encode({name: v[:1] for name, v in raw.items()} | {"image": tf.zeros([1, 1])})


def test_streams_and_request_logs_give_the_same_rows(prepared, tmp_path):
    home, rows, _ = prepared
    encoder = td.Encoder.load(str(home / "data"))
    dense, ids = encoded(home / "data", encoder.schema)
    values = [json.dumps(row).encode() for row in json.loads(rows.to_json(orient="records"))]
    decoder = Decoder(encoder, StreamAddress.parse("kafka://a/t?format=json"))
    found = decoder([Message.of(0, i, value) for i, value in enumerate(values)])
    assert not found.malformed and len(found) == len(rows)
    texts = as_text(rows)
    as_texts = [
        json.dumps(json.loads(v) | {"Title": t, "image": i}).encode()
        for v, t, i in zip(values, texts["Title"], texts["image"], strict=True)
    ]
    again = decoder([Message.of(0, i, value) for i, value in enumerate(as_texts)])
    np.testing.assert_array_equal(again.columns.arrays()[1], found.columns.arrays()[1])
    wrong = decoder([Message.of(0, 0, json.dumps(json.loads(values[0]) | {"When": "soon"}).encode())])
    assert [bad.column for bad in wrong.malformed] == ["When"]
    _labels, stream_dense, stream_ids = found.columns.arrays()[:3]
    np.testing.assert_array_equal(stream_dense, dense)
    np.testing.assert_array_equal(stream_ids, ids)
    log = RequestLog(str(tmp_path / "requests"), 1.0)
    raw = {name: value.numpy() for name, value in encoder.raw_inputs(rows).items()}
    log.write("r", raw, np.full(len(rows), 0.5, np.float32), 1)
    log.close()
    labels = pd.DataFrame({"request_id": "r", "row": range(len(rows)), "y": rows["y"]})
    labels.to_csv(tmp_path / "labels.csv", index=False)
    joined = str(tmp_path / "joined.parquet")
    join_labels([str(tmp_path / "requests/*.tfrecord")], str(tmp_path / "labels.csv"), joined, SCHEMA)
    td.prepare(SCHEMA, joined, str(tmp_path / "data"), eval_fraction=0.0)
    for a, b in zip(encoded(tmp_path / "data", encoder.schema), (dense, ids), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("form", "texts"),
    [
        ("%m/%d/%Y %I:%M:%S %p", ["11/05/2026 03:15:00 PM", "1/5/2024 3:5:0 am", "02/29/2024 12:00:00 AM"]),
        ("%I:%M%p", ["12:00am", "12:59PM", "1:07Pm", "11:59pm"]),
        ("%I%p", ["3PM", "12AM", "11am"]),
        ("%d-%b-%y", ["29-FEB-24", "1-may-68", "31-Dec-69"]),
        ("%d%b%Y", ["01Nov2026", "9SEP1999"]),
        ("%B %d, %Y %I:%M %p", ["February 29, 2024 12:30 AM", "may 3, 2026 01:00 PM"]),
        ("%d/%b/%Y:%H:%M:%S %z", ["05/Nov/2026:23:15:00 +0530", "1/Jan/2026:00:15:59 -01:00"]),
        ("%a %b %d %H:%M:%S %z %Y", ["Sun Nov 01 14:30:00 Z 2026", "thu jan 01 00:00:00 +0100 1970"]),
        ("%a %d %b %Y %I:%M:%S.%f %p %z", ["Sun 01 Nov 2026 02:30:00.5 PM +0530", "thu 1 jan 1970 01:00:00.25 am Z"]),
    ],
)  # fmt: skip
def test_clocks_of_twelve_hours_names_of_months_and_zones(form, texts):
    """Rows equal pandas' parts, in a frame, in prepared data and in a graph; what pandas refuses is malformed."""
    seconds = pd.to_datetime(pd.Series(texts), format=form, utc=True).map(pd.Timestamp.timestamp).to_numpy()
    parts = PARTS[:4] if "%d" in form else ("hour",)
    parts = parts if "H" in form or "I" in form else parts[1:]
    schema = Schema(Label("y"), categorical=(CategoricalFeature("t", time=Time(parts, form)),))
    wanted = np.stack([part(seconds, name) for name in parts], axis=1).astype(int)
    frame = pd.DataFrame({"y": np.arange(len(texts)) % 2, "t": texts})
    encoder = td.fit_encoder(schema, frame)
    np.testing.assert_array_equal(encoder(frame)["ids"], wanted)
    wrong = ["31-FEB-24", "00:30am", "13:00 PM", "13PM", "x", "30-Foo-2026", "31Apr2026", "05/Nov/2026:24:15:00 +0530"]
    graph = tf.function(lambda t: encoder({"t": t})["ids"])
    found = graph(tf.constant([*texts, "", *wrong]))
    np.testing.assert_array_equal(found, np.concatenate([wanted, np.zeros((1 + len(wrong), len(parts)), int)]))
    for text in wrong:
        with pytest.raises(BadRowError, match=f"'{re.escape(text)}' is no time in the format"):
            td.fit_encoder(schema, pd.DataFrame({"y": [0, 1], "t": [texts[0], text]}))
    # Timestamps are written in the format, in UTC.
    typed = frame.assign(t=pd.to_datetime(seconds, unit="s"))
    np.testing.assert_array_equal(encoder(typed)["ids"], wanted)


def test_rows_have_names(prepared):
    home, _, expected = prepared
    schema, data = Schema.load(home / "data/schema.json"), str(home / "data")

    def names(table, *rows):
        return list(row_names(schema, data, table, rows).values())

    assert names("ts_hour", 0, 1, 15) == ["<missing>", "0h", "14h"]
    assert names("ts_weekday", 1, 7) == ["Monday", "Sunday"] and names("ts_month", 2) == ["February"]
    assert names("price_edges", 0, 1, 2, 3, 5) == ["<missing>", "< 0", "[0, 0.1)", "[0.1, 1)", ">= 10"]
    hour, site = expected.pairs.index[0]
    name = f"{hour - 1}h × {site}" if hour else f"<missing> × {site}"  # noqa: RUF001
    first = [n for n in names("hour_x_site", *range(1, 9)) if n == name]
    assert first and find_row(schema, data, "hour_x_site", name) > 0
    assert find_row(schema, data, "ts_hour", "14h") == find_row(schema, data, "ts_hour", "14") == 15
    with pytest.raises(ValueError, match=r"no row is called 'mondey'; did you mean 'Monday'\?"):
        find_row(schema, data, "ts_weekday", "mondey")


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("When", "2023-02-29", "'2023-02-29' is no time in the format 'iso8601'"),
        ("seen", "soon", "'soon' is not a whole number"),
        ("slot", "14102124", "'14102124' is no time in the format '%y%m%d%H'"),
        ("Price", "cheap", "'cheap' is not a finite float32 number"),
        ("clicks", "inf", "'inf' is not a finite float32 number"),
        ("Title", "1|2", "a vector of 2 numbers; by the schema its size is 3"),
        ("Title", "1|2|x", "'x' is not a finite float32 number"),
        ("image", "[1, 1e39]", "'1e39' is not a finite float32 number"),
    ],
)
def test_what_cannot_be_read_is_a_malformed_row(column, value, message):
    rows = as_text(make(6)).astype({column: object})
    rows.loc[3, column] = value
    with pytest.raises(BadRowError, match=message) as e:
        td.fit_encoder(SCHEMA, rows.astype(str))
    assert e.value.bad.row == 4 and e.value.bad.column == column


def test_buckets_of_more_values_than_a_sketch_holds(monkeypatch):
    monkeypatch.setattr("tfrs_dlrm.data.preparing.passes.DISTINCT", 500)
    monkeypatch.setattr("tfrs_dlrm.data.raw.sources.BLOCK_ROWS", 2000)
    x = np.random.default_rng(0).normal(size=50_000).astype(np.float32)
    schema = Schema(Label("y"), categorical=(CategoricalFeature("x", encoding="buckets", buckets=20),))
    frame = pd.DataFrame({"y": np.arange(len(x)) % 2, "x": x})
    encoder = td.fit_encoder(schema, frame)
    shares = np.bincount(encoder(frame)["ids"][:, 0])[1:] / len(x)
    assert len(shares) == 20 and np.abs(shares - 1 / 20).max() <= 2 / 500
