"""Whether bfloat16 learns as well as float32: the quickstart's recipe over several seeds, on the same synthetic log."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from typing import Any

from studies import Options

_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_SEEDS = range(5)


def run(options: Options) -> dict[str, Any]:
    """{precision: {seed: evaluation AUC after the last step}}."""
    found: dict[str, dict[str, float]] = {"float32": {}, "bfloat16": {}}
    with tempfile.TemporaryDirectory(prefix="tfrs-dlrm-precision-") as directory:
        data = _prepared(directory, 20_000 if options.quick else 1_000_000)
        for seed in range(1) if options.quick else _SEEDS:
            for precision, values in found.items():
                workdir = os.path.join(directory, f"{precision}-{seed}")
                arguments = [f"--config.data.path={data}", "--config.data.synthetic_rows=0", f"--workdir={workdir}"]
                arguments += [f"--config.train.precision={precision}", f"--config.train.seed={seed}"]
                if options.quick:
                    arguments += ["--config.train.steps=20", "--config.train.eval_every_steps=10"]
                _program("train/main.py", "--config=configs/quickstart.py", *arguments)
                with open(os.path.join(workdir, "metrics.jsonl")) as f:
                    values[str(seed)] = json.loads(f.read().splitlines()[-1])["eval"]["auc"]
                print(f"  seed {seed}, {precision}: AUC {values[str(seed)]:.5f}", flush=True)
    return found


def _prepared(directory: str, rows: int) -> str:
    raw, data = os.path.join(directory, "raw"), os.path.join(directory, "data")
    _program("train/synthesize.py", f"--output={raw}", f"--train_rows={rows}", f"--eval_rows={min(rows, 100_000)}")
    inputs = [f"--input={raw}/train.tsv", f"--eval_input={raw}/eval.tsv"]
    _program("train/prepare.py", f"--schema={raw}/schema.json", *inputs, f"--output={data}")
    return data


def _program(*arguments: str) -> None:
    done = subprocess.run([sys.executable, *arguments], cwd=_ROOT, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RuntimeError(f"{' '.join(arguments)} ended with code {done.returncode}: {last}")
