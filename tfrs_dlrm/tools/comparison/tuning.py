"""Tunes learning rates and regularization within a budget of trials, which are shorter runs."""

from __future__ import annotations

import copy
import dataclasses
import math
import os
import shutil
from collections.abc import Callable, Sequence
from typing import Any

from absl import logging

from tfrs_dlrm.config import RunConfig
from tfrs_dlrm.layers.hashing import derive_seed
from tfrs_dlrm.messages import install_command
from tfrs_dlrm.stores.files import read_json, write_json
from tfrs_dlrm.tools.comparison.contestants import Contestant
from tfrs_dlrm.tools.comparison.trees import Recipe, TreesConfig

# Bounds by field, within which values are drawn uniformly by their logarithm.
_LOGARITHMIC = {
    "optimizer.learning_rate": (1e-4, 3e-2),
    "optimizer.embedding_learning_rate": (1e-3, 3e-1),
    "optimizer.embedding_l2": (1e-7, 3e-1),
}
# Bounds by field, within which values are drawn uniformly.
_EVEN = {"model.dropout": (0.0, 0.5)}


def tune(
    contestant: Contestant[Any],
    directory: str,
    trials: int,
    share: float,
    loss: Callable[[Any, str], float],
    done: Callable[[int, float], None] | None = None,
) -> dict[str, Any]:
    """Returns the best values found, by `SECTION.FIELD`; empty if `trials` is 0.

    The first trial is the unchanged recipe. A second call does not repeat finished trials, and finishes an interrupted
    trial with the same values. The values of a trial depend on the recipe and on earlier trials only, so interruptions
    do not change them.

    Args:
      contestant: has the recipe.
      directory: keeps the trials.
      trials: the number of trials.
      share: the length of a trial as a share of the recipe's steps or epochs.
      loss: trains a recipe in a directory, or resumes this, and returns the number to minimize.
      done: called after each trial with the number of finished trials and the best loss so far.

    Raises:
      ImportError: Optuna is not installed.
      ValueError: the file of a trial is damaged.
    """
    finished: list[Trial] = []
    for number in range(trials):
        path = os.path.join(directory, f"trial-{number}")
        trial = Trial.load(path)
        if trial is None:
            shutil.rmtree(path, ignore_errors=True)
            trial = Trial(_proposed(contestant, trials, finished))
            trial.save(path)
        new = trial.loss is None
        if new:
            found = loss(shortened(applied(contestant.config, trial.values), share), path)
            trial = Trial(trial.values, math.inf if math.isnan(found) else found)
            trial.save(path)
            logging.info("%s: trial %d: %s: %.6f", contestant.label, number, trial.values, trial.loss)
        shutil.rmtree(path, ignore_errors=True)
        finished.append(trial)
        if new and done:
            done(len(finished), min(map(_loss_of, finished)))
    return min(finished, key=_loss_of).values if finished else {}


@dataclasses.dataclass(frozen=True)
class Trial:
    """A setting that was tried.

    Attributes:
      values: the values by `SECTION.FIELD`.
      loss: the number to minimize; infinite if the run diverged, None if it has not finished.
    """

    values: dict[str, float]
    loss: float | None = None

    def save(self, path: str) -> None:
        """Writes the trial next to the directory of its run."""
        os.makedirs(os.path.dirname(path), exist_ok=True)
        diverged = self.loss == math.inf
        # JSON has no infinity.
        write_json(
            f"{path}.json", {"values": self.values, "loss": None if diverged else self.loss, "diverged": diverged}
        )

    @classmethod
    def load(cls, path: str) -> Trial | None:
        """Reads the trial of a run; None if it was not begun.

        Raises:
          ValueError: the file is damaged.
        """
        if not os.path.isfile(f"{path}.json"):
            return None
        found = read_json(f"{path}.json")
        try:
            values = {str(name): float(value) for name, value in found["values"].items()}
            return cls(values, math.inf if found["diverged"] else found["loss"])
        except (KeyError, TypeError, AttributeError, ValueError) as e:
            raise ValueError(f"{path}.json: not a trial of a comparison; delete it, and it is run again") from e


def _loss_of(trial: Trial) -> float:
    return math.inf if trial.loss is None else trial.loss


def _proposed(contestant: Contestant[Any], trials: int, finished: Sequence[Trial]) -> dict[str, float]:
    """Returns the values of the next trial: the recipe's, then those of a sampler that has seen the finished trials.

    The sampler is random for the first third of the trials. Its seed depends on the recipe and the number of the trial.
    """
    try:
        import optuna
    except ImportError as e:
        raise ImportError(f"tuning needs Optuna: {install_command('compare')}, or --budget=0") from e
    config = contestant.config
    spaces = config.spaces() if isinstance(config, TreesConfig) else _spaces(config)
    if not finished:
        return {name: _recipe_value(config, name) for name in spaces}
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    seed = derive_seed(contestant.config.train.seed, f"{contestant.label}/{len(finished)}")
    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=max(3, trials // 3), multivariate=True)
    study = optuna.create_study(sampler=sampler)
    bounds: dict[str, optuna.distributions.BaseDistribution] = {
        name: optuna.distributions.FloatDistribution(*ends, log=log) for name, (ends, log) in spaces.items()
    }
    for trial in finished:
        # The recipe may have 0 where a logarithmic scale begins above it.
        values = {name: max(spaces[name][0][0], value) for name, value in trial.values.items()}
        study.add_trial(optuna.trial.create_trial(params=values, distributions=bounds, value=trial.loss))
    return dict(study.ask(bounds).params)


def applied(config: Recipe, values: dict[str, Any]) -> Recipe:
    """Returns the recipe with other values of some fields."""
    config = copy.deepcopy(config)
    for path, value in values.items():
        section, name = path.split(".")
        setattr(getattr(config, section), name, value)
    return config


def shortened(config: Any, share: float) -> Any:
    """Returns the recipe with a share of its length, evaluated only at its end."""
    if isinstance(config, TreesConfig):
        return config.shortened(share)
    config = copy.deepcopy(config)
    train, optimizer = config.train, config.optimizer
    if train.steps:
        train.steps = max(1, round(train.steps * share))
    else:
        train.epochs *= share
    for name in ("warmup_steps", "decay_start_step", "decay_steps"):
        setattr(optimizer, name, round(getattr(optimizer, name) * share))
    train.eval_every_steps = train.steps
    train.tensorboard = False
    return config


def _spaces(config: RunConfig) -> dict[str, tuple[tuple[float, float], bool]]:
    """Returns, by `SECTION.FIELD`, bounds that include the recipe's value, and whether they are logarithmic."""
    spaces = {}
    for fields, log in ((_LOGARITHMIC, True), (_EVEN, False)):
        for name, (low, high) in fields.items():
            section, field = name.split(".")
            if not hasattr(getattr(config, section), field):  # for example, a model without dropout
                continue
            value = _recipe_value(config, name)
            spaces[name] = ((min(low, value) if value else low), max(high, value)), log
    return spaces


def _recipe_value(config: Any, path: str) -> float:
    """Returns the recipe's value; 0 turns a logarithmic field off."""
    section, name = path.split(".")
    value = float(getattr(getattr(config, section), name))
    if name == "embedding_learning_rate":  # 0 means `learning_rate`
        return value or config.optimizer.learning_rate
    return value
