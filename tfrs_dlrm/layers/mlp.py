"""Fully connected layers: `Dense`, and `MLP`, a stack of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfrs_dlrm.layers.candidate_rows import CandidateRows, Rows
from tfrs_dlrm.layers.dropout import Dropout
from tfrs_dlrm.layers.hashing import derive_seed
from tfrs_dlrm.layers.serializable import serializable
from tfrs_dlrm.messages.arguments import Count

Activation = str | Callable[[tf.Tensor], tf.Tensor] | None
# Of the moving averages of batch normalization. With Keras' 0.99 they need hundreds of steps to approach the data.
BATCH_NORM_MOMENTUM = 0.9
# The variance of the last weights under `final_bias`, as a share of that of the others.
FINAL_SCALE = 0.01


@serializable
class Dense(keras.layers.Dense):
    """A `keras.layers.Dense` whose bias has an exact gradient in bfloat16 too.

    On CPUs TensorFlow sums that gradient over the batch in bfloat16, with 8 bits of mantissa: it is off by 10% in a
    batch of 2048, by more than half in one of 8192. A product with ones sums in float32, and is no slower.
    """

    def call(self, inputs: Rows) -> Rows:
        """Maps [B, ..., fan_in] to [B, ..., units]."""
        if isinstance(inputs, CandidateRows):
            if inputs.same_for_all or inputs.shape.rank > 2:
                return inputs.map(self.call)
            return inputs.times(self.kernel, self.bias if self.use_bias else None, self.activation)
        inputs = tf.cast(inputs, self.compute_dtype)
        outputs = tf.matmul(inputs, self.kernel) if inputs.shape.rank == 2 else tf.tensordot(inputs, self.kernel, 1)
        if self.use_bias:
            outputs = add_bias(outputs, tf.cast(self.bias, self.compute_dtype))
        return outputs if self.activation is None else self.activation(outputs)


@tf.custom_gradient
def add_bias(x: tf.Tensor, bias: tf.Tensor) -> Any:
    """Adds a bias [units] to [B, ..., units], with a gradient that sums in float32."""

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        flat = tf.reshape(upstream, [-1, upstream.shape[-1]])
        return upstream, tf.matmul(tf.ones([1, tf.shape(flat)[0]], flat.dtype), flat)[0]

    return tf.nn.bias_add(x, bias), gradient


def build_sublayer(layer: keras.layers.Layer, width: int) -> None:
    """Builds a layer inside another one for inputs [B, width].

    The names of its variables begin with its name: in a HDF5 file, names must be unique.
    """
    with tf.name_scope(layer.name):
        layer.build([None, width])


@serializable
class MLP(keras.layers.Layer):
    """Fully connected layers, one after the other: [B, fan_in] -> [B, units[-1]].

    Initial weights are normal with standard deviation sqrt(2 / (fan_in + fan_out)), initial biases normal with
    sqrt(1 / fan_out), as in the DLRM reference (facebookresearch/dlrm, `dlrm_s_pytorch.py`, `create_mlp`).

    Every layer but the last (see `all_hidden`) may be followed by batch normalization (Ioffe and Szegedy 2015, arXiv
    1502.03167; before the activation, with the statistics of the batch of all replicas) and by dropout (after it).

    Args:
      units: outputs of each layer.
      activation: of every layer but the last, as in `keras.layers.Dense`.
      final_activation: of the last layer; None leaves it linear.
      use_bias: whether the layers add a bias.
      seed: determines the initial weights and the dropped outputs; None draws others each time.
      dropout: the share of outputs that training drops; see `tfrs_dlrm.layers.Dropout`.
      batch_norm: whether to normalize.
      final_bias: where the last layer's outputs begin, a number for each. Its bias begins there, and its weights with a
        tenth of the standard deviation, so that first outputs are near. None leaves the last layer as the others.
      all_hidden: whether the last layer has activation, batch norm and dropout as the others, since it is no output.

    Raises:
      ValueError: `units` is empty or holds a number below 1, `dropout` is outside [0, 1), or `final_bias` has another
        number of outputs than the last layer, or no bias to begin, or `all_hidden` comes with a `final_activation`.
    """

    def __init__(
        self,
        units: Sequence[Count],
        activation: Activation = "relu",
        final_activation: Activation = None,
        use_bias: bool = True,
        seed: int | None = None,
        dropout: float = 0.0,
        batch_norm: bool = False,
        final_bias: Sequence[float] | None = None,
        all_hidden: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not units:
            raise ValueError(f"units={list(units)}; at least one layer is needed")
        if final_bias is not None and (len(final_bias) != units[-1] or not use_bias):
            raise ValueError(
                f"final_bias={list(final_bias)}, use_bias={use_bias}: the last layer has {units[-1]} outputs; give a"
                " number for each, and a bias"
            )
        if all_hidden and final_activation not in (None, "linear"):  # which saved layers have
            raise ValueError(f"final_activation={final_activation!r}, all_hidden=True: leave one of them out")
        self.units = tuple(units)
        self.hidden_layers = len(self.units) - (not all_hidden)
        self.activation = keras.activations.get(activation)
        self.final_activation = keras.activations.get(final_activation)
        self.use_bias = use_bias
        self.seed = seed
        self.dropout = dropout
        self.batch_norm = batch_norm
        self.final_bias = None if final_bias is None else tuple(map(float, final_bias))
        self.dense_layers = [self._dense_layer(i) for i in range(len(self.units))]
        hidden = range(self.hidden_layers)
        # Made only on request, so that checkpoints of models without them stay as they are.
        if batch_norm:
            self.batch_norms = [self._batch_norm(i) for i in hidden]
        if dropout:
            self.dropouts = [
                Dropout(dropout, self._seed(f"dropout/{i}"), dtype=self.dtype_policy, name=f"dropout_{i}")
                for i in hidden
            ]

    def _seed(self, name: str) -> int | None:
        return None if self.seed is None else derive_seed(self.seed, name)

    def _dense_layer(self, i: int) -> Dense:
        hidden = i < self.hidden_layers
        normalized = hidden and self.batch_norm  # which comes between the layer and its activation
        begins: Any = keras.initializers.RandomNormal(stddev=math.sqrt(1 / self.units[i]), seed=self._seed(f"bias/{i}"))
        # scale 1 over the mean of fan_in and fan_out is the variance 2 / (fan_in + fan_out).
        scale = 1.0
        if self.final_bias is not None and not hidden:
            begins, scale = keras.initializers.Constant(list(self.final_bias)), FINAL_SCALE
        return Dense(
            self.units[i],
            activation=(None if normalized else self.activation) if hidden else self.final_activation,
            use_bias=self.use_bias,
            kernel_initializer=keras.initializers.VarianceScaling(
                scale, "fan_avg", "untruncated_normal", seed=self._seed(f"kernel/{i}")
            ),
            bias_initializer=begins,
            dtype=self.dtype_policy,
            name=f"dense_{i}",
        )

    def _batch_norm(self, i: int) -> keras.layers.BatchNormalization:
        return keras.layers.BatchNormalization(
            momentum=BATCH_NORM_MOMENTUM, synchronized=True, dtype=self.dtype_policy, name=f"batch_norm_{i}"
        )

    def build(self, input_shape: Any) -> None:
        """Creates the weights."""
        fan_in = tf.TensorShape(input_shape)[-1]
        for layer, units in zip(self.dense_layers, self.units, strict=True):
            build_sublayer(layer, fan_in)
            fan_in = units
        for i, units in enumerate(self.units[: self.hidden_layers]):
            if self.batch_norm:
                build_sublayer(self.batch_norms[i], units)
            if self.dropout:
                build_sublayer(self.dropouts[i], units)
        super().build(input_shape)

    def call(self, inputs: Rows, training: bool = False) -> Rows:
        """Maps [B, fan_in] to [B, units[-1]], in the compute dtype; `training` affects batch norm and dropout only."""
        if isinstance(inputs, CandidateRows) and inputs.same_for_all:
            return inputs.map(lambda x: self.call(x, training))
        x = inputs
        for i, layer in enumerate(self.dense_layers):
            x = layer(x)
            hidden = i < self.hidden_layers
            if hidden and self.batch_norm:
                x = self.activation(self.batch_norms[i](x, training=training))
            if hidden and self.dropout:
                x = self.dropouts[i](x, training=training)
        return x

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return super().get_config() | {
            "units": list(self.units),
            "activation": keras.activations.serialize(self.activation),
            "final_activation": keras.activations.serialize(self.final_activation),
            "use_bias": self.use_bias,
            "seed": self.seed,
            "dropout": self.dropout,
            "batch_norm": self.batch_norm,
            "final_bias": None if self.final_bias is None else list(self.final_bias),
            "all_hidden": self.hidden_layers == len(self.units),
        }
