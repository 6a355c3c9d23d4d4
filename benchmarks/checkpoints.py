"""What a checkpoint costs: the time that training waits, the time to write and to read, and the memory, three ways.

python benchmarks/checkpoints.py                 # tables and slots of 2 GiB: about 5 minutes, 3 GB of disk
python benchmarks/checkpoints.py --gib=0.25

`copied` is what runs do where memory allows, `waiting` what they do elsewhere, and `tensorflow` is
`tf.train.Checkpoint` on the whole model.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time

from absl import app, flags

_GIB = flags.DEFINE_float("gib", 2.0, "Tables and slots together, in GiB.")
_REPEATS = flags.DEFINE_integer("repeats", 3, "Processes for each way, taken in turns.")
_OUTPUT = flags.DEFINE_string("output", "", "Where to write the results as JSON.")
_WAY = flags.DEFINE_enum("way", "", ["", "copied", "waiting", "tensorflow", "checksum"], "Of the process itself.")
_DIRECTORY = flags.DEFINE_string("directory", "", "Where it writes.")
_TABLES, _DIM, _BATCH = 4, 64, 2048


def _resident(field: str) -> int:
    """VmRSS or VmHWM, its peak since the last reset."""
    with open("/proc/self/status") as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith(field))


def _begin_peak() -> int:
    """Resets VmHWM and returns VmRSS."""
    with open("/proc/self/clear_refs", "w") as f:
        f.write("5")
    return _resident("VmRSS")


def _make_model():
    import tf_keras as keras

    import tfrs_dlrm as td
    from tfrs_dlrm.schema import CategoricalFeature, Label, Schema, Table

    rows = int(_GIB.value * 2**30 / 2 / _TABLES / _DIM / 4)
    names = [f"t{i}" for i in range(_TABLES)]
    features = tuple(CategoricalFeature(n) for n in names)
    model = td.DLRM(Schema(Label("y"), (), features, tuple(Table(n, _DIM, rows) for n in names)), top_mlp=(64, 1))
    model.compile(keras.optimizers.Adam(), td.Adagrad(0.01), metrics=[])
    return model, rows


def _steps(model, rows):
    """A function that trains until it is told to stop, and returns steps/s."""
    import tensorflow as tf

    step = tf.function(model.train_step)
    ids = [tf.random.uniform([_BATCH, _TABLES], 0, rows, tf.int32, seed=i) for i in range(20)]
    labels = tf.cast(tf.range(_BATCH) % 2, tf.float32)

    def train(stop):
        begin, count = time.perf_counter(), 0
        while not stop():
            step(({"ids": ids[count % 20]}, labels))
            count += 1
        return count / (time.perf_counter() - begin)

    def seconds(n):
        end = time.perf_counter() + n
        return train(lambda: time.perf_counter() > end)

    seconds(2)
    return train, seconds


def _measure_checksum() -> dict[str, float]:
    import tensorflow as tf

    from tfrs_dlrm.checkpoint.checksum import checksum

    out = {}
    for name, shape, dtype in [
        ("float32, dim 64", [1 << 18, 64], tf.float32),
        ("float32, dim 16", [1 << 20, 16], tf.float32),
        ("bfloat16, dim 64", [1 << 19, 64], tf.bfloat16),
        ("float32, one a row", [1 << 24], tf.float32),
    ]:
        values = tf.cast(tf.random.normal(shape), dtype)
        checksum(values)
        begin = time.perf_counter()
        for _ in range(10):
            checksum(values)
        out[name] = 10 * values.shape.num_elements() * dtype.size / (time.perf_counter() - begin) / 1e9
    return out


def _measure(way: str, directory: str) -> dict[str, float]:
    import tensorflow as tf

    import tfrs_dlrm as td
    from tfrs_dlrm.checkpoint import Checkpoints, save

    model, rows = _make_model()
    train, seconds = _steps(model, rows)
    out = {"steps_per_s": seconds(3)}
    if way != "copied":
        save.available = lambda host: 0
    before = _begin_peak()
    begin = time.perf_counter()
    if way == "tensorflow":
        path = tf.train.Checkpoint(model=model).write(os.path.join(directory, "old"))
        out["waits_s"] = out["written_s"] = time.perf_counter() - begin
    else:
        checkpoints = Checkpoints(model, os.path.join(directory, "latest"), os.path.join(directory, "best"), 1)
        path = checkpoints.save(1)
        out["waits_s"] = time.perf_counter() - begin
        written = threading.Thread(target=checkpoints.wait)
        written.start()
        if way == "copied":
            out["steps_per_s_meanwhile"] = train(lambda: not written.is_alive())
        written.join()
        out["written_s"] = time.perf_counter() - begin
    out["peak_beyond_gb"] = (_resident("VmHWM") - before) / 1e9
    before = _begin_peak()
    begin = time.perf_counter()
    if way == "tensorflow":
        tf.train.Checkpoint(model=model).read(path).assert_existing_objects_matched()
    else:
        td.restore_checkpoint(model, path)
    out["read_s"] = time.perf_counter() - begin
    out["read_peak_beyond_gb"] = max(0, _resident("VmHWM") - before) / 1e9
    return out


def _run(way: str, directory: str) -> dict[str, float]:
    command = [sys.executable, os.path.abspath(__file__), f"--way={way}", f"--directory={directory}"]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "TF_USE_LEGACY_KERAS": "1"}
    done = subprocess.run([*command, f"--gib={_GIB.value}"], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    return json.loads(done.stdout.split("RESULT")[1])


def main(argv: list[str]) -> None:
    del argv
    if _WAY.value:
        found = _measure_checksum() if _WAY.value == "checksum" else _measure(_WAY.value, _DIRECTORY.value)
        print("RESULT", json.dumps(found))
        return
    runs: dict[str, list[dict[str, float]]] = {}
    for _ in range(_REPEATS.value):
        for way in ("copied", "waiting", "tensorflow", "checksum"):
            directory = tempfile.mkdtemp()
            try:
                runs.setdefault(way, []).append(_run(way, directory))
            finally:
                shutil.rmtree(directory)
            print(way, runs[way][-1], file=sys.stderr)
    medians = {w: {n: statistics.median(r[n] for r in some) for n in some[0]} for w, some in runs.items()}
    print(f"{_GIB.value:g} GiB of tables and slots, median of {_REPEATS.value} processes")
    columns = ["waits_s", "written_s", "peak_beyond_gb", "read_s", "read_peak_beyond_gb"]
    print("| | " + " | ".join(columns) + " |\n|" + " --- |" * (len(columns) + 1))
    for way in ("copied", "waiting", "tensorflow"):
        print(f"| {way} | " + " | ".join(f"{medians[way][c]:.2f}" for c in columns) + " |")
    copied = medians["copied"]
    print(f"steps/s while it is written: {copied['steps_per_s_meanwhile'] / copied['steps_per_s']:.0%} of before")
    print("checksum, GB/s: " + ", ".join(f"{n} {v:.1f}" for n, v in medians["checksum"].items()))
    if _OUTPUT.value:
        with open(_OUTPUT.value, "w") as f:
            json.dump(runs, f, indent=2)


if __name__ == "__main__":
    app.run(main)
