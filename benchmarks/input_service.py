"""How fast batches come from `dataset` alone, read by this process or by input workers on the same machine.

make bench-input-service     # 2 million rows: about 4 minutes and 2 GB of disk, below a temporary directory
"""

import json
import os
import shutil
import statistics
import sys
import tempfile
import time

import machine
import psutil
from absl import app, flags

_ROWS = flags.DEFINE_integer("rows", 2_000_000, "Raw rows to prepare.")
_WORKERS = flags.DEFINE_integer("workers", 2, "Input workers.")
_REPEATS = flags.DEFINE_integer("repeats", 5, "Timed repeats of each, taken in turns.")
_SECONDS = flags.DEFINE_float("seconds", 5.0, "Of one repeat.")
_PREPARED = flags.DEFINE_string("prepared", "", "A prepared directory to read instead.")
_OUTPUT = flags.DEFINE_string("output", "", "Where to write the results as JSON.")
_BATCH = 2048
_PROGRAM = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "train", "input_service.py")


def _prepare(work: str) -> str:
    from tfrs_dlrm.data.preparing.prepare import prepare
    from tfrs_dlrm.data.synthetic.synthetic import generate
    from tfrs_dlrm.schema import Schema

    raw, prepared = os.path.join(work, "raw"), os.path.join(work, "prepared")
    generate(raw, _ROWS.value, 1000)
    logs = [os.path.join(raw, name) for name in ("train.tsv", "eval.tsv")]
    prepare(Schema.load(os.path.join(raw, "schema.json")), logs[:1], prepared, eval_inputs=logs[1:])
    return prepared


def _cpu(pids: list[int]) -> float:
    """Seconds of processor time that the processes have used."""
    return sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in pids)


def _measure(data, workers: list[int], seconds: float) -> dict[str, float]:
    """Rows a second, and the processor time that a row takes in this process and in the workers."""
    iterator = iter(data)
    for _ in range(300):  # more than a window: both sides are at work, and nothing is left from before
        next(iterator)
    begin, batches = time.perf_counter(), 0
    here, there = _cpu([os.getpid()]), _cpu(workers)
    while time.perf_counter() - begin < seconds:
        next(iterator)
        batches += 1
    elapsed = time.perf_counter() - begin
    rows = batches * _BATCH
    here, there = _cpu([os.getpid()]) - here, _cpu(workers) - there
    return {"rows_per_s": rows / elapsed, "here_us": here / rows * 1e6, "workers_us": there / rows * 1e6}


def main(argv: list[str]) -> None:
    del argv
    from tfrs_dlrm.data.reading.dataset import dataset
    from tfrs_dlrm.data.reading.service.input_service import InputService
    from tfrs_dlrm.data.reading.service.local import LocalService

    found = machine.machine()
    print(machine.describe(found))
    work = tempfile.mkdtemp(prefix="tfrs-dlrm-bench-")
    running = None
    try:
        prepared = _PREPARED.value or _prepare(work)
        running = LocalService(_WORKERS.value, 0, [sys.executable, _PROGRAM], print)
        # Little room to run ahead, so that workers are measured by what they deliver.
        service = InputService(f"grpc://{running.address}", capacity=256 << 20)
        pids = [w.pid for w in running.workers]
        readers = {"this process": None, f"{_WORKERS.value} input workers": service}
        results: dict[str, list[dict[str, float]]] = {name: [] for name in readers}
        for _ in range(_REPEATS.value):
            for name, through in readers.items():
                data = dataset(prepared, _BATCH, repeat=True, service=through)
                results[name].append(_measure(data, pids if through else [], _SECONDS.value))
        print(f"batches of {_BATCH}, median of {_REPEATS.value} (lowest to highest), nothing else done with them:")
        for name, each in results.items():
            rates = [r["rows_per_s"] for r in each]
            here, there = (statistics.median(r[k] for r in each) for k in ("here_us", "workers_us"))
            spread = f"({min(rates):,.0f} to {max(rates):,.0f})"
            shown = f"{statistics.median(rates):12,.0f} rows/s {spread}"
            print(f"  {name:16}{shown:48}CPU microseconds a row: {here:.2f} here, {there:.2f} in workers")
        print(f"windows from workers: {service.received}, read by this process instead: {service.read_here}")
        if _OUTPUT.value:
            with open(_OUTPUT.value, "w") as f:
                json.dump({"machine": found, "results": results, "read_here": service.read_here}, f, indent=2)
    finally:
        if running:
            running.stop()
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    app.run(main)
