"""What requests lack has its serving value: in the encoder, in every signature of a bundle, and in logged requests."""

import json
import re

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

import tfrs_dlrm as td
from tfrs_dlrm.config import DataConfig, DLRMConfig, OptimizerConfig, RunConfig, TrainConfig
from tfrs_dlrm.schema import CategoricalFeature, DenseFeature, Label, Schema, Table, Time
from tfrs_dlrm.serving.bundle.manifest import read_manifest
from tfrs_dlrm.serving.exporting.export import ExportOptions, export
from tfrs_dlrm.serving.request_logs.label_join import join_labels
from tfrs_dlrm.serving.request_logs.request_log import RequestLog
from tfrs_dlrm.serving.verification import prepared_rows
from tfrs_dlrm.serving.verification.verify import verify
from tfrs_dlrm.streaming.address import StreamAddress
from tfrs_dlrm.streaming.messages import Decoder
from tfrs_dlrm.streaming.reader import Message
from tfrs_dlrm.tools.explain.explain_run import Questions, explain_run
from tfrs_dlrm.training.evaluation import evaluate_run
from tfrs_dlrm.training.loop import train_and_evaluate

SHOWN = "2024-05-06T07:08:09"
ONLY = {"training_only": True}
SCHEMA = Schema(
    Label("y"),
    dense=(
        DenseFeature("price"),
        DenseFeature("position", transform="standardize", serving_value=1, **ONLY),
        DenseFeature("delay", indicator=True, **ONLY),  # None is a missing value
    ),
    categorical=(
        CategoricalFeature("spot", "position", "buckets", edges=(1, 3), serving_value=1, **ONLY),
        CategoricalFeature("place", serving_value="p1", **ONLY),
        CategoricalFeature("slot", encoding="ids", dtype="int64", serving_value=3, **ONLY),
        CategoricalFeature("shown", time=Time(("hour", "days")), serving_value=SHOWN, edges=(0, 9), **ONLY),
        CategoricalFeature("user"),
        CategoricalFeature("site"),
        CategoricalFeature(cross=("place", "site")),
        CategoricalFeature(cross=("shown_hour", "user"), encoding="hash"),
    ),
    tables=(Table("slot", vocabulary_size=7), Table("shown_hour_x_user", vocabulary_size=11)),
)
ROWS, SERVED = 90, 12  # rows of the log, and how many of them have the serving values


def make(seed=0):
    rng = np.random.default_rng(seed)
    rows = pd.DataFrame(
        {
            "y": rng.integers(0, 2, ROWS),
            "price": rng.normal(size=ROWS).astype(np.float32),
            "position": rng.integers(1, 6, ROWS),
            "delay": np.where(np.arange(ROWS) % 3, rng.normal(size=ROWS), np.nan),
            "place": [f"p{k}" for k in rng.integers(0, 3, ROWS)],
            "slot": rng.integers(0, 7, ROWS),
            "shown": [f"2024-05-{d:02}T{h:02}:00:00" for d, h in rng.integers(1, 24, (ROWS, 2))],
            "user": [f"u{k}" for k in rng.integers(0, 4, ROWS)],
            "site": [f"s{k}" for k in rng.integers(0, 5, ROWS)],
        }
    )
    almost = as_served(rows[SERVED : SERVED + 1]).assign(delay=-1.0)  # a number, although -1 is a missing id
    return pd.concat([as_served(rows[:SERVED]), almost, rows[SERVED + 1 :]], ignore_index=True)


def as_served(rows):
    """The rows with the serving values in their columns; `delay` is missing."""
    return rows.assign(position=1, delay=np.nan, place="p1", slot=3, shown=SHOWN)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The training rows, their prepared data, the directory of a run, and its bundle."""
    home, rows = tmp_path_factory.mktemp("served"), make()
    data, run = str(home / "data"), str(home / "run")
    td.prepare(SCHEMA, rows, data, eval_inputs=make(1))
    config = RunConfig(
        DataConfig(path=data),
        DLRMConfig(embedding_dim=4, bottom_mlp=(8, 4), top_mlp=(8, 1), linear=True),
        OptimizerConfig("adam", 0.05, "adagrad", 0.5),
        TrainConfig(batch_size=30, steps=6, tensorboard=False),
    )
    train_and_evaluate(config, run)
    return rows, data, run, export(run, str(home / "model"), options=ExportOptions(context=("user",))).path


def test_features_equal_pandas_on_rows_with_the_value(exported):
    rows, data, _, _ = exported
    encoder = td.Encoder.load(data)
    asked = ["price", "user", "site"]
    assert list(encoder.serving_signature()) == asked
    # A part of the schema may have nothing that requests have.
    alone = encoder.encode(encoder.raw_inputs(rows[asked]), encoder.schema.select(["place", "slot"]))
    assert alone["ids"].shape == (ROWS, 2)
    found = encoder(rows[asked])
    names = [f.name for f in encoder.schema.one_hot]
    got = dict(zip(names, found["ids"].numpy().T, strict=True))
    position = (1 - rows.position.mean()) / rows.position.std(ddof=0)
    wanted = np.stack([rows.price, np.full(ROWS, position), np.zeros(ROWS), np.ones(ROWS)], axis=1)
    np.testing.assert_allclose(found["dense"], wanted, rtol=1e-6, atol=1e-6)
    counts = rows.place.value_counts()
    by_count = sorted(counts.index, key=lambda p: (-counts[p], p))
    days = (pd.Timestamp(SHOWN).normalize() - pd.to_datetime(rows.shown).min().normalize()).days
    bucket = 1 + np.searchsorted([0, 9], days, side="right")
    for name, row in {
        "spot": 2,
        "place": 1 + by_count.index("p1"),
        "slot": 3,
        "shown_hour": 8,
        "shown_days": bucket,
    }.items():
        np.testing.assert_array_equal(got[name], row)
    seen = rows[rows.place == "p1"].site
    assert ((got["place_x_site"] > 0) == rows.site.isin(seen)).all()
    # By the encoder itself, on the columns that were set; and what a batch has is taken.
    for features, frame in ((found, as_served(rows)), (encoder(rows), rows)):
        again = encoder({name: encoder.raw_inputs(frame)[name] for name in encoder.signature()})
        for name in again:
            np.testing.assert_array_equal(features[name], again[name])
    fitted = td.fit_encoder(SCHEMA, rows)
    np.testing.assert_array_equal(fitted(rows[asked])["ids"], found["ids"])
    with pytest.raises(ValueError, match="site"):
        encoder(rows[["price", "user"]])


def test_every_signature_scores_as_the_model_on_rows_with_the_value(exported):
    rows, data, run, path = exported
    encoder, model = td.Encoder.load(data), td.load_model(run)
    wanted = model(encoder(as_served(rows))).numpy()
    assert np.abs(wanted - model(encoder(rows)).numpy()).max() > 1e-3
    raw = {name: encoder.raw_inputs(rows)[name] for name in encoder.serving_signature()}
    signatures = tf.saved_model.load(path).signatures
    assert set(signatures["serving_default"].structured_input_signature[1]) == {"price", "user", "site"}
    np.testing.assert_allclose(signatures["serving_default"](**raw)["probability"], wanted, atol=1e-6)
    np.testing.assert_allclose(td.raw_model(model, encoder)(raw), wanted, atol=1e-6)

    def example(i):
        features = {
            "price": tf.train.Feature(float_list=tf.train.FloatList(value=[rows.price[i]])),
            "position": tf.train.Feature(float_list=tf.train.FloatList(value=[5.0])),  # nobody asked for it
            **{
                name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[rows[name][i].encode()]))
                for name in ("user", "site")
            },
        }
        return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()

    examples = tf.constant([example(i) for i in range(ROWS)])
    for name, output in {"serialized_examples": "probability", "regress": "outputs"}.items():
        (given,) = signatures[name].structured_input_signature[1]
        np.testing.assert_allclose(signatures[name](**{given: examples})[output], wanted, atol=1e-6)
    mine = np.flatnonzero(rows.user == "u1")
    candidates = {name: tf.gather(raw[name], mine)[None] for name in ("price", "site")}
    ranked = signatures["rank"](user=tf.constant(["u1"]), **candidates)["scores"]
    np.testing.assert_allclose(ranked[0], wanted[mine], atol=1e-6)


def test_evaluations_and_explanations_are_of_the_values_of_the_log(exported):
    _, data, run, _ = exported
    found = evaluate_run(run)
    scores = td.load_model(run)(td.Encoder.load(data)(make(1)))
    np.testing.assert_allclose(1 / (1 + np.exp(-found.scores.logits)), scores, atol=1e-6)
    assert found.note == "Scored with the log's values of position, delay, place, slot, shown, which requests lack"
    explained = explain_run(run, Questions(("importance",), ("position", "place_x_site"), seeds=1))
    assert all(abs(f.worsening["log_loss_rise"][0]) > 0 for f in explained.importance.features)


def test_the_bundle_says_what_it_takes_and_is_verified(exported, monkeypatch):
    _, data, _, path = exported
    manifest = read_manifest(path)
    served = {"position": 1.0, "delay": None, "place": "p1", "slot": 3, "shown": SHOWN}
    assert dict(manifest.serving_values) == served
    assert [(f.name, f.context) for f in manifest.features] == [("price", False), ("user", True), ("site", False)]
    assert manifest.context == ("user", "shown_hour_x_user")
    with open(f"{path}/MODEL.md", encoding="utf-8") as f:
        assert 'because only training has it: `position` (`1.0`), `delay` (missing), `place` (`"p1"`)' in f.read()
    # Rows of the log are compared if they have all these values.
    (found,) = [c.message for c in verify(path, data=data, latency=False).checks if "serving value of" in c.message]
    assert re.search(rf"{SERVED} .*, which have the serving value of position, delay, place, slot, shown", found)
    monkeypatch.setattr(prepared_rows, "_is_served", lambda *_: False)
    report = verify(path, data=data, latency=False)
    assert report.passed and "none of 90 rows has the serving value of position" in report.checks[-1].message


def test_logged_requests_get_the_value_from_the_labels(exported, tmp_path):
    rows, data, _, _ = exported
    encoder = td.Encoder.load(data)
    log = RequestLog(str(tmp_path / "requests"), 1.0)
    raw = {name: value.numpy() for name, value in encoder.raw_inputs(rows[["price", "user", "site"]]).items()}
    log.write("r", raw, np.full(ROWS, 0.5, np.float32), 1)
    log.close()
    requests, labels = [str(tmp_path / "requests/*.tfrecord")], str(tmp_path / "labels.csv")
    later = ["position", "delay", "place", "slot", "shown"]
    pd.DataFrame({"request_id": "r", "row": range(ROWS), "y": rows.y, **rows[later]}).to_csv(labels, index=False)
    joined = join_labels(requests, labels, str(tmp_path / "joined.parquet"), SCHEMA)
    assert (joined.rows, joined.lacking) == (ROWS, ())
    td.prepare(SCHEMA, str(tmp_path / "joined.parquet"), str(tmp_path / "data"))
    columns = [*encoder.schema.dense_columns, *(f.name for f in encoder.schema.one_hot)]
    again, first = (pq.read_table(f"{home}/train", columns=columns) for home in (tmp_path / "data", data))
    for name in columns:
        np.testing.assert_allclose(again[name].to_numpy(), first[name].to_numpy(), rtol=1e-6)
    # Labels without them: the values are not known, and so missing.
    pd.DataFrame({"request_id": "r", "row": range(ROWS), "y": rows.y}).to_csv(labels, index=False)
    joined = join_labels(requests, labels, str(tmp_path / "joined.parquet"), SCHEMA)
    assert joined.lacking == tuple(later)
    assert all(pq.read_table(tmp_path / "joined.parquet")[name].null_count == ROWS for name in later)
    # Labels of a later day that have them are not read without them.
    after = str(tmp_path / "labels2.csv")
    pd.DataFrame({"request_id": "r", "row": range(ROWS), "y": rows.y, **rows[later]}).to_csv(after, index=False)
    with pytest.raises(ValueError, match=r"labels2\.csv: has 'position', .*, which the labels before it lack; join"):
        join_labels(requests, str(tmp_path / "labels*.csv"), str(tmp_path / "joined.parquet"), SCHEMA)


def test_a_stream_has_the_values(exported):
    rows, data, _, _ = exported
    encoder = td.Encoder.load(data)
    decoder = Decoder(encoder, StreamAddress.parse("kafka://a/t?format=json"))
    values = [json.dumps(row).encode() for row in json.loads(rows.to_json(orient="records"))]
    found = decoder([Message.of(0, i, value) for i, value in enumerate(values)])
    assert not found.malformed
    np.testing.assert_array_equal(found.columns.arrays()[2], encoder(rows)["ids"])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"serving_value": "p7"},
            "serving_value='p7' has no row; give a value of the training rows: .* frequent are 'p",
        ),
        ({"serving_value": None, "out_of_range": "error"}, "out_of_range='error' refuses missing values"),
        ({"time": Time(("hour",)), "column": "shown", "serving_value": "noon"}, "is no time of the format 'iso8601'"),
        (
            {"encoding": "ids", "dtype": "int64", "column": "slot", "serving_value": 9},
            "'place': serving_value=9.* has no",
        ),
    ],
)
def test_values_that_the_encoder_does_not_know_are_refused(fields, message):
    place, site = CategoricalFeature("place", **(ONLY | fields)), CategoricalFeature("site")
    tables = (Table("place", vocabulary_size=7),) if fields.get("encoding") == "ids" else ()
    with pytest.raises(ValueError, match=message):
        td.fit_encoder(Schema(Label("y"), categorical=(place, site), tables=tables), make())


def test_requests_need_an_input():
    with pytest.raises(ValueError, match="all features are training_only; requests need one at least"):
        td.fit_encoder(Schema(Label("y"), categorical=(CategoricalFeature("place", **ONLY),)), make())
