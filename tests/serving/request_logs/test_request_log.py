"""Rows that were logged and labelled later are prepared like the raw log they came from."""

import csv
import glob
import gzip
import os
import subprocess
import sys
import threading
from pathlib import Path

import click_log
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from tfrs_dlrm.data.preparing.prepare import prepare
from tfrs_dlrm.data.raw import sources
from tfrs_dlrm.data.raw.typed_rows import parse
from tfrs_dlrm.schema import CategoricalFeature, DenseFeature, Label, Schema
from tfrs_dlrm.serving.request_logs.label_join import Joined, join_labels
from tfrs_dlrm.serving.request_logs.request_log import RequestLog

SCHEMA = click_log.SCHEMA
RAW = {"price": np.float32, "age": np.float32, "slot": np.int64}  # the others are texts


def arrays(rows):
    """Raw inputs as a server gets them."""
    inputs = {}
    for name in ["price", "age", "site", "user", "slot", "tags", "tag_weights"]:
        values = [row[name] for row in rows]
        raw = "tags_weights" if name == "tag_weights" else name
        if name in RAW:
            inputs[raw] = np.array([v or "nan" for v in values]).astype(RAW[name])
        else:
            inputs[raw] = np.array([v.encode() for v in values], object)
    return inputs


def files(directory):
    return sorted(glob.glob(f"{directory}/requests-*.tfrecord"))


def shards(prepared):
    return pa.concat_tables(pq.read_table(p) for p in sorted(glob.glob(f"{prepared}/train/*.parquet")))


@pytest.mark.parametrize("ending", ["csv", "parquet", "csv.bz2", "utf-16.csv", "directory"])
def test_what_was_logged_and_labelled_is_prepared_as_the_raw_log(tmp_path, ending):
    raw = str(tmp_path / "log.csv")
    click_log.write(raw, 600)
    with open(raw, encoding="utf-8") as f:
        rows = list(csv.DictReader(f))
    labels = []
    log = RequestLog(str(tmp_path / "requests"), 1.0, max_bytes_per_file=20_000)
    for number, begin in enumerate(range(0, len(rows), 7)):
        batch = rows[begin : begin + 7]
        log.write(f"r-{number:03}", arrays(batch), np.full(len(batch), 0.25, np.float32), 3)
        labels += [(f"r-{number:03}", i, int(r["clicked"]), float(r["weight"])) for i, r in enumerate(batch)]
    log.close()
    assert len(files(tmp_path / "requests")) > 3 and (log.written, log.failed) == (600, 0)
    np.random.default_rng(0).shuffle(labels)
    columns = ["request_id", "row", "clicked", "weight"]
    table = pa.Table.from_pylist([dict(zip(columns, values, strict=True)) for values in labels])
    given, joined = str(tmp_path / f"labels.{ending}"), str(tmp_path / "joined.parquet")
    if ending == "parquet":
        pq.write_table(table, given)
    elif ending == "directory":
        os.mkdir(given)
        for i, part in enumerate((table[:250], table[250:250], table[250:])):
            part.to_pandas().to_csv(os.path.join(given, f"part-{i}.csv"), index=False)
    else:
        table.to_pandas().to_csv(given, index=False, encoding="utf-16" if "utf-16" in ending else None)

    assert join_labels([str(tmp_path / "requests" / "*.tfrecord")], given, joined, SCHEMA) == Joined(600, 0, 0, 0, 0)

    prepare(SCHEMA, [raw], str(tmp_path / "a"))
    prepare(SCHEMA, [joined], str(tmp_path / "b"))
    assert shards(tmp_path / "a").equals(shards(tmp_path / "b"))
    there = pq.read_table(joined)
    assert there["age"].null_count == sum(not r["age"] for r in rows)
    assert there["request_id"][8].as_py() == "r-001" and there["row"][8].as_py() == 1
    assert there["probability"][0].as_py() == 0.25 and there["model_version"][0].as_py() == 3


LISTS = Schema(
    label=Label("y"),
    dense=(DenseFeature("row"),),  # also a field of the log's own
    categorical=(
        CategoricalFeature("words", multi_valued=True, weights="importance"),
        CategoricalFeature("n", dtype="int64"),
    ),
)


def test_by_hand_padding_missing_values_duplicates_and_what_does_not_match(tmp_path):
    inputs = {
        "row": np.float32([-1, np.nan, 5]),
        "words": np.array([[b"a", b"\xff"], [b"b", b""], [b"", b""]], object),
        "words_weights": np.float32([[0.5, 2], [3, 0], [0, 0]]),
        "n": np.int64([7, -1, 0]),
    }
    log = RequestLog(str(tmp_path), 1.0)
    log.write("r1", inputs, np.float32([0.5, 0.25, 0.125]), 1)
    log.write("r1", inputs, np.float32([0, 0, 0]), 2)  # sent again
    assert not files(tmp_path) and len(os.listdir(tmp_path)) == 1, "a file that is written to has no final name"
    log.close()
    labels, output = tmp_path / "labels.csv", str(tmp_path / "out.parquet")
    labels.write_text("row,y,request_id\n0,1,r1\n0,0,r1\n2,0,r1\n1,,r1\n0,1,other\n")

    (tmp_path / "labels-0.csv.gz").write_bytes(gzip.compress(b""))  # an hour without labels

    joined = join_labels(files(tmp_path), str(tmp_path / "labels*"), output, LISTS)

    assert joined == Joined(rows=2, unlabelled=1, unmatched_labels=1, duplicate_rows=3, duplicate_labels=1)
    names = ["y", "row", "words", "importance", "n", "probability"]
    assert pq.read_table(output).select(names).to_pylist() == [
        {"y": "1", "row": -1.0, "words": [b"a", b"\xff"], "importance": [0.5, 2.0], "n": 7, "probability": 0.5},
        {"y": "0", "row": 5.0, "words": [], "importance": [], "n": 0, "probability": 0.125},
    ]
    assert sorted(p.name for p in tmp_path.iterdir() if "unfinished" in p.name) == []
    labels.write_text("request_id,y\nother,1\n")
    message = r"none of the 1 labels belongs to one of the 3 logged rows; .*'other', 0\) in the labels and \('r1', 0\)"
    with pytest.raises(ValueError, match=message):
        join_labels(files(tmp_path), str(labels), output, LISTS)
    for row in ("0.5", "first", ""):
        labels.write_text(f"request_id,row,y\nr1,{row},1\n")
        with pytest.raises(ValueError, match=r"labels.csv: the row of request 'r1' is .*; a position in the request"):
            join_labels(files(tmp_path), str(labels), output, LISTS)
    labels.write_text("id,y\nother,1\n")
    with pytest.raises(ValueError, match="no column 'request_id'; the file has: id, y"):
        join_labels(files(tmp_path), str(labels), output, LISTS)


def test_tensorflow_reads_a_sample_that_threads_wrote(tmp_path):
    log = RequestLog(str(tmp_path), 0.25, seed=1, max_bytes_per_file=10_000)

    def ask(thread):
        for i in range(50):
            rows = log.sample(8)
            log.write(f"{thread}-{i}", {"x": np.float32(rows)}, np.zeros(len(rows), np.float32), 1, rows)

    threads = [threading.Thread(target=ask, args=(t,)) for t in range(4)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    log.close()
    examples = [tf.train.Example.FromString(r) for r in tf.data.TFRecordDataset(files(tmp_path)).as_numpy_iterator()]
    assert len(examples) == log.written and 320 < log.written < 480  # 400 are expected, +- 17
    for e in examples:
        assert e.features.feature["x"].float_list.value[0] == e.features.feature["row"].int64_list.value[0]
    keys = {(e.features.feature["request_id"].bytes_list.value[0], e.features.feature["row"].int64_list.value[0])
            for e in examples}  # fmt: skip
    assert len(keys) == len(examples)


def test_a_full_disk_fails_no_request_and_leaves_whole_rows(tmp_path, monkeypatch):
    log = RequestLog(str(tmp_path), 1.0)
    x = {"x": np.float32([1])}
    log.write("a", x, np.float32([0]), 1)

    class Full:
        def __init__(self, file):
            self.file = file

        def write(self, data):
            self.file.write(data[:5])
            raise OSError(28, "No space left on device")

        def __getattr__(self, name):
            return getattr(self.file, name)

        def __enter__(self):
            return self.file.__enter__()

        def __exit__(self, *exception):
            return self.file.__exit__(*exception)

    monkeypatch.setattr(log, "_file", Full(log._file))
    log.write("b", x, np.float32([0]), 1)
    assert (log.written, log.failed) == (1, 1)
    log.write("c", x, np.float32([0]), 1)
    log.write("d", {"x": np.float32([])}, np.float32([0]), 1)  # a mistake of the caller's
    log.close()
    found = [tf.train.Example.FromString(r) for r in tf.data.TFRecordDataset(files(tmp_path)).as_numpy_iterator()]
    assert [e.features.feature["request_id"].bytes_list.value[0] for e in found] == [b"a", b"c"]
    assert (log.written, log.failed) == (2, 2)


@pytest.mark.process
def test_the_program_joins_and_says_what_it_left_out(tmp_path):
    log = RequestLog(str(tmp_path), 1.0)
    log.write("r", {"row": np.float32([1, 2])}, np.float32([0, 0]), 1)
    log.close()
    (tmp_path / "labels.csv").write_text("request_id,y\nr,1\n")
    LISTS.save(str(tmp_path / "schema.json"))
    program = Path(__file__).parents[3] / "export" / "join_labels.py"
    arguments = [f"--logs={tmp_path}/*.tfrecord", f"--labels={tmp_path}/labels.csv", f"--output={tmp_path}/o.parquet"]
    command = [sys.executable, str(program), *arguments, f"--schema={tmp_path}/schema.json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Wrote 1 labelled rows") and "1 rows without a label" in done.stdout


@pytest.mark.parametrize(
    "ids", [[7.0, 8.0], ["7.0", "8"], [7, 8], [b"7", b"8.0"]], ids=["float", "text", "int", "bytes"]
)
def test_request_ids_that_are_numbers(tmp_path, ids):
    """A number is one id, whether it is logged as text and labelled as a float or the other way round."""
    schema = Schema(Label("y"), dense=(DenseFeature("x"),))
    log = RequestLog(str(tmp_path), 1.0)
    for request in ("7", "8.0"):
        log.write(request, {"x": np.float32([1])}, np.float32([0.5]), 1)
    log.close()
    pq.write_table(pa.table({"request_id": ids, "y": [True, False], "row": [0.0, 0.0]}), tmp_path / "labels.parquet")
    output = str(tmp_path / "out.parquet")
    joined = join_labels(files(tmp_path), str(tmp_path / "labels.parquet"), output, schema)
    assert joined.rows == 2 and joined.unmatched_labels == 0
    (block,) = sources.blocks(output, schema)
    assert parse(block, schema).label.tolist() == [1, 0]
