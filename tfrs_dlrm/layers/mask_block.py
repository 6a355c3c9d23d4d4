"""The block of MaskNet: a layer whose inputs are first multiplied by a mask of the instance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfrs_dlrm.layers.dropout import Dropout
from tfrs_dlrm.layers.hashing import derive_seed
from tfrs_dlrm.layers.layer_norm import LayerNorm
from tfrs_dlrm.layers.mlp import Dense, build_sublayer
from tfrs_dlrm.layers.serializable import serializable
from tfrs_dlrm.messages.arguments import Count


@serializable
class MaskBlock(keras.layers.Layer):
    """A fully connected layer behind an instance-guided mask: [B, m], [B, d] -> [B, outputs].

        mask = W_2 relu(W_1 v + b_1) + b_2         [d]
        y = relu(layer_norm(W (mask * h)))         [outputs]

    where v [m] are the embeddings of the instance, not normalized, and h [d] the input of the block: normalized
    embeddings, or the output of another block (Wang et al. 2021, "MaskNet", arXiv 2102.07619, sections 3.2 and 3.3).

    Args:
      outputs: how many numbers it gives.
      reduction: outputs of W_1 for each of the d numbers of the mask; the paper's reduction ratio.
      seed: determines the initial weights and the dropped outputs; None draws others each time.
      dropout: the share of y that training drops; see `tfrs_dlrm.layers.Dropout`.

    Raises:
      ValueError: `outputs` is below 1, `reduction` is not positive, or `dropout` is outside [0, 1).
    """

    def __init__(
        self,
        outputs: Count,
        reduction: float = 2.0,
        seed: int | None = None,
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not reduction > 0:
            raise ValueError(f"reduction={reduction}; a positive ratio is needed")
        self.outputs = outputs
        self.reduction = reduction
        self.seed = seed
        self.dropout = dropout
        if dropout:  # made only on request, as in `MLP`
            self.drop = Dropout(dropout, self._seed("dropout"), dtype=self.dtype_policy, name="dropout")

    def _seed(self, name: str) -> int | None:
        return None if self.seed is None else derive_seed(self.seed, name)

    def build(self, input_shape: Any) -> None:
        """Creates the weights."""
        instance, width = (tf.TensorShape(shape)[-1] for shape in input_shape)
        wide = max(1, int(self.reduction * width))
        self.aggregation = self._dense("aggregation", instance, wide, activation="relu")
        self.projection = self._dense("projection", wide, width)
        self.hidden = self._dense("hidden", width, self.outputs, use_bias=False)  # the norm has a shift
        self.norm = LayerNorm(dtype=self.dtype_policy, name="norm")
        build_sublayer(self.norm, self.outputs)
        if self.dropout:
            build_sublayer(self.drop, self.outputs)
        super().build(input_shape)

    def _dense(self, name: str, inputs: int, outputs: int, **kwargs: Any) -> Dense:
        initializer = keras.initializers.GlorotNormal(self._seed(name))
        layer = Dense(outputs, kernel_initializer=initializer, dtype=self.dtype_policy, name=name, **kwargs)
        build_sublayer(layer, inputs)
        return layer

    def call(self, inputs: Sequence[tf.Tensor], training: bool = False) -> tf.Tensor:
        """Maps a list of [B, m] and [B, d] to [B, outputs], in the compute dtype."""
        instance, hidden = inputs
        mask = self.projection(self.aggregation(instance))
        outputs = tf.nn.relu(self.norm(self.hidden(mask * hidden)))
        return self.drop(outputs, training=training) if self.dropout else outputs

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return super().get_config() | {
            "outputs": self.outputs,
            "reduction": self.reduction,
            "seed": self.seed,
            "dropout": self.dropout,
        }
