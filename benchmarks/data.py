"""How fast the data path is: `prepare` on raw Criteo rows beside DuckDB's own SQL and polars, and batches from
`dataset` and `record_dataset` beside TFRecord and TSV.

make bench-data       # 5 million rows: about 10 minutes and 6 GB of disk, below a temporary directory
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

import prepare_peers
from absl import app, flags

_ROWS = flags.DEFINE_integer("rows", 5_000_000, "Raw rows to prepare.")
_KILLS = flags.DEFINE_integer("kills", 3, "How often to kill a second preparation at a random moment; 0 for none.")
_PREPARE_REPEATS = flags.DEFINE_integer("prepare_repeats", 3, "Preparations by each peer, taken in turns.")
_REPEATS = flags.DEFINE_integer("repeats", 5, "Timed repeats of each reader, taken in turns.")
_OUTPUT = flags.DEFINE_string("output", "", "Where to write the results as JSON.")
_BATCH = 2048

_PREPARE = """
import sys, time
from tfrs_dlrm.data.preparing.prepare import prepare
from tfrs_dlrm.schema import Schema
schema = Schema.load(sys.argv[1] + '/schema.json')
begin = time.perf_counter()
manifest = prepare(schema, [sys.argv[1] + '/train.tsv'], sys.argv[2], eval_inputs=[sys.argv[1] + '/eval.tsv'])
print('RESULT', manifest.rows('train') + manifest.rows('eval'), time.perf_counter() - begin)
"""


def _command(peer: str, raw: str, output: str) -> list[str]:
    if peer == "prepare":
        return [sys.executable, "-c", _PREPARE, raw, output]
    return [sys.executable, prepare_peers.__file__, peer, raw, output]


def _start(command: list[str]) -> subprocess.Popen:
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment)


def _measured(command: list[str]) -> dict[str, float]:
    """Runs a preparation: rows/s without imports; with them, CPU seconds of 100,000 rows and the peak of its memory."""
    process = _start(command)
    assert process.stdout is not None
    with process.stdout as output:
        shown = output.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{command[-3:]} failed")
    rows, seconds = shown.split("RESULT")[1].split()
    return {
        "rows": int(rows),
        "rows_per_s": int(rows) / float(seconds),
        "cpu_s_per_100k": (usage.ru_utime + usage.ru_stime) / int(rows) * 1e5,
        "peak_gb": usage.ru_maxrss * 1024 / 1e9,
    }


def _same_ids(prepared: str, peer: str) -> bool:
    """Whether the ids of each column are the same, each as often, and as many rows have the label 1."""
    import numpy as np
    import pyarrow.parquet as pq

    def counts(path: str, name: str) -> np.ndarray:
        return np.bincount(pq.read_table(path, columns=[name]).column(0).to_numpy().astype(np.int64))

    return all(
        np.array_equal(counts(f"{prepared}/{split}", name), counts(f"{peer}/{split}.parquet", name))
        for split in prepare_peers.SPLITS
        for name in ("label", *prepare_peers.VALUES)
    )


def _prepare_beside_peers(raw: str, prepared: str, work: str) -> dict[str, dict[str, float | list[float]]]:
    """Prepares in turns: medians by peer, and all rows/s; the first directory of `prepare` stays."""
    found: dict[str, list[dict[str, float]]] = {peer: [] for peer in ("prepare", *prepare_peers.PEERS)}
    for _ in range(_PREPARE_REPEATS.value):
        for peer, runs in found.items():
            output = os.path.join(work, "peer") if runs or peer != "prepare" else prepared
            runs.append(_measured(_command(peer, raw, output)))
            if peer != "prepare" and not _same_ids(prepared, output):
                sys.exit(f"{peer} does not give the ids of prepare")
            if output != prepared:
                shutil.rmtree(output)
    return {
        peer: {name: statistics.median(run[name] for run in runs) for name in runs[0]}
        | {"all_rows_per_s": [run["rows_per_s"] for run in runs]}
        for peer, runs in found.items()
    }


def _killed_runs_are_identical(raw: str, whole: str, output: str, kills: int, seconds: float) -> bool:
    """Kills a preparation at random moments, lets the last run finish, and compares every file."""
    import random

    for _ in range(kills):
        process = _start(_command("prepare", raw, output))
        time.sleep(5 + random.random() * seconds / kills)
        process.send_signal(signal.SIGKILL)
        process.wait()
        done = sum(len(files) for _, _, files in os.walk(output))
        print(f"  killed with {done} files written", flush=True)
    _measured(_command("prepare", raw, output))
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
        result = _prepare_beside_peers(raw, prepared, work)
        p = result["prepare"]
        for peer, r in result.items():
            spread = f"({min(r['all_rows_per_s']):,.0f} to {max(r['all_rows_per_s']):,.0f})"
            more = f"{r['cpu_s_per_100k']:.2f} CPU s per 100,000 rows, peak resident {r['peak_gb']:.2f} GB"
            print(f"{peer:10}{r['rows_per_s']:12,.0f} rows/s {spread:22} {more}", flush=True)
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
