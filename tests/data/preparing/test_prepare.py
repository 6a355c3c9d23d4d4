"""`prepare`: vocabularies and rows by hand and against pandas, the same encoder as in serving, bad rows."""

import collections
import filecmp
import gzip
import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from file_tree import assert_same_bytes, files_below
from mixed_log import SCHEMA, frame, spoil

from tfrs_dlrm.data.encoding.encoder import Encoder
from tfrs_dlrm.data.preparing import job as prepare_job
from tfrs_dlrm.data.preparing.manifest import PreparedManifest
from tfrs_dlrm.data.preparing.prepare import prepare
from tfrs_dlrm.data.preparing.samples import SAMPLES, read_samples, to_tensors
from tfrs_dlrm.data.raw import sources
from tfrs_dlrm.data.raw.parsing import BadRowError
from tfrs_dlrm.schema import CategoricalFeature, DenseFeature, Label, Schema, Table


def encoded(directory, split="train"):
    """The rows of a prepared split, in order."""
    shards = PreparedManifest.load(str(directory)).shards(split)
    return pa.concat_tables([pq.read_table(directory / s.path) for s in shards])


@pytest.fixture
def small_blocks(monkeypatch):
    """Many blocks and segments even for small files."""
    monkeypatch.setattr(sources, "BLOCK_BYTES", 6000)
    monkeypatch.setattr(sources, "BLOCK_ROWS", 25)
    monkeypatch.setattr(prepare_job, "BLOCKS_PER_SEGMENT", 2)


def test_by_hand(tmp_path):
    (tmp_path / "log.tsv").write_text(
        "y\tprice\tsite\tother\tslot\n1\t3\tb\ta\t2\n0\t\tc\ta\t9\n1\t1\tb\tzz\t\n0\t8\t\t\té\n".replace("é", "-5")
    )
    schema = Schema(
        Label("y"),
        dense=(DenseFeature("price", fill_value="mean", indicator=True),),
        categorical=(
            CategoricalFeature("site"),
            CategoricalFeature("other", table="site"),
            CategoricalFeature("slot", encoding="ids", dtype="int64"),
        ),
        tables=(Table("slot", vocabulary_size=4), Table("site", dim=3)),
    )
    out = tmp_path / "out"
    manifest = prepare(schema, [str(tmp_path / "log.tsv")], str(out))
    # <missing>, a and b stand there twice each, c and zz once.
    assert (out / "vocabulary" / "site.txt").read_text() == "<missing>\na\nb\nc\nzz\n"
    sized = schema.with_vocabulary_sizes({"site": 6}).with_units({"label": (0.5, 1.0)})
    assert Schema.load(out / "schema.json") == sized
    statistics = json.loads((out / "statistics.json").read_text())["dense"]["price"]
    assert statistics == {"count": 3, "mean": 4.0, "std": pytest.approx(np.sqrt(26 / 3))}
    assert encoded(out).to_pydict() == {
        "label": [1, 0, 1, 0],
        "price": [3, 4, 1, 8],
        "price_missing": [0, 1, 0, 0],
        "site": [3, 4, 3, 1],
        "other": [2, 2, 5, 1],
        "slot": [2, 0, 0, 0],
    }
    assert manifest == PreparedManifest.load(str(out))
    assert manifest.rows("train") == 4 and manifest.rows("eval") == 0 and manifest.bad_rows == 0
    assert manifest.out_of_range == {"other": 0, "site": 0, "slot": 3}
    assert [str(f) for f in files_below(out)] == [
        "counts/site.parquet",
        "prepared.json",
        "profile.json",
        "samples.jsonl",
        "schema.json",
        "statistics.json",
        "train/part-00000-00000.parquet",
        "vocabulary/site.txt",
    ]


def test_any_mixture_of_files_equals_the_encoder_on_the_raw_values(tmp_path, small_blocks):
    """No second implementation: what is prepared is what a serving request would be encoded to."""
    log = frame()
    log[:100].to_csv(tmp_path / "a-1.tsv", sep="\t", index=False)
    log[100:200].to_csv(tmp_path / "a-2.tsv.gz", sep="\t", index=False)
    log[200:300].to_csv(tmp_path / "b.csv", index=False, quoting=1)
    log[300:].to_parquet(tmp_path / "c.parquet", index=False)
    out = tmp_path / "out"
    inputs = [str(tmp_path / "a-*"), str(tmp_path / "b.csv"), str(tmp_path / "*.parquet")]
    manifest = prepare(SCHEMA, inputs, str(out))
    assert len(manifest.train) > 4
    rows = encoded(out)

    encoder = Encoder.load(str(out))
    raw = {f.name: tf.constant(log[f.name].to_numpy(), tf.float32) for f in SCHEMA.dense}
    for f in SCHEMA.categorical:
        if f.dtype == "int64":
            raw[f.name] = tf.constant(log[f.name].fillna(-1).to_list(), tf.int64)
        else:
            raw[f.name] = tf.constant(log[f.name].to_list())
    raw["tags_weights"] = tf.constant(log["tag_weights"].to_list())
    expected = encoder(raw)
    np.testing.assert_array_equal(rows["label"], log["y"])
    np.testing.assert_array_equal(rows["weight"], log["w"].astype(np.float32))
    dense = np.stack([rows[name] for name in SCHEMA.dense_columns], axis=1)
    # TensorFlow's log1p may differ in the last bit with a number's place in the batch.
    np.testing.assert_allclose(dense, expected["dense"], rtol=3e-7)
    np.testing.assert_array_equal(np.stack([rows[f.name] for f in SCHEMA.one_hot], axis=1), expected["ids"])
    for name in ("tags", "tags_weights", "words"):
        assert rows[name].to_pylist() == expected[name].to_list()
    slots = log["slot"]
    assert manifest.out_of_range["slot"] == ((slots < 0) | (slots >= 8)).sum()
    assert manifest.out_of_range["user"] == manifest.out_of_range["words"] == 0


def test_list_columns_equal_the_encoder_on_the_raw_values(tmp_path, small_blocks):
    log = frame(60)
    words = [t.split("|") if t else [] for t in log["tags"]]
    weights = [[float(x) for x in t.split("|")] if t else [] for t in log["tag_weights"]]
    words[5] = weights[5] = None
    numbers = [[len(w or ()), -1, 7] for w in words]
    table = pa.table(
        {"y": log["y"], "words": words, "v": weights, "numbers": numbers, "split": log["words"]},
        pa.schema(
            [
                ("y", pa.int8()),
                ("words", pa.list_(pa.string())),
                ("v", pa.list_(pa.float64())),
                ("numbers", pa.large_list(pa.int16())),
                ("split", pa.string()),
            ]
        ),
    )
    pq.write_table(table, tmp_path / "log.parquet")
    schema = Schema(
        Label("y"),
        categorical=(
            CategoricalFeature("words", multi_valued=True, weights="v"),
            CategoricalFeature("numbers", multi_valued=True, dtype="int64"),
            CategoricalFeature("split", separator=" "),
        ),
    )
    out = tmp_path / "out"
    prepare(schema, [str(tmp_path / "log.parquet")], str(out))
    counts = collections.Counter(w for row in words for w in row or ())
    assert (out / "vocabulary" / "words.txt").read_text().split() == sorted(counts, key=lambda w: (-counts[w], w))
    encoder = Encoder.load(str(out))
    samples = read_samples(str(out))  # all 60 rows
    expected = encoder(to_tensors(samples, encoder.signature()))
    rows = encoded(out)
    assert rows["numbers"].to_pylist() == expected["numbers"].to_list()
    assert [len(r) for r in expected["numbers"].to_list()] == [2] * 60  # -1 is no value
    for name in ("words", "words_weights", "split"):
        assert rows[name].to_pylist() == expected[name].to_list()
    assert rows["words_weights"].to_pylist()[5] == []


def test_vocabulary_and_statistics_are_those_of_the_training_rows(tmp_path, small_blocks):
    log = frame(600)
    log.to_csv(tmp_path / "log.csv", index=False)
    out = tmp_path / "out"
    manifest = prepare(SCHEMA, [str(tmp_path / "log.csv")], str(out), eval_fraction=0.4, seed=3)
    train, held_out = encoded(out), encoded(out, "eval")
    ids = [np.array(t["row"], int) for t in (train, held_out)]
    assert sorted(np.concatenate(ids)) == list(range(600)) and 190 < len(ids[1]) < 290
    assert all((np.diff(i) > 0).all() for i in ids)  # the order of the log
    np.testing.assert_array_equal(held_out["label"], log["y"][ids[1]])

    seen = log.loc[ids[0]]
    counts = collections.Counter(v or "<missing>" for v in [*seen["site"], *seen["referrer"]])
    frequent = [v for v in counts if counts[v] >= 2]
    order = sorted(frequent, key=lambda v: (-counts[v], v.encode()))
    assert (out / "vocabulary" / "site.txt").read_text(encoding="utf-8").splitlines() == order
    tags = collections.Counter(t for row in seen["tags"] for t in row.split("|") if t)
    order = sorted(tags, key=lambda v: (-tags[v], v))[:5]
    assert (out / "vocabulary" / "tags.txt").read_text().splitlines() == order
    every = [t for row in log["tags"] for t in row.split("|") if t]
    assert manifest.out_of_range["tags"] == sum(t not in order for t in every)
    statistics = json.loads((out / "statistics.json").read_text())["dense"]
    for name in ("price", "age"):
        assert statistics[name]["count"] == seen[name].count()
        assert statistics[name]["mean"] == pytest.approx(seen[name].mean(), rel=1e-12)
        assert statistics[name]["std"] == pytest.approx(seen[name].std(ddof=0), rel=1e-12)


def test_the_evaluation_rows_depend_on_seed_and_place_alone(tmp_path, small_blocks, monkeypatch):
    log = frame(300)
    log.to_csv(tmp_path / "a.csv", index=False)
    frame(300, seed=1).to_csv(tmp_path / "b.csv", index=False)
    a, b = str(tmp_path / "a.csv"), str(tmp_path / "b.csv")

    def held_out(name, inputs, **kwargs):
        prepare(SCHEMA, inputs, str(tmp_path / name), eval_fraction=0.25, **kwargs)
        return encoded(tmp_path / name, "eval")["row"].to_pylist()

    alone, both, other = held_out("1", [a]), held_out("2", [a, b]), held_out("3", [a], seed=1)
    assert both[: len(alone)] == alone  # a file more changes nothing in those before it
    assert other != alone and both[len(alone) :] != alone
    monkeypatch.setattr(sources, "BLOCK_BYTES", 1 << 20)
    assert held_out("4", [a]) == alone


def test_evaluation_files(tmp_path):
    frame(50).to_csv(tmp_path / "train.csv", index=False)
    frame(300, seed=1).to_csv(tmp_path / "eval.csv", index=False)
    out = tmp_path / "out"
    manifest = prepare(SCHEMA, [str(tmp_path / "train.csv")], str(out), eval_inputs=[str(tmp_path / "eval.csv")])
    assert (manifest.rows("train"), manifest.rows("eval")) == (50, 300)
    assert encoded(out, "eval")["row"].to_pylist() == list(range(300))
    # The samples are the first evaluation rows, raw: encoded again they are what the shard holds.
    samples = read_samples(str(out))
    assert len(samples) == SAMPLES and samples[7]["tags"] == frame(300, seed=1)["tags"][7]
    encoder = Encoder.load(str(out))
    again = encoder(to_tensors(samples, encoder.signature()))
    head = encoded(out, "eval").slice(0, SAMPLES)
    np.testing.assert_allclose(np.stack([head[n] for n in SCHEMA.dense_columns], axis=1), again["dense"], rtol=3e-7)
    np.testing.assert_array_equal(np.stack([head[f.name] for f in SCHEMA.one_hot], axis=1), again["ids"])
    assert head["tags"].to_pylist() == again["tags"].to_list()


def test_values_with_line_breaks_have_no_row_of_their_own(tmp_path):
    """A vocabulary file holds one value a line."""
    table = pa.table({"y": [0, 1, 0, 1], "c": ["a\nb", "a\r", "a", "a"]})
    pq.write_table(table, tmp_path / "log.parquet")
    out = tmp_path / "out"
    prepare(Schema(Label("y"), categorical=(CategoricalFeature("c"),)), [str(tmp_path / "log.parquet")], str(out))
    assert (out / "vocabulary" / "c.txt").read_bytes() == b"a\n"
    assert encoded(out)["c"].to_pylist() == [0, 0, 1, 1]


def test_quarantine_names_bad_rows_and_loses_nothing_else(tmp_path, small_blocks):
    frame().to_csv(tmp_path / "a.csv", index=False)
    frame(seed=1).to_csv(tmp_path / "b.csv", index=False)
    prepare(SCHEMA, [str(tmp_path / "[ab].csv")], str(tmp_path / "clean"))
    bad = {name: spoil(tmp_path / name) for name in ("a.csv", "b.csv")}
    out = tmp_path / "out"
    manifest = prepare(SCHEMA, [str(tmp_path / "[ab].csv")], str(out), bad_rows="quarantine")
    assert manifest.bad_rows == 10
    found = [json.loads(line) for line in (out / "quarantine.jsonl").read_text().splitlines()]
    expected = [(str(tmp_path / name), *row) for name in bad for row in bad[name]]
    assert len(found) == len(expected)
    for f, (path, row, column, reason, text) in zip(found, expected, strict=True):
        assert (f["path"], f["row"], f["column"], f["text"]) == (path, row, column, text) and reason in f["reason"]
    rows, clean = encoded(out), encoded(tmp_path / "clean")
    for name in clean.column_names:
        if name in SCHEMA.dense_columns:  # sums over other blocks, so other last bits
            np.testing.assert_allclose(rows[name], clean[name], rtol=1e-6)
        else:
            assert rows[name].to_pylist() == clean[name].to_pylist(), name
    for table in ("site", "tags"):
        assert filecmp.cmp(out / "vocabulary" / f"{table}.txt", tmp_path / "clean" / "vocabulary" / f"{table}.txt")


def test_values_that_a_feature_refuses_are_bad_rows(tmp_path):
    (tmp_path / "log.csv").write_text("y,slot,tags\n1,1,a\n0,4,a\n1,0,b|a|c\n0,,a\n1,2,\n")
    schema = Schema(
        Label("y"),
        categorical=(
            CategoricalFeature("slot", encoding="ids", dtype="int64", out_of_range="error"),
            CategoricalFeature("tags", separator="|", min_count=2, out_of_range="error"),
        ),
        tables=(Table("slot", vocabulary_size=4),),
    )
    reason = "feature 'slot': 4 has no row in its table of 4, and out_of_range is 'error'"
    with pytest.raises(BadRowError, match=rf"log\.csv: line 3, column 'slot': {reason}\. Correct it, or set such rows"):
        prepare(schema, [str(tmp_path / "log.csv")], str(tmp_path / "stopped"))
    out = tmp_path / "out"
    prepare(schema, [str(tmp_path / "log.csv")], str(out), bad_rows="quarantine")
    found = [json.loads(line) for line in (out / "quarantine.jsonl").read_text().splitlines()]
    assert [(f["row"], f["column"], f["reason"].split(" has no row")[0], f["text"]) for f in found] == [
        (3, "slot", "feature 'slot': 4", "0,4,a"),
        (4, "tags", "feature 'tags': 'b|a|c'", "1,0,b|a|c"),
        (5, "slot", "feature 'slot': -1", "0,,a"),
    ]
    assert encoded(out).to_pydict() == {"label": [1, 1], "slot": [1, 2], "tags": [[1], []]}


def test_after_a_bad_row_the_same_work_goes_on_with_quarantine(tmp_path, small_blocks):
    frame(300).to_csv(tmp_path / "log.csv", index=False)
    spoil(tmp_path / "log.csv")
    log, out = str(tmp_path / "log.csv"), tmp_path / "out"
    with pytest.raises(BadRowError, match=r"log\.csv: line 10: 13 fields, 12 are expected\. Correct it, or set such"):
        prepare(SCHEMA, [log], str(out))
    prepare(SCHEMA, [log], str(out), bad_rows="quarantine")
    prepare(SCHEMA, [log], str(tmp_path / "fresh"), bad_rows="quarantine")
    assert_same_bytes(out, tmp_path / "fresh")


def test_progress_and_a_second_call(tmp_path, small_blocks):
    frame(200).to_csv(tmp_path / "a.csv", index=False)
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress((tmp_path / "a.csv").read_bytes()))
    inputs, out = [str(tmp_path / "a.csv"), str(tmp_path / "b.csv.gz")], tmp_path / "out"
    calls = []
    first = prepare(SCHEMA, inputs, str(out), progress=lambda *call: calls.append(call))
    total = sum(map(os.path.getsize, inputs))
    for stage in ("vocabulary", "encode"):
        done = [c[1] for c in calls if c[0] == stage]
        rows = [c[3] for c in calls if c[0] == stage]
        assert done == sorted(done) and len(done) > 4 and done[-1] == total and rows[-1] == 400
        assert {c[2] for c in calls if c[0] == stage} == {total} and rows == sorted(rows)
    before = {f: (out / f).stat().st_mtime_ns for f in files_below(out)}
    assert prepare(SCHEMA, inputs, str(out)) == first
    assert {f: (out / f).stat().st_mtime_ns for f in files_below(out)} == before


def test_an_empty_part_among_others_has_no_rows_and_stops_nothing(tmp_path):
    parts = [frame(200, seed) for seed in (0, 1)]
    files = [str(tmp_path / f"{name}.csv.gz") for name in "abc"]
    for path, part in zip(files, [parts[0], None, parts[1]], strict=True):
        with gzip.open(path, "wt") as file:
            if part is not None:
                part.to_csv(file, index=False)
    for name, given in (("files", files), ("frames", [parts[0], parts[0].iloc[:0], parts[1]])):
        prepare(SCHEMA, given, str(tmp_path / name), eval_fraction=0.2)
        manifest = PreparedManifest.load(str(tmp_path / name))
        assert manifest.rows("train") + manifest.rows("eval") == 400
    with pytest.raises(ValueError, match=r"b\.csv\.gz: the file is empty"):
        prepare(SCHEMA, files[1:2], str(tmp_path / "none"), eval_fraction=0.2)
    with pytest.raises(ValueError, match=r"it has no rows"):
        prepare(SCHEMA, parts[0].iloc[:0], str(tmp_path / "none"), eval_fraction=0.2)
