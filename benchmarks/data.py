"""How fast the data path is: `prepare` on raw Criteo rows, and batches from `dataset` and `record_dataset` beside
TFRecord and TSV.

make bench-data       # 5 million rows: about 5 minutes and 4 GB of disk, below a temporary directory
python benchmarks/data.py --rows=500000 --kills=3
"""

import filecmp
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

from absl import app, flags

_ROWS = flags.DEFINE_integer("rows", 5_000_000, "Raw rows to prepare.")
_KILLS = flags.DEFINE_integer("kills", 3, "How often to kill a second preparation at a random moment; 0 for none.")
_REPEATS = flags.DEFINE_integer("repeats", 5, "Timed repeats of each reader, taken in turns.")
_OUTPUT = flags.DEFINE_string("output", "", "Where to write the results as JSON.")
_BATCH = 2048

_PREPARE = """
import resource, sys, time
from tfrs_dlrm.data.preparing.prepare import prepare
from tfrs_dlrm.schema import Schema
schema = Schema.load(sys.argv[1] + '/schema.json')
begin = time.perf_counter()
manifest = prepare(schema, [sys.argv[1] + '/train.tsv'], sys.argv[2], eval_inputs=[sys.argv[1] + '/eval.tsv'])
seconds = time.perf_counter() - begin
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print('RESULT', manifest.rows('train') + manifest.rows('eval'), seconds, peak)
"""


def _start_prepare(raw: str, output: str) -> subprocess.Popen:
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.Popen(
        [sys.executable, "-c", _PREPARE, raw, output],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    )


def _prepare(raw: str, output: str) -> dict[str, float]:
    shown, _ = _start_prepare(raw, output).communicate()
    rows, seconds, peak = shown.split("RESULT")[1].split()
    return {"rows": int(rows), "rows_per_s": int(rows) / float(seconds), "peak_gb": int(peak) / 1e9}


def _killed_runs_are_identical(raw: str, whole: str, output: str, kills: int, seconds: float) -> bool:
    """Kills a preparation at random moments, lets the last run finish, and compares every file."""
    import random

    for _ in range(kills):
        process = _start_prepare(raw, output)
        time.sleep(5 + random.random() * seconds / kills)
        process.send_signal(signal.SIGKILL)
        process.wait()
        done = sum(len(files) for _, _, files in os.walk(output))
        print(f"  killed with {done} files written", flush=True)
    _prepare(raw, output)
    names = sorted(os.path.relpath(os.path.join(d, f), whole) for d, _, files in os.walk(whole) for f in files)
    others = sorted(os.path.relpath(os.path.join(d, f), output) for d, _, files in os.walk(output) for f in files)
    return names == others and not any(filecmp.cmpfiles(whole, output, names, shallow=False)[1:])


def _write_records(prepared: str, rows: int) -> dict[str, float]:
    from tfrs_dlrm.data.reading.records import write_records

    begin = time.perf_counter()
    home = write_records(prepared)
    seconds = time.perf_counter() - begin
    size = sum(os.path.getsize(os.path.join(home, name)) for name in os.listdir(home))
    return {"rows_per_s": rows / seconds, "bytes_per_row": size / rows}


def _examples_to_tfrecord(prepared: str, path: str, rows: int) -> None:
    import pyarrow.parquet as pq
    import tensorflow as tf

    table = pq.read_table(os.path.join(prepared, "eval")).slice(0, rows)
    dense = [table.column(f"I{i}").to_numpy() for i in range(1, 14)]
    ids = [table.column(f"C{i}").to_numpy() for i in range(1, 27)]
    label = table.column("label").to_numpy()
    with tf.io.TFRecordWriter(path) as writer:
        for r in range(table.num_rows):
            feature = {
                "label": tf.train.Feature(float_list=tf.train.FloatList(value=[label[r]])),
                "dense": tf.train.Feature(float_list=tf.train.FloatList(value=[c[r] for c in dense])),
                "ids": tf.train.Feature(int64_list=tf.train.Int64List(value=[c[r] for c in ids])),
            }
            writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())


def _readers(raw: str, prepared: str, work: str):
    """Datasets of the same rows in the same form, without end: ours, TFRecord of tf.train.Example, and raw TSV."""
    import tensorflow as tf

    from tfrs_dlrm.data.reading.dataset import dataset
    from tfrs_dlrm.data.reading.record_dataset import record_dataset

    record = os.path.join(work, "rows.tfrecord")
    _examples_to_tfrecord(prepared, record, 100_000)
    spec = {
        "label": tf.io.FixedLenFeature([], tf.float32),
        "dense": tf.io.FixedLenFeature([13], tf.float32),
        "ids": tf.io.FixedLenFeature([26], tf.int64),
    }

    def parse_example(batch):
        parsed = tf.io.parse_example(batch, spec)
        return {"dense": parsed["dense"], "ids": parsed["ids"]}, parsed["label"]

    def parse_line(batch):
        columns = tf.io.decode_csv(batch, [[0.0]] * 14 + [[""]] * 26, field_delim="\t", use_quote_delim=False)
        ids = tf.strings.to_hash_bucket_fast(tf.stack(columns[14:], 1), 100_000)
        return {"dense": tf.math.log1p(tf.maximum(tf.stack(columns[1:14], 1), 0)), "ids": ids}, columns[0]

    def pipeline(source, parse):
        data = source.repeat().batch(_BATCH, drop_remainder=True)
        return data.map(parse, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)

    return {
        "tfrs_dlrm.dataset": dataset(prepared, _BATCH, repeat=True),
        "record_dataset": record_dataset(prepared, _BATCH, repeat=True),
        "TFRecord Example": pipeline(tf.data.TFRecordDataset(record), parse_example),
        "TSV, hashed": pipeline(tf.data.TextLineDataset(os.path.join(raw, "eval.tsv")), parse_line),
    }


def _rows_per_s(iterator, seconds: float = 3.0) -> float:
    for _ in range(5):
        next(iterator)
    begin, batches = time.perf_counter(), 0
    while time.perf_counter() - begin < seconds:
        next(iterator)
        batches += 1
    return batches * _BATCH / (time.perf_counter() - begin)


def main(argv: list[str]) -> None:
    del argv
    from tfrs_dlrm.data.synthetic.synthetic import generate

    work = tempfile.mkdtemp(prefix="tfrs-dlrm-bench-")
    try:
        raw, prepared = os.path.join(work, "raw"), os.path.join(work, "prepared")
        begin = time.perf_counter()
        generate(raw, _ROWS.value, 200_000)
        total = _ROWS.value + 200_000
        print(f"generate  {total / (time.perf_counter() - begin):12,.0f} rows/s  ({total:,} raw rows)", flush=True)
        result = {"prepare": _prepare(raw, prepared)}
        p = result["prepare"]
        print(f"prepare   {p['rows_per_s']:12,.0f} rows/s  peak resident {p['peak_gb']:.2f} GB", flush=True)
        if _KILLS.value:
            seconds = p["rows"] / p["rows_per_s"]
            same = _killed_runs_are_identical(raw, prepared, os.path.join(work, "killed"), _KILLS.value, seconds)
            result["killed_runs_identical"] = same
            print(f"prepare, killed {_KILLS.value} times: output {'identical' if same else 'DIFFERS'}", flush=True)
        result["write_records"] = w = _write_records(prepared, p["rows"])
        print(f"records   {w['rows_per_s']:12,.0f} rows/s  {w['bytes_per_row']:.0f} bytes a row", flush=True)
        iterators = {name: iter(data) for name, data in _readers(raw, prepared, work).items()}
        times: dict[str, list[float]] = {name: [] for name in iterators}
        for _ in range(_REPEATS.value):
            for name, iterator in iterators.items():
                times[name].append(_rows_per_s(iterator))
        ours = statistics.median(times["tfrs_dlrm.dataset"])
        print(f"\nbatches of {_BATCH}, median of {_REPEATS.value} (lowest to highest), in rows/s:")
        for name, values in times.items():
            median = statistics.median(values)
            spread = f"({min(values):,.0f} to {max(values):,.0f})"
            print(f"  {name:20}{median:12,.0f}  {spread:26}  ours is {ours / median:.1f}x")
        result["dataset"] = times
        if _OUTPUT.value:
            with open(_OUTPUT.value, "w") as f:
                json.dump(result, f, indent=2)
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    app.run(main)
