"""The progress of a run and its best evaluation, when it evaluates, and when it ends."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from tfrs_dlrm.config import OptimizerConfig, RunConfig
from tfrs_dlrm.data.preparing.label_counts import LabelCounts
from tfrs_dlrm.models.tasks import Task
from tfrs_dlrm.schema import Schema


def quality(monitor: str, task: Task, metrics: Mapping[str, float]) -> float:
    """Returns how good an evaluation is; more is better, and -inf if the examples do not define it.

    Args:
      monitor: one of `tfrs_dlrm.config.MONITORS`.
      task: the first label's.
      metrics: the first label's.
    """
    try:
        if monitor == "auc_minus_normalized_entropy":
            return metrics["auc"] - metrics["normalized_entropy"]
        if monitor == "ndcg":
            return metrics["ndcg"]
        if monitor:
            return (metrics["auc"] if monitor == "auc_minus_log_loss" else 0.0) - metrics["log_loss"]
        return task.quality(metrics)
    except KeyError:  # `check_evaluation_labels` looks at the labels before
        return -math.inf


def shown_metrics(monitor: str, task: Task) -> tuple[str, ...]:
    """Returns the metrics to show of models that are compared by `monitor`, the best one first; see `quality`."""
    return ("ndcg", *task.shown) if monitor == "ndcg" else task.shown


class RunState(tf.Module):
    """The progress of a run and its best evaluation, saved with the weights.

    Args:
      config: says whether and when learning rates are cut.
    """

    def __init__(self, config: OptimizerConfig) -> None:
        super().__init__()
        self.step = tf.Variable(0, dtype=tf.int64, trainable=False)
        # The `quality` of the best evaluation, often its AUC. Checkpoints hold it under this name.
        self.best_auc = tf.Variable(-math.inf, dtype=tf.float64, trainable=False)
        self.best_step = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.evaluations_since_best = tf.Variable(0, dtype=tf.int64, trainable=False)
        self._plateau_factor, self._plateau_patience = config.plateau_factor, config.plateau_patience
        # The factor of all learning rates. Checkpoints of runs without `plateau_factor` do not hold it.
        cuts = config.plateau_factor < 1
        self.rate_factor: Any = tf.Variable(1.0, dtype=tf.float32, trainable=False) if cuts else 1.0

    def evaluated(self, step: int, quality: float) -> bool:
        """Records an evaluation; returns whether it made the learning rates smaller.

        Args:
          step: its step.
          quality: more is better.
        """
        if quality > float(self.best_auc.numpy()):
            self.best_auc.assign(quality)
            self.best_step.assign(step)
            self.evaluations_since_best.assign(0)
            return False
        self.evaluations_since_best.assign_add(1)
        if self._plateau_factor == 1 or int(self.evaluations_since_best.numpy()) % self._plateau_patience:
            return False
        self.rate_factor.assign(self.rate_factor.numpy() * self._plateau_factor)
        return True


def total_steps(config: RunConfig, epoch: int) -> int:
    """Returns the steps of a whole run.

    Args:
      config: the run.
      epoch: the steps of an epoch.
    """
    return config.train.steps or max(1, round(config.train.epochs * epoch))


class RunLimits:
    """Decides when a run evaluates and when it ends. A round lasts from one evaluation to the next.

    Args:
      config: the run.
      epoch: the steps of an epoch.
      state: how far the run is.
      best: the metric that makes an evaluation the best, in words.
    """

    def __init__(self, config: RunConfig, epoch: int, state: RunState, best: str) -> None:
        self._train, self._state, self._best = config.train, state, best
        self.total = total_steps(config, epoch)
        self.round = self._train.eval_every_steps or epoch

    def next_rounds(self, step: int) -> tuple[int, int]:
        """Returns the number of steps of the next round, and the number of rounds in a row of that length.

        A first round that begins at a checkpoint in its middle is shorter, and so may be the last.
        """
        begun, left = step % self.round, self.total - step
        return min(self.round - begun, left), 1 if begun else max(1, left // self.round)

    def ends_round(self, step: int) -> bool:
        """Whether an evaluation, with a checkpoint, follows a step."""
        return step % self.round == 0 or step >= self.total

    def reason_to_stop(self, step: int) -> str:
        """Returns why the run ends after a step, in words; empty if it does not."""
        train, state = self._train, self._state
        if train.target_auc and float(state.best_auc.numpy()) >= train.target_auc:
            return f"the evaluation AUC reached the target {train.target_auc:g}"
        if train.patience and int(state.evaluations_since_best.numpy()) >= train.patience:
            best = train.monitor.replace("_", " ") or self._best.upper()
            return f"the evaluation {best} did not improve in {train.patience} evaluations"
        return f"all {self.total} steps are done" if step >= self.total else ""


def check_goals(config: RunConfig, schema: Schema, has_eval: bool) -> None:
    """Refuses settings that could have no effect on data of this kind.

    Raises:
      ValueError: naming the setting.
    """
    for name in ("target_auc", "monitor") if schema.label.task != "classification" else ():
        if getattr(config.train, name):
            raise ValueError(
                f"config.train.{name}={getattr(config.train, name)}: the label of {config.data.path} is a number to"
                " predict, which has no AUC and no log loss; leave it out, and use train.patience to stop early"
            )
    if config.train.monitor == "ndcg" and not schema.group:
        raise ValueError(
            f"config.train.monitor='ndcg': {config.data.path} has no group to rank the rows of; give the schema the"
            " column of the queries, sessions or users as group, and prepare again"
        )
    default = RunConfig()
    names = [("train", name) for name in ("target_auc", "patience", "monitor")]
    for section, name in [] if has_eval else [*names, ("optimizer", "plateau_factor")]:
        value = getattr(getattr(config, section), name)
        if value != getattr(getattr(default, section), name):
            raise ValueError(
                f"config.{section}.{name}={value!r}: {config.data.path} has no evaluation set to go by; prepare it with"
                " --eval_fraction or --eval_input, or leave this out"
            )


def check_evaluation_labels(config: RunConfig, schema: Schema, counts: Mapping[str, LabelCounts]) -> None:
    """Refuses an evaluation set whose labels do not define the metric that is to choose the best checkpoint.

    Args:
      config: the run.
      schema: of the data.
      counts: what the labels of the evaluation set are; empty without an evaluation set.

    Raises:
      ValueError: naming the metric, and settings that work.
    """
    train, data = config.train, config.data.path
    first = counts.get(schema.label_columns[0])
    if first is None:
        return
    if not first.count:
        raise ValueError(
            f"{data}: no row of the evaluation set has a weight above 0, so nothing can be measured on it; prepare the"
            " data with other evaluation rows, or without any"
        )
    by_auc = bool(train.target_auc) or train.monitor != "log_loss"
    if schema.label.task == "classification" and by_auc and first.one_value is not None:
        what = f"reach config.train.target_auc={train.target_auc:g}" if train.target_auc else "choose the best by"
        drop = "--config.train.target_auc=0 " if train.target_auc else ""
        raise ValueError(
            f"{data}: all {first.count:,} labels of the evaluation set are {first.one_value:g}, so there is no AUC to"
            f" {what}; give {drop}--config.train.monitor=log_loss, or prepare the data with more or other evaluation"
            " rows (--eval_fraction, --eval_input)"
        )
