"""The factorized interaction layer of FinalNet, and an MLP of such layers."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfrs_dlrm.layers.hashing import derive_seed
from tfrs_dlrm.layers.mlp import MLP, Activation, Dense, build_sublayer
from tfrs_dlrm.layers.serializable import serializable
from tfrs_dlrm.messages.arguments import Count


@serializable
class FactorizedInteraction(keras.layers.Layer):
    """A fully connected layer whose outputs are of second degree in its inputs: [B, d] -> [B, outputs].

        y = activation((W_1 x + b_1) + (W_1 x + b_1) * (W_2 x + b_2))

    elementwise (Zhu et al. 2023, "FINAL: Factorized Interaction Layer for CTR Prediction", SIGIR, with the residual
    `sum` of the authors' code). The degree doubles with each layer: L layers have products of up to 2^L inputs.

    Args:
      outputs: how many numbers it gives.
      activation: as in `keras.layers.Dense`; None leaves the outputs as they are.
      seed: determines the initial weights; None draws others each time.
      use_bias: whether b_1 and b_2 are added.

    Raises:
      ValueError: `outputs` is below 1.
    """

    def __init__(
        self,
        outputs: Count,
        activation: Activation = None,
        seed: int | None = None,
        use_bias: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.outputs = outputs
        self.activation = keras.activations.get(activation)
        self.seed = seed
        self.use_bias = use_bias

    def build(self, input_shape: Any) -> None:
        """Creates the weights."""
        width = tf.TensorShape(input_shape)[-1]
        self.linear, self.factor = (self._dense(name, width) for name in ("linear", "factor"))
        super().build(input_shape)

    def _dense(self, name: str, width: int) -> Dense:
        seed = None if self.seed is None else derive_seed(self.seed, name)
        initializer = keras.initializers.GlorotNormal(seed)
        layer = Dense(
            self.outputs,
            use_bias=self.use_bias,
            kernel_initializer=initializer,
            dtype=self.dtype_policy,
            name=name,
        )
        build_sublayer(layer, width)
        return layer

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Maps [B, d] to [B, outputs], in the compute dtype."""
        linear = self.linear(inputs)
        return self.activation(linear + linear * self.factor(inputs))

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        activation = keras.activations.serialize(self.activation)
        return super().get_config() | {
            "outputs": self.outputs,
            "activation": activation,
            "seed": self.seed,
            "use_bias": self.use_bias,
        }


@serializable
class FactorizedMLP(MLP):
    """An `MLP` whose hidden layers are `FactorizedInteraction`; the arguments are those of `MLP`."""

    def _dense_layer(self, i: int) -> Any:
        if i == self.hidden_layers:
            return super()._dense_layer(i)
        activation = None if self.batch_norm else self.activation
        return FactorizedInteraction(
            self.units[i],
            activation,
            self._seed(f"interaction/{i}"),
            self.use_bias,
            dtype=self.dtype_policy,
            name=f"dense_{i}",
        )
