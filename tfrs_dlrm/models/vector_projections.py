"""Projects dense vectors, such as embeddings of texts, to the dimension of the tables' vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfrs_dlrm.layers.hashing import derive_seed
from tfrs_dlrm.layers.mlp import Dense, build_sublayer
from tfrs_dlrm.layers.serializable import serializable
from tfrs_dlrm.messages.arguments import Count
from tfrs_dlrm.schema import Schema


@serializable
class VectorProjections(keras.layers.Layer):
    """Splits the dense inputs of a batch into numbers, and vectors, each of which it projects by a matrix and a bias.

    Args:
      parts: the parts of the inputs, in order, as `parts_of` returns them.
      dim: the dimension of the projected vectors.
      seed: for the initial matrices.
      **kwargs: arguments of `keras.layers.Layer`.
    """

    def __init__(self, parts: Sequence[tuple[str, int]], dim: Count, seed: int, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        self.dim, self.seed = dim, seed
        self.parts = [(name, width) for name, width in parts]
        self.projections: dict[str, Dense] = {
            name: Dense(
                dim,
                kernel_initializer=keras.initializers.GlorotUniform(derive_seed(seed, f"projected/{name}")),
                dtype=self._dtype_policy,
                name=f"projected_{name}",
            )
            for name, _ in self.parts
            if name
        }

    def build(self, input_shape: tf.TensorShape) -> None:
        """Creates the matrices."""
        for name, width in self.parts:
            if name:
                build_sublayer(self.projections[name], width)
        super().build(input_shape)

    def call(self, dense: tf.Tensor) -> list[tf.Tensor]:
        """Returns the numbers [B, W], float32, then for each vector [B, dim]; W may be 0."""
        split = tf.split(dense, [width for _, width in self.parts], axis=1)
        names = [name for name, _ in self.parts]
        numbers = [part for name, part in zip(names, split, strict=True) if not name]
        vectors = [self.projections[name](part) for name, part in zip(names, split, strict=True) if name]
        return [tf.concat([dense[:, :0], *numbers], axis=1), *vectors]

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return super().get_config() | {"parts": [list(part) for part in self.parts], "dim": self.dim, "seed": self.seed}


def parts_of(schema: Schema) -> list[tuple[str, int]]:
    """Returns the parts of the dense inputs: a projected vector's name, or "" for numbers, and the width of each."""
    parts: list[tuple[str, int]] = []
    for f in schema.dense:
        name, width = f.name if f.projected else "", len(f.encoded_columns)
        if parts and not name and not parts[-1][0]:
            parts[-1] = ("", parts[-1][1] + width)
        else:
            parts.append((name, width))
    return parts
