"""Target attention, the local activation unit of DIN: how much each event of a history matters to a target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfrs_dlrm.layers.hashing import derive_seed
from tfrs_dlrm.layers.mlp import MLP, Activation, Dense, build_sublayer
from tfrs_dlrm.layers.serializable import serializable
from tfrs_dlrm.messages.arguments import Count


@serializable
class TargetAttention(keras.layers.Layer):
    """An MLP that weighs each event e_i of a history by the target t: [B, L, D], [B, D], [B, L] -> [B, L].

        a_i = MLP(concat(e_i, t, e_i - t, e_i * t))      0 where there is no event

    (Zhou et al. 2018, "Deep Interest Network", arXiv 1706.06978, section 4.3). As in the paper the weights are not
    normalized, so that their sum says how strong the interest is; `softmax` makes it 1, or 0 without events.

    The first layer is linear, and is computed without the concatenation and the difference:

        W [e, t, e - t, e * t] = (W1 + W3) e + (W2 - W3) t + W4 (e * t)

    with a kernel for each term. It computes the same functions with a quarter fewer weights. See also `of_candidates`.

    Differences from the paper: hidden layers have ReLU by default, and neither PReLU nor Dice. Without `softmax`, the
    first weights are near 1 / L, the mean of a full history.

    Args:
      units: outputs of the hidden layers; the paper draws one of 36.
      softmax: whether the weights of an example's events are normalized.
      activation: of the hidden layers, as in `keras.layers.Dense`.
      seed: determines the initial weights; None draws others each time.

    Raises:
      ValueError: `units` is empty or holds a number below 1.
    """

    def __init__(
        self,
        units: Sequence[Count] = (36,),
        softmax: bool = False,
        activation: Activation = "relu",
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not units:
            raise ValueError(f"units={list(units)}; at least one layer is needed")
        self.units = tuple(units)
        self.softmax = softmax
        self.activation = keras.activations.get(activation)
        self.seed = seed

    def build(self, input_shape: Any) -> None:
        """Creates the weights."""
        _, length, width = tf.TensorShape(input_shape[0]).as_list()
        self.event, self.product = (self._product(name, width, use_bias=False) for name in ("event", "product"))
        self.target = self._product("target", width, use_bias=True)
        self.mlp = MLP(
            (*self.units[1:], 1),
            self.activation,
            seed=self._seed("mlp"),
            final_bias=(0.0 if self.softmax else 1 / length,),
            dtype=self.dtype_policy,
            name="mlp",
        )
        build_sublayer(self.mlp, self.units[0])
        super().build(input_shape)

    def _seed(self, name: str) -> int | None:
        return None if self.seed is None else derive_seed(self.seed, name)

    def _product(self, name: str, width: int, use_bias: bool) -> Dense:
        initializer = keras.initializers.GlorotNormal(self._seed(name))
        layer = Dense(
            self.units[0], use_bias=use_bias, kernel_initializer=initializer, dtype=self.dtype_policy, name=name
        )
        build_sublayer(layer, width)
        return layer

    def call(self, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        """Returns the weights [B, L] of events, in the compute dtype.

        Args:
          inputs: events [B, L, D], the target [B, D], and which places have an event, bool [B, L].
        """
        events, target, present = inputs
        products = self.product(events * target[:, tf.newaxis])
        hidden = self.activation(self.event(events) + self.target(target)[:, tf.newaxis] + products)
        return self._weights(self.mlp(hidden)[..., 0], present)

    def of_candidates(self, events: tf.Tensor, targets: tf.Tensor, present: tf.Tensor) -> tf.Tensor:
        """Returns the weights [C, L, N] of the events of C histories for N targets each.

        The terms of an event alone are computed once for all targets. For each history, a single product of matrices
        [L, D] and [D, N * units] gives the others.

        Args:
          events: [C, L, D].
          targets: [C, N, D].
          present: bool [C, L], which places have an event.
        """
        units, length = self.units[0], events.shape[1]
        each = tf.transpose(targets, [0, 2, 1])[..., tf.newaxis]  # [C, D, N, 1]
        kernels = each * tf.cast(self.product.kernel, events.dtype)[:, tf.newaxis]  # [C, D, N, units]
        products = tf.matmul(events, tf.reshape(kernels, [-1, events.shape[2], tf.shape(targets)[1] * units]))
        products = tf.reshape(products, [-1, length, tf.shape(targets)[1], units])
        hidden = self.activation(products + self.event(events)[:, :, tf.newaxis] + self.target(targets)[:, tf.newaxis])
        return self._weights(self.mlp(hidden)[..., 0], present[..., tf.newaxis])

    def _weights(self, scores: tf.Tensor, present: tf.Tensor) -> tf.Tensor:
        """Returns the weights from the outputs of the MLP; places are on axis 1."""
        if self.softmax:
            scores = tf.nn.softmax(tf.where(present, scores, scores.dtype.min), axis=1)
        return scores * tf.cast(present, scores.dtype)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return super().get_config() | {
            "units": list(self.units),
            "softmax": self.softmax,
            "activation": keras.activations.serialize(self.activation),
            "seed": self.seed,
        }
