"""What a run knows beside its weights, and what makes an evaluation the best."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from tfrs_dlrm.config import OptimizerConfig
from tfrs_dlrm.models.tasks import Task


def quality(monitor: str, task: Task, metrics: Mapping[str, float]) -> float:
    """Of what an evaluation found; more is better.

    Args:
      monitor: one of `tfrs_dlrm.config.MONITORS`.
      task: of the first label.
      metrics: of it.
    """
    if monitor:
        return (metrics["auc"] if monitor == "auc_minus_log_loss" else 0.0) - metrics["log_loss"]
    return task.quality(metrics)


class RunState(tf.Module):
    """How far a run is, and how good it was; it is saved with the weights.

    Args:
      config: says whether and when learning rates are cut.
    """

    def __init__(self, config: OptimizerConfig) -> None:
        super().__init__()
        self.step = tf.Variable(0, dtype=tf.int64, trainable=False)
        # The `quality` of the best evaluation, which is its AUC most of the time. Checkpoints have it under this name.
        self.best_auc = tf.Variable(-math.inf, dtype=tf.float64, trainable=False)
        self.best_step = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.evaluations_since_best = tf.Variable(0, dtype=tf.int64, trainable=False)
        self._plateau_factor, self._plateau_patience = config.plateau_factor, config.plateau_patience
        # What all learning rates are multiplied by. The checkpoints of runs that never cut any do not have it.
        cuts = config.plateau_factor < 1
        self.rate_factor: Any = tf.Variable(1.0, dtype=tf.float32, trainable=False) if cuts else 1.0

    def evaluated(self, step: int, quality: float) -> bool:
        """Takes notice of an evaluation; says whether learning rates were cut.

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
