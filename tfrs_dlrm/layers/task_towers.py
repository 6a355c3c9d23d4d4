"""An MLP for each task, over what experts give it or over the same input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfrs_dlrm.layers.hashing import derive_seed
from tfrs_dlrm.layers.parallel_mlps import ParallelMLPs
from tfrs_dlrm.layers.serializable import serializable
from tfrs_dlrm.messages.arguments import Count


@serializable
class TaskTowers(keras.layers.Layer):
    """Experts, and for each of T tasks an MLP with one output, the tower: [B, n] -> [B, T].

    Args:
      mixture: maps [B, n] to [B, T, width]: a `MixtureOfExperts` or `ProgressiveExtraction`, also serialized. None for
        towers that all read the input.
      tower_mlp: outputs of each layer of a tower, with ReLU after each but the last, which must be 1.
      final_bias: where the output of each tower begins, a number for each task.
      seed: determines the towers' initial weights and dropped outputs; None draws others each time.
      dropout: the share of the towers' hidden outputs that training drops.
      batch_norm: whether the towers' hidden layers are batch normalized.

    Raises:
      ValueError: `tower_mlp` does not end in 1.
    """

    def __init__(
        self,
        mixture: keras.layers.Layer | Mapping[str, Any] | None,
        tower_mlp: Sequence[Count],
        final_bias: Sequence[float],
        seed: int | None = None,
        dropout: float = 0.0,
        batch_norm: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not tower_mlp or tower_mlp[-1] != 1:
            raise ValueError(f"tower_mlp={list(tower_mlp)} must end in 1, the output of a task")
        if isinstance(mixture, Mapping):  # it computes in the dtype of this layer
            config = mixture["config"] | {"dtype": self.dtype_policy.name}
            mixture = keras.layers.deserialize({**mixture, "config": config})
        self.mixture: keras.layers.Layer | None = mixture
        self.seed = seed
        self.towers = ParallelMLPs(
            len(final_bias),
            tower_mlp,
            seed=None if seed is None else derive_seed(seed, "towers"),
            dropout=dropout,
            batch_norm=batch_norm,
            final_bias=final_bias,
            dtype=self.dtype_policy,
            name="towers",
        )

    @property
    def units(self) -> tuple[int, ...]:
        """The outputs of the layers of a tower."""
        return self.towers.units

    @property
    def dropout(self) -> float:
        """The share of the towers' hidden outputs that training drops."""
        return self.towers.dropout

    @property
    def batch_norm(self) -> bool:
        """Whether the towers' hidden layers are batch normalized."""
        return self.towers.batch_norm

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Maps [B, n] to [B, T], in the compute dtype."""
        x = inputs if self.mixture is None else self.mixture(inputs, training=training)
        return self.towers(x, training=training)[:, :, 0]

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return super().get_config() | {
            "mixture": self.mixture and keras.layers.serialize(self.mixture),
            "tower_mlp": list(self.units),
            "final_bias": list(self.towers.final_bias or ()),
            "seed": self.seed,
            "dropout": self.dropout,
            "batch_norm": self.batch_norm,
        }
