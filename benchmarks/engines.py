"""`prepare` by DuckDB and by Spark on the same raw rows of a synthetic log: speed, memory, and whether they agree.

make bench-engines    # 2 million rows: about 5 minutes and 3 GB of disk, below a temporary directory
python benchmarks/engines.py --rows=100000
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time

from absl import app, flags

_ROWS = flags.DEFINE_integer("rows", 2_000_000, "Raw rows to prepare; 5% more are for evaluation.")
_MASTER = flags.DEFINE_string("master", "local[2]", "Of Spark.")
_OUTPUT = flags.DEFINE_string("output", "", "Where to write the results as JSON.")

_PREPARE = """
import sys, time
from tfrs_dlrm.data.preparing.prepare import prepare
from tfrs_dlrm.schema import Schema
raw, output, engine, master = sys.argv[1:]
schema = Schema.load(raw + '/schema.json')
begin = time.perf_counter()
manifest = prepare(schema, [raw + '/train.tsv'], output, eval_inputs=[raw + '/eval.tsv'], engine=engine,
                   master=master or None)
print('RESULT', manifest.rows('train') + manifest.rows('eval'), time.perf_counter() - begin)
"""


class _PeakMemory(threading.Thread):
    """The most memory that a process and all below it have had at once: what they do not share, and in all."""

    def __init__(self, pid: int):
        super().__init__(daemon=True)
        self._pid, self._over = pid, threading.Event()
        self.peak = 0

    def run(self) -> None:
        import psutil

        while not self._over.wait(0.5):
            try:
                root = psutil.Process(self._pid)
                family = [root, *root.children(recursive=True)]
            except psutil.NoSuchProcess:
                return
            total = 0
            for process in family:
                try:
                    total += process.memory_full_info().pss
                except psutil.Error:
                    continue  # it has just ended
            self.peak = max(self.peak, total)

    def stop(self) -> int:
        self._over.set()
        self.join()
        return self.peak


def _prepare(raw: str, output: str, engine: str) -> dict[str, float]:
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    master = _MASTER.value if engine == "spark" else ""
    command = [sys.executable, "-c", _PREPARE, raw, output, engine, master]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    memory = _PeakMemory(process.pid)
    memory.start()
    shown, _ = process.communicate()
    peak = memory.stop()
    if process.returncode:
        sys.exit(f"prepare by {engine} failed")
    rows, seconds = shown.split("RESULT")[1].split()
    return {
        "rows": int(rows),
        "seconds": float(seconds),
        "rows_per_s": int(rows) / float(seconds),
        "peak_bytes": peak,
    }


def _row_hashes(prepared: str, split: str) -> tuple[int, int]:
    """The rows of a split as a set: their number, and the sum of a 128-bit hash of each, which no order changes."""
    import numpy as np
    import pyarrow.parquet as pq

    count = total = 0
    directory = os.path.join(prepared, split)
    for name in sorted(os.listdir(directory)):
        with pq.ParquetFile(os.path.join(directory, name)) as file:
            for batch in file.iter_batches(16_384):
                columns = [column.to_numpy(zero_copy_only=False).astype("<f8") for column in batch.columns]
                for row in np.stack(columns, axis=1):
                    digest = hashlib.blake2b(row.tobytes(), digest_size=16).digest()
                    total = (total + int.from_bytes(digest, "big")) % 2**128
                count += batch.num_rows
    return count, total


def _agreement(a: str, b: str) -> dict[str, bool]:
    """What two prepared directories have in common."""

    def content(directory: str, name: str) -> bytes:
        with open(os.path.join(directory, name), "rb") as file:
            return file.read()

    vocabularies = [sorted(os.listdir(os.path.join(d, "vocabulary"))) for d in (a, b)]
    files = sorted(os.path.relpath(os.path.join(d, f), a) for d, _, names in os.walk(a) for f in names)
    others = sorted(os.path.relpath(os.path.join(d, f), b) for d, _, names in os.walk(b) for f in names)
    return {
        "vocabularies": vocabularies[0] == vocabularies[1]
        and all(content(a, f"vocabulary/{n}") == content(b, f"vocabulary/{n}") for n in vocabularies[0]),
        "rows": all(_row_hashes(a, split) == _row_hashes(b, split) for split in ("train", "eval")),
        "all_files": files == others and all(content(a, name) == content(b, name) for name in files),
    }


def main(argv: list[str]) -> None:
    del argv
    from machine import describe, machine

    from tfrs_dlrm.data.synthetic.synthetic import generate

    result = {"machine": machine(), "master": _MASTER.value}
    print(describe(result["machine"]), flush=True)
    work = tempfile.mkdtemp(prefix="tfrs-dlrm-bench-")
    try:
        raw = os.path.join(work, "raw")
        begin = time.perf_counter()
        generate(raw, _ROWS.value, max(1, _ROWS.value // 20))
        print(f"generated {_ROWS.value:,} raw rows in {time.perf_counter() - begin:.0f} s", flush=True)
        for engine in ("duckdb", "spark"):
            r = result[engine] = _prepare(raw, os.path.join(work, engine), engine)
            speed, memory = f"{r['rows_per_s']:9,.0f} rows/s", f"{r['peak_bytes'] / 1e9:.2f} GB"
            print(f"{engine:8} {speed} ({r['seconds']:.0f} s)  peak of all its processes {memory}", flush=True)
        same = result["same"] = _agreement(os.path.join(work, "duckdb"), os.path.join(work, "spark"))
        for what, equal in same.items():
            print(f"{what.replace('_', ' '):13} {'identical' if equal else 'DIFFERENT'}")
        if _OUTPUT.value:
            with open(_OUTPUT.value, "w") as f:
                json.dump(result, f, indent=2)
        if not all(same.values()):
            sys.exit(1)
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    app.run(main)
