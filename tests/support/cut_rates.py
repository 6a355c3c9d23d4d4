"""Learning rates of a run with `plateau_factor`, worked out from its records by hand."""

import json
from pathlib import Path

import numpy as np


def check(workdir: Path, factor: float, rates: dict[str, float]) -> None:
    """Each evaluation that is not the best so far cuts the rates of the steps behind it, which begin with `rates`."""
    records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    best, cuts = -np.inf, 0
    for record in records:
        expected = {name: np.float32(rate) * np.float32(factor**cuts) for name, rate in rates.items()}
        assert record["learning_rate"] == expected, record
        cuts += record["eval"]["auc"] <= best
        best = max(best, record["eval"]["auc"])
