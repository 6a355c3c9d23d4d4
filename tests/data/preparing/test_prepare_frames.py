"""Frames are prepared to the bytes that their Parquet files give, resumed by their content, and read without files."""

import filecmp
import json

import click_log
import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import tensorflow as tf
from cases import matrix
from file_tree import files_below

import tfrs_dlrm as td
from tfrs_dlrm.data.preparing import job as prepare_job
from tfrs_dlrm.data.raw import sources
from tfrs_dlrm.data.raw.parsing import BadRowError
from tfrs_dlrm.schema import CategoricalFeature, Schema

BASE = click_log.SCHEMA
LISTED = CategoricalFeature("listed", multi_valued=True)
SCHEMA = Schema(BASE.label, BASE.dense, (*BASE.categorical, LISTED), BASE.tables, BASE.weight)


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """A click log with missing values, a category, nullable integers and lists."""
    path = str(tmp_path_factory.mktemp("log") / "log.csv")
    click_log.write(path, 300)
    frame = pd.read_csv(path).astype({"site": "category", "slot": "Int64"})
    frame.loc[::9, "slot"] = pd.NA
    frame["listed"] = [None if i % 7 == 0 else [f"v{i % 3}"] * (i % 4) for i in range(len(frame))]
    return frame


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(sources, "BLOCK_ROWS", 25)
    monkeypatch.setattr(prepare_job, "BLOCKS_PER_SEGMENT", 2)


def polars_frame(log):
    return pytest.importorskip("polars").from_pandas(log)


def batches(log):
    return pa.Table.from_batches(pa.Table.from_pandas(log).to_batches(max_chunksize=40))


def relation(log):
    return duckdb.from_arrow(pa.Table.from_pandas(log))


def assert_same_but_for_the_inputs(a, b):
    """Compares two prepared directories byte by byte, and returns what their manifests say of the inputs."""
    files = files_below(a)
    assert files == files_below(b) and len(files) > 10
    assert [str(f) for f in files if not filecmp.cmp(a / f, b / f, shallow=False)] in ([], ["prepared.json"])
    manifests = [json.loads((directory / "prepared.json").read_text()) for directory in (a, b)]
    inputs = [manifest["job"].pop("files") for manifest in manifests]
    assert [bool(manifest.pop("crc32c")) for manifest in manifests] == [True, True]  # of the inputs as well
    assert manifests[0] == manifests[1]
    return inputs


@pytest.mark.parametrize("form", matrix([pd.DataFrame, polars_frame, batches, relation], [pd.DataFrame, relation]))
def test_a_frame_is_prepared_to_the_bytes_of_its_parquet_file(tmp_path, log, small_blocks, form):
    log.to_parquet(tmp_path / "log.parquet")
    td.prepare(SCHEMA, [str(tmp_path / "log.parquet")], str(tmp_path / "file"), eval_fraction=0.3)
    td.prepare(SCHEMA, form(log), str(tmp_path / "frame"), eval_fraction=0.3)
    _, ((stamp),) = assert_same_but_for_the_inputs(tmp_path / "file", tmp_path / "frame")
    assert stamp["rows"] == 300 and stamp.keys() == {"rows", "sha256"}
    # Called again with equal values of another library, it has nothing to do.
    before = (tmp_path / "frame" / "prepared.json").stat().st_mtime_ns
    td.prepare(SCHEMA, batches(log), str(tmp_path / "frame"), eval_fraction=0.3)
    assert (tmp_path / "frame" / "prepared.json").stat().st_mtime_ns == before


def test_frames_and_files_together_and_frames_to_evaluate_on(tmp_path, log, small_blocks):
    train, held_out = log[:200], log[200:]
    train[100:].to_parquet(tmp_path / "b.parquet")
    held_out.to_parquet(tmp_path / "eval.parquet")
    train[:100].to_parquet(tmp_path / "a.parquet")
    files = [str(tmp_path / name) for name in ("a.parquet", "b.parquet")]
    td.prepare(SCHEMA, files, str(tmp_path / "file"), eval_inputs=[str(tmp_path / "eval.parquet")])
    td.prepare(SCHEMA, [train[:100], files[1]], str(tmp_path / "frame"), eval_inputs=held_out)
    assert_same_but_for_the_inputs(tmp_path / "file", tmp_path / "frame")
    with pytest.raises(ValueError, match=r"eval_inputs \(pandas DataFrame\): given for training and for evaluation"):
        td.prepare(SCHEMA, log, str(tmp_path / "out"), eval_inputs=log)
    with pytest.raises(ValueError, match="give either eval_inputs or eval_fraction"):
        td.prepare(SCHEMA, log, str(tmp_path / "out"), eval_inputs=log, eval_fraction=0.1)
    with pytest.raises(
        ValueError, match=r"inputs \(pandas DataFrame\): engine='spark' reads files; write it to Parquet"
    ):
        td.prepare(SCHEMA, log, str(tmp_path / "out"), engine="spark")
    assert not (tmp_path / "out").exists()


def test_a_preparation_that_was_stopped_resumes_with_equal_values_only(tmp_path, log, small_blocks):
    def stop(stage, done, total, rows):
        assert 0 <= done <= total
        if stage == "encode" and done > total / 2:
            raise KeyboardInterrupt

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        td.prepare(SCHEMA, log, str(out), progress=stop)
    with pytest.raises(ValueError, match=r"prepared differently \(files changed\)"):
        td.prepare(SCHEMA, log.assign(price=log["price"] + 1), str(out))
    finished = {p: p.stat().st_mtime_ns for p in (out / "train").iterdir()}
    assert finished
    td.prepare(SCHEMA, log.copy(), str(out))
    assert {p: p.stat().st_mtime_ns for p in finished} == finished
    td.prepare(SCHEMA, log, str(tmp_path / "fresh"))
    assert_same_but_for_the_inputs(out, tmp_path / "fresh")


def test_bad_rows_of_a_frame(tmp_path, log):
    spoiled = log.astype({"price": "string"})
    spoiled.loc[spoiled.index[2], "price"] = "cheap"
    with pytest.raises(
        BadRowError, match=r"inputs \(pandas DataFrame\): row 3, column 'price': 'cheap' is not a finite"
    ):
        td.prepare(SCHEMA, spoiled, str(tmp_path / "stopped"))
    manifest = td.prepare(SCHEMA, spoiled, str(tmp_path / "out"), bad_rows="quarantine")
    assert manifest.bad_rows == 1 and manifest.rows("train") == 299
    (line,) = (tmp_path / "out" / "quarantine.jsonl").read_text().splitlines()
    assert json.loads(line)["unit"] == "row" and "cheap" in json.loads(line)["text"]
    with pytest.raises(
        BadRowError, match=r"row 3, column 'price'.*\. Correct it, or leave such rows out of the frame, or give"
    ):
        td.dataset(spoiled, 32, encoder=str(tmp_path / "out"))
    with pytest.raises(
        BadRowError, match=r"leave such rows out of the data, since dataset\(frame\) refuses them too; fit_enc"
    ):
        td.fit_encoder(SCHEMA, spoiled)
    assert td.fit_encoder(SCHEMA, spoiled, bad_rows="quarantine").schema == td.Schema.load(tmp_path / "out/schema.json")


def test_a_frame_gives_the_batches_of_its_prepared_directory(tmp_path, log, small_blocks):
    td.prepare(SCHEMA, log[:240], str(tmp_path / "out"), eval_inputs=log[240:])
    encoder = td.fit_encoder(SCHEMA, log[:240])
    assert encoder.schema == td.Schema.load(tmp_path / "out" / "schema.json")
    for split, rows, start in (("train", log[:240], 0), ("train", log[:240], 3), ("eval", log[240:], 0)):
        options = {"split": split, "seed": 5, "start_step": start, "shuffle_rows": 60}
        expected = td.dataset(str(tmp_path / "out"), 32, **options)
        batches = list(expected)
        for source in (encoder, str(tmp_path / "out")):
            given = td.dataset(rows, 32, encoder=source, **options)
            assert given.element_spec == expected.element_spec
            assert start or len(given) == len(expected)
            for pair in zip(batches, given, strict=True):
                for a, b in zip(*(tf.nest.flatten(x, expand_composites=True) for x in pair), strict=True):
                    np.testing.assert_array_equal(a, b)


def test_each_pipeline_reads_its_part_of_a_frame(log):
    encoder = td.fit_encoder(SCHEMA, log)
    contexts = [tf.distribute.InputContext(2, i, 2) for i in range(2)]
    parts = [td.dataset(log, 20, encoder=encoder, split="eval", context=c) for c in contexts]
    rows = [sum(len(label) for _, label, _ in part) for part in parts]
    assert sum(rows) == 300 and min(rows) == 150


def test_a_dataset_of_a_frame_says_what_it_needs(tmp_path, log):
    encoder = td.fit_encoder(SCHEMA, log)
    with pytest.raises(
        ValueError, match=r"the DataFrame has raw values.*encoder=tfrs_dlrm\.fit_encoder\(schema, frame\)"
    ):
        td.dataset(log, 32)
    with pytest.raises(ValueError, match="the DataFrame: 300 train rows are too few for a batch of 301; lower it"):
        td.dataset(log, 301, encoder=encoder)
    with pytest.raises(ValueError, match="a dict is neither a prepared directory nor a table"):
        td.dataset(dict(log), 32, encoder=encoder)
    with pytest.raises(ValueError, match="is prepared, and so encoded already; leave it out"):
        td.dataset(str(tmp_path), 32, encoder=encoder)
    with pytest.raises(ValueError, match="input workers do not see the DataFrame"):
        td.dataset(log, 32, encoder=encoder, service=object())
    with pytest.raises(ValueError, match="split='Eval' is unknown; give 'train' or 'eval'"):
        td.dataset(log, 32, encoder=encoder, split="Eval")
