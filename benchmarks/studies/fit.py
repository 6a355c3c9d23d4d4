"""`model.fit` from Parquet beside the bare train step of the same model on tensors in memory."""

from __future__ import annotations

import os
import tempfile
from typing import Any

from training.pool import Worker, WorkerLost, lose, workers

from studies import Options


def run(options: Options) -> dict[str, Any]:
    """{precision and steps per execution: {"bare": examples/s of each round, "fit": likewise}}."""
    rows, steps, rounds = (20_000, 40, 2) if options.quick else (1_000_000, 350, max(3, options.rounds))
    first = 10 if options.quick else 50  # the steps before that are the begin of `fit`
    with tempfile.TemporaryDirectory(prefix="tfrs-dlrm-fit-") as directory:
        print(f"  {rows:,} rows of Criteo's shape, to Parquet", flush=True)
        data = os.path.join(directory, "data")
        _prepare(directory, data, rows)
        specs = {
            f"{precision}, {n} steps per execution": {"data": data, "precision": precision, "steps_per_execution": n}
            for precision in ("fp32", "bf16")
            for n in (1, 8)
        }
        makers = {name: (lambda spec=spec: Worker("fit_worker", spec)) for name, spec in specs.items()}
        found: dict[str, Any] = {name: {"bare": [], "fit": []} for name in specs}
        lost: dict[str, str] = {}
        with workers(makers, lost) as alive:
            for number in range(rounds):
                print(f"  round {number + 1} of {rounds}", flush=True)
                for name in list(alive):
                    try:
                        found[name]["bare"].append(alive[name].ask(f"bare {steps - first}"))
                        found[name]["fit"].append(alive[name].ask(f"fit {first} {steps}"))
                    except WorkerLost as e:
                        lose(name, e, alive, lost)
    for name, reason in lost.items():
        found[name]["error"] = reason
    return found


def _prepare(raw: str, output: str, rows: int) -> None:
    maker = Worker("fit_worker", {"raw": raw, "output": output, "rows": rows})
    try:
        maker.ready()
        maker.ask("prepare")
    finally:
        maker.close()
