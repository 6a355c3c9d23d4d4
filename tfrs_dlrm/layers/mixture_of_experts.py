"""Multi-gate mixture of experts: tasks that mix the same experts, each in its own way."""

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
class MixtureOfExperts(keras.layers.Layer):
    """MMoE: E experts, and for each of T tasks a softmax gate over them: [B, n] -> [B, T, units[-1]].

        f_t = sum_e g_te h_e(x)         g_t = softmax(x W_t)

    h_e is an MLP with ReLU after each layer (Ma et al. 2018, "Modeling Task Relationships in Multi-task Learning with
    Multi-gate Mixture-of-Experts", KDD, section 4.2).

    Args:
      units: outputs of each layer of an expert.
      experts: E.
      tasks: T.
      seed: determines the initial weights and the dropped outputs; None draws others each time.
      dropout: the share of the outputs of the experts' layers that training drops.
      batch_norm: whether the experts' layers are batch normalized.

    Raises:
      ValueError: `experts`, `tasks` or a number of `units` is below 1, or `units` is empty.
    """

    def __init__(
        self,
        units: Sequence[Count],
        experts: Count = 4,
        tasks: Count = 2,
        seed: int | None = None,
        dropout: float = 0.0,
        batch_norm: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.experts = ParallelMLPs(
            experts,
            units,
            all_hidden=True,
            seed=None if seed is None else derive_seed(seed, "experts"),
            dropout=dropout,
            batch_norm=batch_norm,
            dtype=self.dtype_policy,
            name="experts",
        )
        gate_seed = None if seed is None else derive_seed(seed, "gates")
        self.gates = Gates(tasks, experts, gate_seed, dtype=self.dtype_policy, name="gates")
        self.seed = seed

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Maps [B, n] to [B, T, units[-1]], in the compute dtype."""
        return tf.matmul(self.gates(inputs), self.experts(inputs, training=training))

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return super().get_config() | {
            "units": list(self.experts.units),
            "experts": self.experts.count,
            "tasks": self.gates.tasks,
            "seed": self.seed,
            "dropout": self.experts.dropout,
            "batch_norm": self.experts.batch_norm,
        }
