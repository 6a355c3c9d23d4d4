"""The trials of a search: what was tried, how good it was, and the file that keeps both."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from tfrs_dlrm.config import up_to_date
from tfrs_dlrm.messages.aligned import aligned
from tfrs_dlrm.metrics.names import title
from tfrs_dlrm.schema.plain import build
from tfrs_dlrm.stores.files import read_json, well_formed, write_json

TRIALS_FILE = "trials.json"


@dataclasses.dataclass(frozen=True)
class Trial:
    """A candidate that was tried.

    Attributes:
      label: the candidate's label.
      quality: how good its best evaluation is by `train.monitor`, more is better; None if the run diverged, or none of
        its evaluations defines that metric.
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
        """The quality as a number; -inf without one."""
        return -math.inf if self.quality is None else self.quality


@dataclasses.dataclass
class Trials:
    """All trials of a search.

    Attributes:
      trial_rows: `search.trial_rows` of the trials.
      recipes: the recipe of each candidate that was begun, by label.
      trials: those that have finished, in their order.
      chosen: the label of the best, once no more are tried.
      seconds: the time that trials, and the training of the best, have taken so far. If a process was killed, its time
        counts up to the last trial that it began or finished.
    """

    trial_rows: int = 0
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

    def check(self, recipes: Mapping[str, Any], trial_rows: int, workdir: str) -> None:
        """Makes sure that these are trials of the search that is resumed.

        Args:
          recipes: the recipe of each candidate, by label.
          trial_rows: `search.trial_rows`; does not matter once the best is chosen.
          workdir: their directory, for messages.

        Raises:
          ValueError: a trial has another recipe or length, or no candidate is the chosen one.
        """
        for label, recipe in recipes.items():
            if up_to_date(self.recipes.get(label, recipe)) != recipe:
                raise ValueError(
                    f"{workdir}: holds a trial of {label!r} with another recipe; choose another --workdir, or remove it"
                )
        if self.recipes and not self.chosen and self.trial_rows != trial_rows:
            raise ValueError(
                f"{workdir}: holds trials of search.trial_rows={self.trial_rows}, which do not compare with trials of"
                f" {trial_rows}; give --config.search.trial_rows={self.trial_rows}, or choose another --workdir"
            )
        if self.chosen and self.chosen not in recipes:
            raise ValueError(
                f"{workdir}: holds the run of {self.chosen!r}, which is no candidate now; choose another --workdir, or"
                " make it a candidate of the recipe again"
            )

    def of(self, label: str) -> Trial | None:
        """Returns the trial of a candidate; None if it has not finished."""
        return next((trial for trial in self.trials if trial.label == label), None)

    def best(self, labels: Collection[str]) -> Trial | None:
        """Returns the best trial of some candidates, the earlier of equal ones; None if none of them has finished."""
        return max((t for t in self.trials if t.label in labels), key=lambda trial: trial.rank, default=None)


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
    return aligned(rows, left=(0, len(rows[0]) - 1))
