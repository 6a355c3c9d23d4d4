"""Tunes learning rates and regularization within a budget of trials, which are shorter runs."""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Callable
from typing import Any

from absl import logging

from tfrs_dlrm.config import RunConfig
from tfrs_dlrm.layers.hashing import derive_seed
from tfrs_dlrm.messages import install_command
from tfrs_dlrm.tools.comparison.contestants import Contestant

# Bounds by field, within which values are drawn uniformly by their logarithm.
_LOGARITHMIC = {
    "optimizer.learning_rate": (1e-4, 3e-2),
    "optimizer.embedding_learning_rate": (1e-3, 3e-1),
    "optimizer.embedding_l2": (1e-7, 3e-1),
}
# Bounds by field, within which values are drawn uniformly.
_EVEN = {"model.dropout": (0.0, 0.5)}
_STUDY_FILE = "study.log"


def tune(
    contestant: Contestant,
    directory: str,
    trials: int,
    share: float,
    loss: Callable[[RunConfig, str], float],
    done: Callable[[int, float], None] | None = None,
) -> dict[str, Any]:
    """Returns the best values found, by `SECTION.FIELD`; empty if `trials` is 0.

    The first trial is the unchanged recipe. A second call does not repeat finished trials.

    Args:
      contestant: has the recipe.
      directory: keeps the trials.
      trials: the number of trials.
      share: the length of a trial as a share of the recipe's steps or epochs.
      loss: trains a recipe in a directory and returns the number to minimize.
      done: called after each trial with the number of finished trials and the best loss so far.

    Raises:
      ImportError: Optuna is not installed.
    """
    if not trials:
        return {}
    try:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend
    except ImportError as e:
        raise ImportError(f"tuning needs Optuna: {install_command('compare')}, or --budget=0") from e
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    os.makedirs(directory, exist_ok=True)
    study = optuna.create_study(
        study_name=contestant.label,
        storage=JournalStorage(JournalFileBackend(os.path.join(directory, _STUDY_FILE))),
        sampler=_sampler(contestant, trials),
        load_if_exists=True,
    )
    spaces = _spaces(contestant.config)
    if not study.trials:
        study.enqueue_trial(
            {name: max(bounds[0], _recipe_value(contestant.config, name)) for name, (bounds, _) in spaces.items()}
        )

    def objective(trial: optuna.Trial) -> float:
        values = {name: trial.suggest_float(name, *bounds, log=log) for name, (bounds, log) in spaces.items()}
        config = shortened(applied(contestant.config, values), share)
        workdir = os.path.join(directory, f"trial-{trial.number}")
        shutil.rmtree(workdir, ignore_errors=True)
        found = loss(config, workdir)
        shutil.rmtree(workdir, ignore_errors=True)
        logging.info("%s: trial %d: %s: %.6f", contestant.label, trial.number, values, found)
        return found

    def finished() -> int:
        return len(study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.COMPLETE]))

    while finished() < trials:
        study.optimize(objective, n_trials=1)
        if done:
            done(finished(), study.best_value)
    return dict(study.best_params)


def _sampler(contestant: Contestant, trials: int) -> Any:
    """Returns a sampler that is random for the first third of the trials, with a seed per contestant."""
    import optuna

    seed = derive_seed(contestant.config.train.seed, contestant.label)
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=max(3, trials // 3), multivariate=True)


def applied(config: RunConfig, values: dict[str, Any]) -> RunConfig:
    """Returns the recipe with other values of some fields."""
    config = copy.deepcopy(config)
    for path, value in values.items():
        section, name = path.split(".")
        setattr(getattr(config, section), name, value)
    return config


def shortened(config: RunConfig, share: float) -> RunConfig:
    """Returns the recipe with a share of its length, evaluated only at its end."""
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


def _recipe_value(config: RunConfig, path: str) -> float:
    """Returns the recipe's value; 0 turns a logarithmic field off."""
    section, name = path.split(".")
    value = float(getattr(getattr(config, section), name))
    if name == "embedding_learning_rate":  # 0 means `learning_rate`
        return value or config.optimizer.learning_rate
    return value
