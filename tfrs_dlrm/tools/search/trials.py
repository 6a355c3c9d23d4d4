"""The trials of a search: what was tried, how good it was, and the file that keeps both."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

from tfrs_dlrm.metrics.names import title
from tfrs_dlrm.schema.plain import build
from tfrs_dlrm.stores.files import read_json, well_formed, write_json

TRIALS_FILE = "trials.json"


@dataclasses.dataclass(frozen=True)
class Trial:
    """A candidate that was tried.

    Attributes:
      label: the candidate's label.
      quality: how good its best evaluation is by `train.monitor`, more is better; None if the run diverged.
      best: the metrics of that evaluation.
      best_step: its step.
      step: the last step of the trial.
      seconds: the duration of the trial.
      reason: why the trial ended, in words.
    """

    label: str
    quality: float | None
    best: dict[str, float]
    best_step: int
    step: int
    seconds: float
    reason: str

    @property
    def rank(self) -> float:
        """The quality as a number; -inf if the run diverged."""
        return -math.inf if self.quality is None else self.quality


@dataclasses.dataclass
class Trials:
    """All trials of a search.

    Attributes:
      monitor: the metric that chooses; empty for that of the label's task.
      recipes: the recipe of each candidate that was begun, by label.
      trials: those that have finished, in their order.
      chosen: the label of the best, once no more are tried.
      seconds: the time that trials, and the training of the best, have taken so far.
    """

    monitor: str = ""
    recipes: dict[str, Any] = dataclasses.field(default_factory=dict)
    trials: tuple[Trial, ...] = ()
    chosen: str = ""
    seconds: float = 0.0

    @classmethod
    def load(cls, workdir: str) -> Trials:
        """Reads the trials of a directory; empty if it has none.

        Raises:
          ValueError: the file is damaged.
        """
        path = os.path.join(workdir, TRIALS_FILE)
        if not os.path.isfile(path):
            return cls()
        then = "choose another --workdir, or remove this one"
        content = read_json(path, then)
        with well_formed(path, then):
            return build(cls, content, "trials")

    def save(self, workdir: str) -> None:
        """Writes the file."""
        write_json(os.path.join(workdir, TRIALS_FILE), dataclasses.asdict(self))

    def begin(self, label: str, recipe: Mapping[str, Any], workdir: str) -> None:
        """Notes the recipe of a candidate before its trial.

        Raises:
          ValueError: the directory has trials of a candidate of this label with another recipe.
        """
        if self.recipes.setdefault(label, dict(recipe)) != recipe:
            raise ValueError(
                f"{workdir}: holds a trial of {label!r} with another recipe; choose another --workdir, or remove it"
            )
        self.save(workdir)

    def of(self, label: str) -> Trial | None:
        """Returns the trial of a candidate; None if it has not finished."""
        return next((trial for trial in self.trials if trial.label == label), None)

    @property
    def best(self) -> Trial | None:
        """The best trial, the earlier of equal ones; None before the first."""
        return max(self.trials, key=lambda trial: trial.rank, default=None)


def trial_line(trial: Trial, shown: Sequence[str]) -> str:
    """Returns the result of a trial in words."""
    if trial.quality is None:
        return f"{trial.reason}, {trial.seconds:.0f}s"
    metrics = ", ".join(f"{title(name)} {trial.best[name]:.4f}" for name in shown if name in trial.best)
    return f"{metrics}; step {trial.best_step} of {trial.step}, {trial.seconds:.0f}s"


def table(trials: Trials, shown: Sequence[str]) -> list[str]:
    """Returns the trials as aligned lines, the best first."""
    rows = [["", *map(title, shown), "best step", "seconds", ""]]
    for trial in sorted(trials.trials, key=lambda trial: -trial.rank):
        metrics = [f"{trial.best[name]:.4f}" if name in trial.best else "" for name in shown]
        mark = "<- chosen" if trial.label == trials.chosen else trial.reason if trial.quality is None else ""
        rows.append([trial.label, *metrics, str(trial.best_step), f"{trial.seconds:.0f}", mark])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:-1], widths[1:-1]), row[-1]]).rstrip() for row in rows
    ]
