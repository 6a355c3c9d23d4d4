"""Training along a stream that is killed three times: is each row trained on once, and is the model as good?

make bench-stream                                # by confluent-kafka, then by tensorflow-io on TensorFlow 2.17
PYTHONPATH=benchmarks python -m streams.stream --rows=20000         # the first of these, on few rows

A broker on loopback (librdkafka's mock) has synthetic rows in the Criteo format as JSON objects, or as lines, in four
partitions. It keeps 5 MB of each, compressed, which is enough for 150,000 objects in all. A trainer along the objects,
which counts in its own weights how often it was trained on each row (see stream_worker.py), is killed with SIGKILL at
random moments. In the end each count has to be 1, and the AUC on other rows within 0.005 of that of a run on the same
rows as files, with the same settings. Trainers that nobody kills then go along the objects and the lines, for rows/s.
"""

import dataclasses
import json
import os
import random
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
from absl import app, flags
from machine import describe, machine

_ROWS = flags.DEFINE_integer("rows", 150_000, "Rows to train on; a quarter as many are for evaluation.")
_KILLS = flags.DEFINE_integer("kills", 3, "How often to kill the trainer.")
_READER = flags.DEFINE_string("reader", "", "confluent or tensorflow_io; by default the one that the library takes.")
_OUTPUT = flags.DEFINE_string("output", "", "Where to write the results as JSON.")

_RATE, _WINDOW = 0.03, 4096
_MALFORMED = 20


def prepare_log(home: str, rows: int) -> tuple[str, list[str]]:
    """A prepared log, one of whose columns is the number of the row, and the lines of its training set."""
    from tfrs_dlrm.data.preparing.prepare import prepare
    from tfrs_dlrm.data.synthetic.synthetic import criteo_schema, generate
    from tfrs_dlrm.schema import CategoricalFeature, Table

    generate(home, rows, rows // 4)
    plain = criteo_schema(min_count=20)
    row = CategoricalFeature("row", encoding="ids", dtype="int64")
    schema = dataclasses.replace(
        plain,
        categorical=(*plain.categorical, row),
        tables=(*plain.tables, Table("row", vocabulary_size=rows, initializer="zeros")),
        text=dataclasses.replace(plain.text, columns=(*plain.text.columns, "row")),
    )
    lines = {}
    for name in ("train", "eval"):
        with open(os.path.join(home, f"{name}.tsv"), encoding="utf-8") as f:
            lines[name] = ["{}\t{}".format(line.rstrip("\n"), n) for n, line in enumerate(f)]
        with open(os.path.join(home, f"{name}-rows.tsv"), "w", encoding="utf-8") as f:
            f.writelines(f"{line}\n" for line in lines[name])
    files = [os.path.join(home, f"{name}-rows.tsv") for name in ("train", "eval")]
    prepare(schema, files[:1], os.path.join(home, "prepared"), eval_inputs=files[1:])
    return os.path.join(home, "prepared"), lines["train"]


def as_object(names: tuple[str, ...], line: str) -> str:
    """A line as a JSON object: ids are texts, the other columns numbers, and an empty field is null."""
    fields = zip(names, line.split("\t"), strict=True)
    return json.dumps({n: (v if n.startswith("C") else int(v)) if v else None for n, v in fields})


def start_broker(topics: dict[str, list[str]]):
    """A broker that has the rows of topics, and malformed ones: what keeps it alive, and its address."""
    import confluent_kafka

    settings = {"test.mock.num.brokers": 1, "compression.type": "gzip", "linger.ms": 100, "log_level": 0}
    broker = confluent_kafka.Producer(settings)
    (found,) = broker.list_topics(timeout=10).brokers.values()
    for topic, rows in topics.items():
        malformed = set(random.sample(range(len(rows)), _MALFORMED))
        for i, row in enumerate(rows):
            for value in [row, f"malformed {i}"] if i in malformed else [row]:
                while True:
                    try:
                        broker.produce(topic, value, partition=i % 4)
                        break
                    except BufferError:
                        broker.poll(0.1)
    if broker.flush(60):
        raise RuntimeError("the broker does not take the rows")
    return broker, f"{found.host}:{found.port}"


def make_config(prepared: str, source: str):
    from tfrs_dlrm.config import DataConfig, DLRMConfig, OptimizerConfig, RunConfig, StreamConfig, TrainConfig

    return RunConfig(
        DataConfig(path=prepared, source=source, bad_rows="quarantine"),
        DLRMConfig(embedding_dim=8, bottom_mlp=(32, 8), top_mlp=(32, 1)),
        OptimizerConfig("adam", 0.003, "rowwise_adagrad", _RATE, embedding_per_table="row=sgd"),
        TrainConfig(batch_size=512, tensorboard=False),
        StreamConfig(window_rows=_WINDOW, checkpoint_every_windows=3, stop_at_end=True),
    )


def run_killed(config: str, workdir: str, windows: list[int]) -> list[int]:
    """Kills trainers a random moment after they have done so many windows, and lets the last one end."""
    metrics, killed = os.path.join(workdir, "metrics.jsonl"), []
    command = [sys.executable, os.path.join(os.path.dirname(os.path.abspath(__file__)), "stream_worker.py")]
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    for window in [*windows, None]:
        with open(os.path.join(workdir + ".log"), "a") as log:
            trainer = subprocess.Popen([*command, config, workdir], env=environment, stdout=log, stderr=log)
        begun = _last_window(metrics)
        while trainer.poll() is None:
            time.sleep(0.02)
            last = _last_window(metrics)
            begun = min(begun, last)  # it first drops what came after the checkpoint
            if window is not None and last >= begun + window:
                time.sleep(random.random() * 0.5)
                trainer.send_signal(signal.SIGKILL)
                trainer.wait()
                killed.append(_last_window(metrics))
                print(f"  killed after window {killed[-1]}", flush=True)
        if trainer.returncode not in (0, -signal.SIGKILL):
            with open(workdir + ".log") as log:
                raise RuntimeError(f"the trainer failed:\n{log.read()[-3000:]}")
    return killed


def whole_speed(config, workdir: str) -> tuple[float, float]:
    """Trains without a kill: rows/s of the median window, and CPU seconds of the whole run per 100,000 rows."""
    path = f"{workdir}.json"
    with open(path, "w", encoding="utf-8") as f:
        json.dump(config.to_dict(), f)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run_killed(path, workdir, [])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    records = _lines(os.path.join(workdir, "metrics.jsonl"))
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return statistics.median(r["rows_per_s"] for r in records), 1e5 * seconds / sum(r["rows"] for r in records)


def _last_window(metrics: str) -> int:
    lines = _lines(metrics) if os.path.exists(metrics) else []
    return lines[-1]["window"] if lines else 0


def _lines(path: str) -> list[dict]:
    with open(path, encoding="utf-8") as f:
        return [json.loads(line) for line in f if line.endswith("\n")]


def main(argv: list[str]) -> None:
    del argv
    from streams import stream_worker
    from tfrs_dlrm.schema import Schema
    from tfrs_dlrm.training.evaluation import evaluate_run
    from tfrs_dlrm.training.loop import train_and_evaluate
    from tfrs_dlrm.training.workdir import Workdir

    stream_worker.count_rows()
    home = tempfile.mkdtemp(prefix="tfrs-dlrm-stream-")
    try:
        print(describe(machine()), flush=True)
        prepared, lines = prepare_log(home, _ROWS.value)
        names = Schema.load(os.path.join(prepared, "schema.json")).text.columns
        broker, servers = start_broker({"json": [as_object(names, line) for line in lines], "tsv": lines})
        reader = f"&reader={_READER.value}" if _READER.value else ""
        config = make_config(prepared, f"kafka://{servers}/json?format=json{reader}")
        path, workdir = os.path.join(home, "config.json"), os.path.join(home, "stream")
        with open(path, "w", encoding="utf-8") as f:
            json.dump(config.to_dict(), f)
        last = -(-(_ROWS.value + _MALFORMED) // _WINDOW)
        windows = [random.randint(1, max(1, (last - 2) // _KILLS.value)) for _ in range(_KILLS.value)]
        print(f"{_ROWS.value:,} rows and {_MALFORMED} malformed ones in {last} windows", flush=True)
        killed = run_killed(path, workdir, windows)
        speeds = {}
        for form in ("json", "tsv"):
            other = make_config(prepared, f"kafka://{servers}/{form}?format={form}{reader}")
            speeds[form] = whole_speed(other, os.path.join(home, form))
        del broker

        counts = stream_worker.counts(Workdir(workdir).checkpoint("latest"), _RATE)
        once = bool((np.abs(counts - 1) < 1e-3).all())
        records = _lines(os.path.join(workdir, "metrics.jsonl"))
        quarantine = {(r["partition"], r["offset"]) for r in _lines(os.path.join(workdir, "quarantine.jsonl"))}
        once = once and len(_lines(os.path.join(workdir, "quarantine.jsonl"))) == len(quarantine) == _MALFORMED
        once = once and sum(r["rows"] for r in records) == _ROWS.value
        stream = evaluate_run(workdir, which="latest").scores.metrics()["auc"]
        batch = dataclasses.replace(config, data=dataclasses.replace(config.data, source=""))
        train_and_evaluate(batch, os.path.join(home, "batch"))
        files = evaluate_run(os.path.join(home, "batch"), which="latest").scores.metrics()["auc"]
        result = {
            "machine": machine(),
            "rows": _ROWS.value,
            "killed_after_windows": killed,
            "each_row_once": once,
            "counts": [float(counts.min()), float(counts.max())],
            "auc_stream": stream,
            "auc_files": files,
            "rows_per_s": speeds,
        }
        print(f"each row trained on once, each malformed one set aside once: {'yes' if once else 'NO'}")
        print(f"AUC {stream:.5f}; on the same rows as files {files:.5f}; difference {stream - files:+.5f}")
        for form, (speed, seconds) in speeds.items():
            what = "rows/s read, evaluated and trained on in the median window"
            print(f"{form}: {speed:,.0f} {what}; {seconds:.2f} CPU s per 100,000 rows, with the start")
        if _OUTPUT.value:
            with open(_OUTPUT.value, "w", encoding="utf-8") as f:
                json.dump(result, f, indent=2)
        if not once or abs(stream - files) > 0.005:
            sys.exit(1)
    finally:
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    app.run(main)
