"""One task for whole libraries: learn a raw log in CSV files with DCN-v2, save the model, and predict other rows.

    python -m peers.path_LIBRARY TASK.json OUTPUT BEGIN

runs the module `peers.path_LIBRARY` in the environment of its library. OUTPUT is a new directory, in which the module
writes what it likes and `answer.npz` (the labels and the predictions of the test rows). BEGIN is `time.time()` when
the process was started. `phases.json` there says when each phase ended. Needs NumPy alone.

The model is the same everywhere: a vector for each frequent value of a categorical column and one row for all others,
x_0 = concat(vectors, log1p of numbers), full-rank cross layers beside an MLP on x_0, both followed by one logit.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np

LABEL = "label"
NUMBERS = [f"I{i}" for i in range(1, 14)]
VALUES = [f"C{i}" for i in range(1, 27)]
PHASES, ANSWER = "phases.json", "answer.npz"
_PACKAGES = ("tensorflow", "torch", "fuxictr", "deepctr-torch", "polars", "pandas", "ray")


@dataclasses.dataclass(frozen=True)
class PathTask:
    """What to learn, and how.

    Attributes:
      train: the CSV file to learn, with a header line.
      test: the CSV file to predict.
      min_count: how often a value has to occur in `train` to have a vector of its own.
      dim: of the vectors.
      cross_layers: the number of cross layers.
      deep: outputs of the MLP's hidden layers.
      batch_size: rows.
      learning_rate: of Adam, for all weights.
      epochs: passes over `train`.
      seed: of initial weights and of the order of the rows.
    """

    train: str
    test: str
    min_count: int = 10
    dim: int = 16
    cross_layers: int = 3
    deep: tuple[int, ...] = (128, 64)
    batch_size: int = 2048
    learning_rate: float = 1e-3
    epochs: int = 1
    seed: int = 0


class PathRun:
    """A run of one library: its directory, and its phases."""

    def __init__(self, output: str, begin: float) -> None:
        self.output = output
        self._begin = begin
        self._ends = {"start": time.time() - begin}  # Python, and the imports of the module

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Notes when the phase of the block ended, in seconds since the process was started."""
        yield
        self._ends[name] = time.time() - self._begin

    def path(self, name: str) -> str:
        """Returns the path of a file of this run."""
        return os.path.join(self.output, name)

    def answer(self, labels: np.ndarray, predictions: np.ndarray, saved: str, table_rows: int) -> None:
        """Writes labels and predictions of the test rows, the phases, the sizes of what was saved, and versions."""
        np.savez(self.path(ANSWER), labels=np.ravel(labels), predictions=np.ravel(predictions))
        facts = {"ends": self._ends, "saved_bytes": _bytes_below(saved), "table_rows": table_rows}
        facts["versions"] = dict(_versions())
        with open(self.path(PHASES), "w", encoding="utf-8") as f:
            json.dump(facts, f)


def run_path(learn: Callable[[PathTask, PathRun], None]) -> None:
    """Calls `learn` with what the command line says."""
    task, output, begin = sys.argv[1:]
    with open(task, encoding="utf-8") as f:
        learn(PathTask(**json.load(f)), PathRun(output, float(begin)))


def _versions() -> Iterator[tuple[str, str]]:
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            yield package, importlib.metadata.version(package)


def _bytes_below(path: str) -> int:
    """Returns the size of a file, or of all files below a directory."""
    if os.path.isfile(path):
        return os.path.getsize(path)
    return sum(os.path.getsize(os.path.join(d, name)) for d, _, names in os.walk(path) for name in names)
