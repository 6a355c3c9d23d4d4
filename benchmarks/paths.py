"""Whole libraries on the same raw log: CSV in, a trained DCN-v2 in a file out, by this package, FuxiCTR and DeepCTR.

make bench-paths                                       # one run of each on a million rows: 10 minutes
python benchmarks/paths.py --libraries=ours --add      # one more run of one library, into the same results

The log is drawn as the quickstart's, so the best AUC is known. Each library runs in processes and in an environment of
its own, in turns, with the model, the rare values, the batches, the rate and the epochs of `peers/path_task.py`. The
seconds count from the start of the process, and end with a file of the model. The predictions of all are judged by the
same function. Writes results.json, results.md and paths.png.
"""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np
from absl import app, flags
from charts import draw_paths
from machine import describe, machine
from peers.path_task import ANSWER, LABEL, NUMBERS, PHASES, VALUES, PathTask
from process_tree import TreeWatch, by_phase
from tables import Table, times

LIBRARIES = {"ours": "this package", "fuxictr": "FuxiCTR", "deepctr": "DeepCTR-Torch"}
COUNTED = ("start", "prepare", "train", "save")  # the path from the log to the file
MORE = ("predict", "export")
_HERE = os.path.dirname(os.path.abspath(__file__))

_ROWS = flags.DEFINE_integer("rows", 1_000_000, "Rows to learn; a tenth more are predicted.", lower_bound=100)
_MIN_COUNT = flags.DEFINE_integer("min_count", 10, "How often a value has to occur to have a vector of its own.")
_REPEATS = flags.DEFINE_integer("repeats", 1, "Runs of each library, in turns.", lower_bound=1)
_LIBRARIES = flags.DEFINE_list("libraries", list(LIBRARIES), f"Which of {', '.join(LIBRARIES)}.")
_ADD = flags.DEFINE_bool("add", False, "Adds to the results of the same task in --output.")
_QUICK = flags.DEFINE_bool("quick", False, "Few rows: shows that it works, its numbers mean nothing.")
_OUTPUT = flags.DEFINE_string("output", "benchmarks/results-paths", "The directory of log and results.")
_PYTHONS = {
    "ours": flags.DEFINE_string("python", sys.executable, "The Python that has this package."),
    "fuxictr": flags.DEFINE_string("fuxictr_python", ".venv-fuxictr/bin/python", "The Python that has FuxiCTR."),
    "deepctr": flags.DEFINE_string("deepctr_python", ".venv-deepctr/bin/python", "The Python that has DeepCTR-Torch."),
}


def write_csv(tsv: str, csv: str) -> None:
    """Writes a raw Criteo log, which has no header, as CSV with a header line. No field has commas or quotes."""
    with open(tsv, "rb") as source, open(csv + ".tmp", "wb") as file:
        file.write(",".join([LABEL, *NUMBERS, *VALUES]).encode() + b"\n")
        while block := source.read(1 << 24):
            file.write(block.replace(b"\t", b","))
    os.replace(csv + ".tmp", csv)


def make_task(directory: str, rows: int, min_count: int) -> tuple[PathTask, float]:
    """Draws the log, unless the directory has it; returns the task and the best AUC of the test rows."""
    from tfrs_dlrm.data.synthetic.synthetic import generate

    planted = generate(directory, rows, rows // 10, again=False)
    files = [os.path.join(directory, f"{split}.csv") for split in ("train", "eval")]
    for file in files:
        if not os.path.exists(file):
            write_csv(file.removesuffix("csv") + "tsv", file)
    return PathTask(train=files[0], test=files[1], min_count=min_count), planted.auc


def run(library: str, task: PathTask) -> dict[str, Any]:
    """Runs a library in a process of its own; returns what each phase took, the AUC and the sizes."""
    with tempfile.TemporaryDirectory(prefix="path-") as output:
        path = os.path.join(output, "task.json")
        with open(path, "w", encoding="utf-8") as f:
            json.dump(dataclasses.asdict(task), f)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([_HERE, os.path.dirname(_HERE)])}
        environment |= {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "", "RAY_USAGE_STATS_ENABLED": "0"}
        environment["RAY_TMPDIR"] = output  # its sockets are below it, so its name has to be short
        with open(os.path.join(output, "output.txt"), "w+", encoding="utf-8") as log:
            command = [_PYTHONS[library].value, "-m", f"peers.path_{library}", path, output, str(time.time())]
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
            watch = TreeWatch(process.pid)
            try:
                failed = process.wait()
            finally:
                process.kill()
                watch.stop()
            if failed:
                log.seek(0)
                sys.exit(f"{library} failed:\n{log.read()[-5000:]}")
        with open(os.path.join(output, PHASES), encoding="utf-8") as f:
            facts = json.load(f)
        answer = np.load(os.path.join(output, ANSWER))
        found = judged(answer["labels"], answer["predictions"], task.test)
    uses = {name: use._asdict() for name, use in by_phase(watch.samples, facts.pop("ends")).items()}
    return {"library": library, "phases": uses} | facts | found


def judged(labels: np.ndarray, predictions: np.ndarray, test: str) -> dict[str, float]:
    """Returns AUC and log loss of predictions.

    Raises:
      ValueError: they are not of the rows of `test`, by the number of rows and of clicks.
    """
    from tfrs_dlrm.metrics import exact_auc, log_loss

    with open(test, "rb") as f:
        clicks = [line.split(b",", 1)[0] == b"1" for line in f][1:]
    if len(predictions) != len(clicks) or labels.sum() != sum(clicks):
        raise ValueError(
            f"{len(predictions)} predictions of rows with {labels.sum():.0f} clicks; {test} has {len(clicks)} rows"
            f" with {sum(clicks)} clicks"
        )
    logits = np.log(predictions.astype(np.float64)) - np.log1p(-predictions.astype(np.float64))
    return {"auc": exact_auc(labels, predictions), "log_loss": log_loss(labels, logits)}


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns the medians of runs of one library: by phase, and of the whole path to the file."""

    def middle(values: Any) -> float:
        return statistics.median(values)

    names = [name for name in (*COUNTED, *MORE) if name in runs[0]["phases"]]
    phases = {
        name: {what: middle(run["phases"][name][what] for run in runs) for what in ("seconds", "cpu", "peak")}
        for name in names
    }
    path = [[run["phases"][name] for name in COUNTED] for run in runs]
    return {
        "runs": len(runs),
        "phases": phases,
        "seconds": middle(sum(use["seconds"] for use in uses) for uses in path),
        "cpu": middle(sum(use["cpu"] for use in uses) for uses in path),
        "peak": middle(max(use["peak"] for use in uses) for uses in path),
        "spread": [f(sum(use["seconds"] for use in uses) for uses in path) for f in (min, max)],
        "auc": middle(run["auc"] for run in runs),
        "log_loss": middle(run["log_loss"] for run in runs),
        "saved_bytes": runs[0]["saved_bytes"],
        "table_rows": runs[0]["table_rows"],
    }


def by_library(runs: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Returns the summaries of all libraries that have runs."""
    of_each = {name: [run for run in runs if run["library"] == name] for name in LIBRARIES}
    return {name: summary(runs) for name, runs in of_each.items() if runs}


def result_tables(results: dict[str, Any]) -> list[Table]:
    """Returns the whole paths, and their phases."""
    found = by_library(results["runs"])
    ours = found.get("ours")
    rows, parts = [], []
    for name, one in found.items():
        low, high = one["spread"]
        ratio = times(one["seconds"] / ours["seconds"]) if ours else "-"
        cells = (f"{one['seconds']:.1f}", f"{low:.1f} to {high:.1f}", ratio, f"{one['cpu']:.0f}")
        sizes = (f"{one['peak'] / 1e9:.2f}", f"{one['auc']:.4f}", f"{one['log_loss']:.4f}")
        rows.append((LIBRARIES[name], *cells, *sizes, f"{one['table_rows']:,}", f"{one['saved_bytes'] / 1e6:.1f}"))
        for phase, use in one["phases"].items():
            cpu, peak = f"{use['cpu']:.1f}", f"{use['peak'] / 1e9:.2f}"
            parts.append((f"{LIBRARIES[name]}: {phase}", f"{use['seconds']:.1f}", cpu, peak))
    header = (
        "library",
        "seconds",
        "between",
        "to ours",
        "CPU s",
        "peak GB",
        "AUC",
        "log loss",
        "table rows",
        "MB saved",
    )
    note = f"medians; the model that the clicks were drawn from has AUC {results['planted_auc']:.4f}"
    title = f"From CSV to a model file, {results['rows']:,} rows"
    phases = Table("Phases", ("library: phase", "seconds", "CPU s", "peak GB"), parts, "predict and export not counted")
    return [Table(title, header, rows, note), phases]


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unknown argument {argv[1]!r}")
    if unknown := set(_LIBRARIES.value) - set(LIBRARIES):
        raise app.UsageError(f"--libraries={','.join(sorted(unknown))}: choose of {', '.join(LIBRARIES)}")
    rows = 20_000 if _QUICK.value else _ROWS.value
    task, planted_auc = make_task(os.path.join(_OUTPUT.value, f"log-{rows}"), rows, _MIN_COUNT.value)
    asked = {"rows": rows, "task": dataclasses.asdict(task), "planted_auc": planted_auc}
    results: dict[str, Any] = {"machine": machine()} | json.loads(json.dumps(asked)) | {"runs": []}
    path = os.path.join(_OUTPUT.value, "results.json")
    if _ADD.value and os.path.exists(path):
        with open(path, encoding="utf-8") as f:
            earlier = json.load(f)
        if any(earlier[name] != results[name] for name in asked):
            sys.exit(f"{path} is of another task; leave --add out, or give another --output")
        results = earlier
    print(describe(results["machine"]), flush=True)
    for repeat in range(_REPEATS.value):
        for library in _LIBRARIES.value:
            results["runs"].append(one := run(library, task))
            seconds = sum(one["phases"][name]["seconds"] for name in COUNTED)
            print(f"  run {repeat + 1}, {LIBRARIES[library]}: {seconds:.1f} s, AUC {one['auc']:.4f}", flush=True)
            with open(path, "w", encoding="utf-8") as f:
                json.dump(results, f, indent=1)
    shown = result_tables(results)
    with open(os.path.join(_OUTPUT.value, "results.md"), "w", encoding="utf-8") as f:
        f.write(describe(results["machine"]) + "\n\n" + "\n".join(table.markdown() for table in shown))
    print("\n".join(table.text() for table in shown))
    found = by_library(results["runs"])
    bars = {
        LIBRARIES[name]: {phase: one["phases"][phase]["seconds"] for phase in COUNTED} for name, one in found.items()
    }
    draw_paths(bars, f"Seconds from CSV to a model file, {rows:,} rows", os.path.join(_OUTPUT.value, "paths.png"))


if __name__ == "__main__":
    app.run(main)
