"""Whether TPUs can run the dense half of the train step, and how large it is there. Needs no TPU.

make verify-tpu

Lowers the step with TensorFlow, compiles it with libtpu in another environment, and writes results.json and
results.md. Ends with code 1 where anything does not compile, where FLOPs or arguments are not what they are by hand, or
where a batch that no chip can hold compiles.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
import tempfile
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from absl import app, flags
from machine import describe, machine
from tables import Table
from tpu_compile.dense_half import DenseHalf
from workloads import WORKLOADS

_COMPILER = flags.DEFINE_string("compiler", ".venv-tpu/bin/python", "Python of an environment with JAX and libtpu.")
_OUTPUT = flags.DEFINE_string("output", "benchmarks/results-tpu", "The directory of the results.")
_CHIPS = flags.DEFINE_list("chips", ["v4", "v5e", "v5p", "v6e"], "Which to compile for.")
_BATCH = flags.DEFINE_integer("batch", 4096, "Examples of one chip.", lower_bound=1)

_SHAPES = ("criteo_kaggle", "mlperf")
_TOO_LARGE = 1 << 22  # examples: more than 100 GB of activations and their gradients in bfloat16
_TOLERANCE = 0.02  # of FLOPs and argument bytes by hand: XLA counts what is not a product too
_SECONDS = 1800
# Without these, libtpu asks the metadata server of Google Cloud who it is, and waits for minutes where there is none.
_ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # it uses no chip, so it need not be the only one
}


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unknown argument {argv[1]!r}")
    if not os.path.exists(_COMPILER.value):
        raise app.UsageError(f"--compiler={_COMPILER.value} does not exist; make verify-tpu makes it")
    here = machine()
    results = []
    for shape in _SHAPES:
        for precision in ("float32", "bfloat16"):
            half = DenseHalf(dataclasses.replace(WORKLOADS[shape], batch=_BATCH.value), precision)
            results += compiled(half)
    too_large = DenseHalf(dataclasses.replace(WORKLOADS["mlperf"], batch=_TOO_LARGE), "bfloat16")
    refused = compiled(too_large)
    shown = [sizes(results), refusals(refused)]
    print("\n".join(table.text() for table in shown))
    os.makedirs(_OUTPUT.value, exist_ok=True)
    with open(os.path.join(_OUTPUT.value, "results.json"), "w", encoding="utf-8") as f:
        json.dump({"machine": here, "results": results, "too_large": refused}, f, indent=2)
    with open(os.path.join(_OUTPUT.value, "results.md"), "w", encoding="utf-8") as f:
        f.write(f"{describe(here)}\n\n" + "\n".join(table.markdown() for table in shown))
    wrong = mistakes(results, refused)
    print("\n".join(f"WRONG: {line}" for line in wrong) or f"All as it should be. Wrote {_OUTPUT.value}.")
    sys.exit(1 if wrong else 0)


def compiled(half: DenseHalf) -> list[dict[str, Any]]:
    """What libtpu says of it, for each chip."""
    what = {"shape": half.workload.name, "precision": half.precision, "batch": half.workload.batch}
    by_hand = {"flops_by_hand": half.flops(), "argument_bytes_by_hand": half.argument_bytes()}
    found: dict[str, dict[str, Any]] = {}
    with tempfile.NamedTemporaryFile("w", suffix=".mlir", encoding="utf-8") as f:
        f.write(half.stablehlo())
        f.flush()
        program = os.path.join(os.path.dirname(os.path.abspath(__file__)), "tpu_compile", "compiler.py")
        for chip in _CHIPS.value:
            print(f"{what['shape']}, {half.precision}, batch {half.workload.batch:,}: {chip} ...", flush=True)
            found[chip] = _run([_COMPILER.value, program, f.name, chip])
    return [{**what, **by_hand, "chip": chip, **result} for chip, result in found.items()]


def _run(command: list[str]) -> dict[str, Any]:
    """In a process for each chip: libtpu ends the process over some errors."""
    try:
        done = subprocess.run(command, env=os.environ | _ENVIRONMENT, capture_output=True, text=True, timeout=_SECONDS)
    except subprocess.TimeoutExpired:
        return {"error": f"nothing within {_SECONDS} seconds", "error_name": "Timeout"}
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["nothing said"])[-1]
        return {"error": f"exit code {done.returncode}: {last}", "error_name": "Crash"}
    return json.loads(done.stdout.splitlines()[-1])


def sizes(results: list[dict[str, Any]]) -> Table:
    header = ["shape", "precision", "chip", "GFLOP", "by hand", "arguments MiB", "by hand", "temporary MiB"]
    header += ["all MiB", "moved GB", "compiled in s"]
    rows = []
    for r in results:
        row = [r["shape"], r["precision"], r["chip"]]
        if "error" in r:
            rows.append([*row, *["-"] * 7, r["error_name"]])
            continue
        flops = [f"{r[name] / 1e9:.2f}" for name in ("flops", "flops_by_hand")]
        arguments = [f"{r[name] / 2**20:.1f}" for name in ("argument_bytes", "argument_bytes_by_hand")]
        memory = [f"{n / 2**20:.0f}" for n in (r["temporary_bytes"], total_bytes(r))]
        rows.append([*row, *flops, *arguments, *memory, f"{r['accessed_bytes'] / 1e9:.2f}", f"{r['seconds']:.0f}"])
    note = (
        "all: arguments, results that are not written over them, temporaries, code; moved: HBM accesses as XLA counts"
    )
    return Table(f"Dense half of a train step, {_BATCH.value:,} examples a chip", header, rows, note)


def total_bytes(r: dict[str, Any]) -> int:
    parts = ("argument_bytes", "output_bytes", "temporary_bytes", "code_bytes")
    return sum(r[part] for part in parts) - r["aliased_bytes"]


def refusals(refused: list[dict[str, Any]]) -> Table:
    rows = []
    for r in refused:
        # "... temporaries (154.09G) exceeds available HBM (15.75G)."
        needed, there = re.findall(r"\(([\d.]+)G\)", r.get("error", "")) or ("-", "-")
        rows.append([r["chip"], r.get("error_name", "it compiled"), needed, there])
    title = f"mlperf in bfloat16 with {_TOO_LARGE:,} examples a chip, which none can hold"
    return Table(title, ["chip", "libtpu says", "temporaries GiB", "HBM GiB"], rows)


def mistakes(results: list[dict[str, Any]], refused: list[dict[str, Any]]) -> list[str]:
    out = []
    for r in results:
        name = f"{r['shape']}, {r['precision']}, {r['chip']}"
        if "error" in r:
            out.append(f"{name}: {r['error']}")
            continue
        for what in ("flops", "argument_bytes"):
            if abs(r[what] / r[f"{what}_by_hand"] - 1) > _TOLERANCE:
                out.append(f"{name}: {what} {r[what]:.4g}, by hand {r[f'{what}_by_hand']:.4g}")
    for r in refused:
        if r.get("error_name") != "CompileTimeHbmOom":
            out.append(f"too large, {r['chip']}: {r.get('error', 'it compiled')}")
    return out


if __name__ == "__main__":
    app.run(main)
