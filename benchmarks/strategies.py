"""What it costs to train on several devices, as far as one machine can show it.

make bench-strategies

- replicas on logical CPUs beside one device at the same global batch: time of a step, bytes on each device;
- a parameter-server cluster of processes on loopback with one worker and with two: examples/s;
- what the planner says a device needs, beside what a run allocates there.

All share the cores of this machine, so nothing here says how fast several machines or GPUs are: only that the exchange
costs little beside the work, and that sharing does not make it slower. Writes results.json and results.md.
"""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
from typing import Any

from absl import app, flags
from machine import describe, machine
from tables import Table, times
from workloads import WORKLOADS, Workload

from tfrs_dlrm.distribute.local_cluster import LocalCluster

_OUTPUT = flags.DEFINE_string("output", "benchmarks/results-strategies", "The directory of the results.")
_ROUNDS = flags.DEFINE_integer("rounds", 7, "How often each variant has its turn.", lower_bound=1)
_STEPS = flags.DEFINE_integer("steps", 20, "Steps in a turn.", lower_bound=1)
_STUDIES = flags.DEFINE_list("studies", ["replicas", "cluster", "memory"], "What to measure.")
_QUICK = flags.DEFINE_bool("quick", False, "Tiny sizes: shows that it works, its numbers mean nothing.")
_WORKER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "strategy_worker.py")


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unknown argument {argv[1]!r}")
    os.makedirs(_OUTPUT.value, exist_ok=True)
    here = machine()
    print(describe(here), flush=True)
    if here["load"] > 0.3:
        print(f"WARNING: something else is at work here (load {here['load']:.1f})", flush=True)
    results = {"machine": here, "replicas": {}, "cluster": {}, "memory": {}}
    for name in ("criteo_kaggle_zipf", "mlperf_zipf") if "replicas" in _STUDIES.value else ():
        results["replicas"][name] = _replicas(_sized(WORKLOADS[name]))
        _show(results)
    # Small enough for a step to be short: what the processes say to each other is a larger part of it then.
    small = dataclasses.replace(WORKLOADS["criteo_kaggle_zipf"], rows=(100_000,) * 26)
    for turn in range(1 if _QUICK.value else 3) if "cluster" in _STUDIES.value else ():
        for workers in (1, 2):
            found = _in_cluster("parameter_server", workers, 2, _sized(small), 20 if _QUICK.value else 300, False)
            results["cluster"].setdefault(str(workers), []).append(found["examples_per_second"])
            print(f"  parameter_server, turn {turn}, {workers} workers: {found['examples_per_second']:,.0f} examples/s")
    large = _sized(dataclasses.replace(WORKLOADS["mlperf"], rows=(1_000_000, 500_000, 300_000, 2000, 100)))
    settings = [("one_device", 0, 0), ("mirrored", 0, 0), ("multi_worker", 2, 0)]
    settings += [("parameter_server", 1, 1), ("parameter_server", 1, 3)]
    for strategy, workers, servers in settings if "memory" in _STUDIES.value else ():
        label = f"{strategy}:{servers or workers or 1}" if workers else strategy
        results["memory"][label] = _in_cluster(strategy, workers, servers, large, 0, True)
    _show(results)
    print("\n".join(table.text() for table in _tables(results)))


def _sized(workload: Workload) -> Workload:
    return workload.tiny() if _QUICK.value else workload


def _replicas(workload: Workload) -> dict[str, Any]:
    options = {"workload": dataclasses.asdict(workload), "devices": [2, 4], "rounds": _ROUNDS.value}
    with tempfile.TemporaryDirectory() as directory:
        output = os.path.join(directory, "result.json")
        command = [sys.executable, _WORKER, "mirrored", json.dumps(options | {"steps": _STEPS.value}), output]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        return _read(output)


def _in_cluster(
    strategy: str, workers: int, servers: int, workload: Workload, steps: int, memory: bool
) -> dict[str, Any]:
    options = json.dumps({"workload": dataclasses.asdict(workload), "steps": steps, "memory": memory})
    with tempfile.TemporaryDirectory() as directory:
        output = os.path.join(directory, "result.json")
        command = [sys.executable, _WORKER, strategy, options, output]
        if not workers:
            subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        else:
            cluster = LocalCluster(strategy, workers, servers, command, directory, terminal=False)
            if cluster.run(print):
                with open(os.path.join(directory, f"{cluster.main.name}.log"), encoding="utf-8") as f:
                    raise RuntimeError(f.read()[-3000:])
        return _read(output)


def _read(path: str) -> dict[str, Any]:
    with open(path, encoding="utf-8") as f:
        return json.load(f)


def _show(results: dict[str, Any]) -> None:
    """Writes what there is so far."""
    with open(os.path.join(_OUTPUT.value, "results.json"), "w", encoding="utf-8") as f:
        json.dump(results, f, indent=1)
    with open(os.path.join(_OUTPUT.value, "results.md"), "w", encoding="utf-8") as f:
        f.write(describe(results["machine"]) + "\n\n" + "\n".join(table.markdown() for table in _tables(results)))


def _tables(results: dict[str, Any]) -> list[Table]:
    rows = []
    for workload, found in results["replicas"].items():
        one, whole = statistics.median(found["seconds"]["1"]), max(found["bytes"]["1"])
        for devices, seconds in found["seconds"].items():
            here, most = statistics.median(seconds), max(found["bytes"][devices])
            low, high = (f"{1e3 * s:.1f}" for s in (min(seconds), max(seconds)))
            cells = (workload, devices, f"{1e3 * here:.1f}", f"{low} to {high}", times(here / one))
            rows.append((*cells, f"{most / 1e6:,.0f}", f"{most / whole:.3f}"))
    header = ["workload", "devices", "ms a step", "between", "to one device", "MB on the fullest", "of one device"]
    out = [Table("Replicas on logical CPUs, batch 2048 over all", header, rows, "medians of turns; row-wise Adagrad")]
    rows = []
    for workers, speeds in results["cluster"].items():
        median, one = statistics.median(speeds), statistics.median(results["cluster"]["1"])
        rows.append((workers, f"{median:,.0f}", f"{min(speeds):,.0f} to {max(speeds):,.0f}", times(median / one)))
    header = ["workers", "examples/s", "between", "to one worker"]
    out.append(Table("Parameter servers: processes on loopback, 2 servers", header, rows, "medians of turns"))
    rows = []
    for name, found in results["memory"].items():
        # A host's share of a strategy whose devices are on it is what its process grew by.
        real, said = max(found["allocated"].values()), max(found["plan"])
        resident = "" if name.startswith("parameter") else f"{found['resident'] / 1e6:,.0f}"
        rows.append((name, f"{said / 1e6:,.1f}", f"{real / 1e6:,.1f}", f"{said / real:.4f}", resident))
    header = ["strategy", "planned MB", "allocated MB", "ratio", "process grew by MB"]
    note = "tables, slots, dense weights and their slots on the fullest device; a process of mirrored holds all devices"
    out.append(Table("Memory: the plan, and a run", header, rows, note))
    return [t for t in out if t.rows]


if __name__ == "__main__":
    app.run(main)
