"""The gates of FinalMLP, which weigh the features that a stream reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfrs_dlrm.layers.candidate_rows import Rows, apply
from tfrs_dlrm.layers.mlp import MLP, build_sublayer
from tfrs_dlrm.layers.serializable import serializable
from tfrs_dlrm.messages.arguments import Count


@serializable
class FeatureGate(keras.layers.Layer):
    """Multiplies each number of a vector by its gate, from 0 to 2: [B, d] -> [B, d].

        y = 2 sigmoid(g) * x

    (Mao et al. 2023, "FinalMLP", arXiv 2304.00902, section "Stream-Specific Feature Selection".) With a context c
    [B, c], g is MLP(c). Without one, g [d] is trained, the same for every row, and begins at 0: y is x at
    first.

    Input is one tensor x [B, d], or a list of x and the context.

    Args:
      units: outputs of the hidden layers of the MLP, with ReLU after each. Without context they have no effect.
      seed: determines the initial weights; None draws others each time.
    """

    def __init__(self, units: Sequence[Count] = (64,), seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = tuple(units)
        self.seed = seed

    def build(self, input_shape: Any) -> None:
        """Creates the weights."""
        if isinstance(input_shape, (list, tuple)) and len(input_shape) == 2 and not _is_shape(input_shape):
            width, context = (tf.TensorShape(shape)[-1] for shape in input_shape)
            self.mlp = MLP((*self.units, width), seed=self.seed, dtype=self.dtype_policy, name="mlp")
            build_sublayer(self.mlp, context)
        else:
            width = tf.TensorShape(input_shape)[-1]
            self.logits = self.add_weight(name="logits", shape=[width], initializer="zeros")
        super().build(input_shape)

    def call(self, inputs: Rows | Sequence[Rows]) -> Rows:
        """Returns [B, d], in the compute dtype."""
        if isinstance(inputs, (list, tuple)):
            x, context = inputs
            return x * apply(lambda logits: 2 * tf.sigmoid(logits), self.mlp(context))
        return apply(lambda x, logits: 2 * tf.sigmoid(logits) * x, inputs, self.logits)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return super().get_config() | {"units": list(self.units), "seed": self.seed}


def _is_shape(shape: Any) -> bool:
    return all(n is None or isinstance(n, int) for n in shape)
