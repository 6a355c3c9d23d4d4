"""The outcome of one run: a model trained with one seed."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import numpy as np

from tfrs_dlrm.schema.plain import build
from tfrs_dlrm.stores.files import read_json, well_formed, write_json
from tfrs_dlrm.training.evaluation import Scores

OUTCOME_FILE = "outcome.json"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The metrics of one run.

    Attributes:
      label: the contestant's label.
      seed: the seed of the run.
      shown: the metrics to show; models are compared by the first.
      metrics: the metrics of the last checkpoint on the half of the evaluation set that no choice depends on.
      curve: per evaluation, the step and the metrics on the whole evaluation set.
      chosen: the values that tuning chose, by field.
      left_out: says which metrics the rows do not define, and why; empty if they define all.
    """

    label: str
    seed: int
    shown: tuple[str, ...]
    metrics: dict[str, float]
    curve: tuple[dict[str, Any], ...]
    chosen: dict[str, Any]
    left_out: tuple[str, ...] = ()

    def save(self, workdir: str) -> None:
        """Writes the outcome into the directory of the run."""
        write_json(os.path.join(workdir, OUTCOME_FILE), dataclasses.asdict(self))

    @classmethod
    def load(cls, workdir: str) -> Outcome | None:
        """Reads the outcome of a run; None if the run has not finished."""
        path = os.path.join(workdir, OUTCOME_FILE)
        if not os.path.isfile(path):
            return None
        then = "remove it; the same command then scores the run again"
        content = read_json(path, then)
        with well_formed(path, then):
            return build(cls, content, "outcome")


def halves(scores: Scores) -> tuple[Scores, Scores]:
    """Returns the scores of the rows for choices, and of those for reports; see `rows_for_choices`.

    Raises:
      ValueError: the scores have fewer than two rows.
    """
    if len(scores.labels) < 2:
        raise ValueError(
            f"an evaluation set of {len(scores.labels)} rows cannot be halved; prepare with --eval_fraction"
        )
    chosen = rows_for_choices(len(scores.labels), scores.groups)
    return scores.on(chosen), scores.on(~chosen)


def rows_for_choices(rows: int, groups: np.ndarray | None) -> np.ndarray:
    """Returns which evaluation rows are for choices, bool [rows]: the even ones, or those of the groups of even ids.

    Args:
      rows: how many there are.
      groups: of the rows, int64 [rows], or None.
    """
    return (np.arange(rows) if groups is None else groups) % 2 == 0
