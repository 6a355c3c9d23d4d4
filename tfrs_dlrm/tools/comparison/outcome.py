"""What is known of one model trained with one seed."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import numpy as np

from tfrs_dlrm.stores.files import read_json, write_json
from tfrs_dlrm.training.evaluation import Scores

OUTCOME_FILE = "outcome.json"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Of one run.

    Attributes:
      label: of the contestant.
      seed: of the run.
      shown: the metrics to show, that which models are compared by first.
      metrics: of the last checkpoint on the half of the evaluation set that nothing was chosen by.
      curve: by evaluation, the step and the metrics of the whole evaluation set.
      chosen: what tuning chose, by field.
    """

    label: str
    seed: int
    shown: list[str]
    metrics: dict[str, float]
    curve: list[dict[str, float]]
    chosen: dict[str, Any]

    def save(self, workdir: str) -> None:
        """Writes it into the directory of the run."""
        write_json(os.path.join(workdir, OUTCOME_FILE), dataclasses.asdict(self))

    @classmethod
    def load(cls, workdir: str) -> Outcome | None:
        """Reads `save`; None where the run has not come to its end."""
        path = os.path.join(workdir, OUTCOME_FILE)
        return cls(**read_json(path)) if os.path.isfile(path) else None


def halves(scores: Scores) -> tuple[Scores, Scores]:
    """The even rows, for choices, and the odd ones, for what is reported; of the first label, where there are several.

    Raises:
      ValueError: there are fewer than two.
    """
    if len(scores.labels) < 2:
        raise ValueError(
            f"an evaluation set of {len(scores.labels)} rows cannot be halved; prepare with --eval_fraction"
        )

    def part(begin: int) -> Scores:
        rows = np.arange(begin, len(scores.labels), 2)
        weights = None if scores.weights is None else scores.weights[rows]
        return Scores(scores.labels[rows], scores.logits[rows], weights, scores.task)

    return part(0), part(1)
