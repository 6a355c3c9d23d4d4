"""Progressive layered extraction: experts of each task beside shared ones, in levels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfrs_dlrm.layers.gates import Gates
from tfrs_dlrm.layers.hashing import derive_seed
from tfrs_dlrm.layers.parallel_mlps import ParallelMLPs
from tfrs_dlrm.layers.serializable import serializable
from tfrs_dlrm.messages.arguments import Count


@serializable
class CustomizedGateControl(keras.layers.Layer):
    """CGC, a level of PLE: each of T tasks mixes its own experts with the shared ones.

        y_t = sum of g_t over the task's m experts h_ti(x_t) and the S shared ones h_j(x_shared)
        y_shared = sum of g_shared over all experts, those of all tasks included

    g_t = softmax(x_t W_t) and g_shared = softmax(x_shared W) (Tang et al. 2020, "Progressive Layered Extraction",
    RecSys, section 4). The input is [B, n], which all read, or [B, T + 1, n] with x_shared at the end. The output is
    [B, T + 1, units[-1]] likewise, or of the last level [B, T, units[-1]].

    Args:
      units: outputs of each layer of an expert, with ReLU after each.
      task_experts: m, the number of experts of each task.
      shared_experts: S.
      tasks: T.
      last: whether it is the last level, which has no shared output.
      seed: determines the initial weights and the dropped outputs; None draws others each time.
      dropout: the share of the outputs of the experts' layers that training drops.
      batch_norm: whether the experts' layers are batch normalized.

    Raises:
      ValueError: a number of experts, of tasks or of `units` is below 1, or `units` is empty.
    """

    def __init__(
        self,
        units: Sequence[Count],
        task_experts: Count = 2,
        shared_experts: Count = 2,
        tasks: Count = 2,
        last: bool = True,
        seed: int | None = None,
        dropout: float = 0.0,
        batch_norm: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.task_experts = task_experts
        self.tasks = tasks
        self.last = last
        self.seed = seed
        self.own, self.shared = (
            ParallelMLPs(
                count,
                units,
                all_hidden=True,
                seed=self._seed(name),
                dropout=dropout,
                batch_norm=batch_norm,
                dtype=self.dtype_policy,
                name=name,
            )
            for name, count in (("own_experts", tasks * task_experts), ("shared_experts", shared_experts))
        )
        self.gates = self._gates("gates", tasks, task_experts + shared_experts)
        self.shared_gate = None if last else self._gates("shared_gate", 1, tasks * task_experts + shared_experts)

    def _seed(self, name: str) -> int | None:
        return None if self.seed is None else derive_seed(self.seed, name)

    def _gates(self, name: str, tasks: int, experts: int) -> Gates:
        return Gates(tasks, experts, self._seed(name), dtype=self.dtype_policy, name=name)

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Maps [B, n] or [B, T + 1, n] to [B, T + 1, units[-1]] or [B, T, units[-1]], in the compute dtype."""
        of_tasks = of_experts = of_shared = inputs
        if inputs.shape.rank == 3:
            of_tasks, of_shared = inputs[:, :-1], inputs[:, -1]
            of_experts = tf.stack([of_tasks] * self.task_experts, axis=2)  # [B, T, m, n]
            of_experts = tf.reshape(of_experts, [-1, self.own.count, inputs.shape[2]])
        own, shared = self.own(of_experts, training=training), self.shared(of_shared, training=training)
        gates = self.gates(of_tasks)
        by_task = tf.reshape(own, [-1, self.tasks, self.task_experts, self.own.units[-1]])
        mixed = tf.matmul(gates[:, :, tf.newaxis, : self.task_experts], by_task)[:, :, 0]
        mixed += tf.matmul(gates[:, :, self.task_experts :], shared)
        if self.shared_gate is None:
            return mixed
        together = tf.matmul(self.shared_gate(of_shared), tf.concat([own, shared], axis=1))
        return tf.concat([mixed, together], axis=1)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return super().get_config() | {
            "units": list(self.own.units),
            "task_experts": self.task_experts,
            "shared_experts": self.shared.count,
            "tasks": self.tasks,
            "last": self.last,
            "seed": self.seed,
            "dropout": self.own.dropout,
            "batch_norm": self.own.batch_norm,
        }


@serializable
class ProgressiveExtraction(keras.layers.Layer):
    """PLE: levels of experts, shared and of each of T tasks: [B, n] -> [B, T, units[-1]].

    Each level is a `CustomizedGateControl` that reads the outputs of the level before it (Tang et al. 2020,
    "Progressive Layered Extraction", RecSys). One level is the paper's CGC.

    Args:
      units: outputs of each layer of an expert, with ReLU after each; the same in all levels.
      task_experts: the number of experts of each task, in each level.
      shared_experts: the number of shared experts, in each level.
      tasks: T.
      levels: the number of levels.
      seed: determines the initial weights and the dropped outputs; None draws others each time.
      dropout: the share of the outputs of the experts' layers that training drops.
      batch_norm: whether the experts' layers are batch normalized.

    Raises:
      ValueError: `levels`, a number of experts, of tasks or of `units` is below 1, or `units` is empty.
    """

    def __init__(
        self,
        units: Sequence[Count],
        task_experts: Count = 2,
        shared_experts: Count = 2,
        tasks: Count = 2,
        levels: Count = 2,
        seed: int | None = None,
        dropout: float = 0.0,
        batch_norm: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.seed = seed
        self.levels = [
            CustomizedGateControl(
                units,
                task_experts,
                shared_experts,
                tasks,
                last=i == levels - 1,
                seed=None if seed is None else derive_seed(seed, f"level/{i}"),
                dropout=dropout,
                batch_norm=batch_norm,
                dtype=self.dtype_policy,
                name=f"level_{i}",
            )
            for i in range(levels)
        ]

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Maps [B, n] to [B, T, units[-1]], in the compute dtype."""
        x = inputs
        for level in self.levels:
            x = level(x, training=training)
        return x

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        first = self.levels[0].get_config()
        names = ("units", "task_experts", "shared_experts", "tasks", "dropout", "batch_norm")
        mine = {"levels": len(self.levels), "seed": self.seed}
        return super().get_config() | {name: first[name] for name in names} | mine
