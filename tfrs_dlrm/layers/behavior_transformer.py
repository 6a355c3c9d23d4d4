"""The transformer layer of BST: self-attention between the events of a history and a target."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfrs_dlrm.layers.dropout import Dropout
from tfrs_dlrm.layers.hashing import derive_seed
from tfrs_dlrm.layers.layer_norm import LayerNorm
from tfrs_dlrm.layers.mlp import MLP, Dense, build_sublayer
from tfrs_dlrm.layers.serializable import serializable
from tfrs_dlrm.messages.arguments import Count


@serializable
class BehaviorTransformer(keras.layers.Layer):
    """Self-attention between a target t and the events e_i of a history: [B, L, D], [B, D], [B, L] -> [B, 1 + L, D].

        x = [t, e_n, ..., e_1, 0, ..., 0] + p           the latest event e_n first; p is a vector for each place
        a = LayerNorm(x + O concat over h of softmax(Q_h x . K_h x / sqrt(d)) V_h x)       for each head h
        y = LayerNorm(a + MLP(a))                       0 where there is no event

    in each of the blocks, one after the other (Chen et al. 2019, "Behavior Sequence Transformer", arXiv 1905.06874,
    section 2.2). A head has d = D / heads numbers, rounded up. Places without an event are attended by none, so that
    the result does not depend on how many there are.

    Differences from the paper: a place has a trained vector, counted from the target, and not one of the time between
    event and target, which is added and not concatenated. The MLP has one hidden layer of ReLU, and not leaky ReLU.

    Args:
      heads: the number of attention heads.
      blocks: the number of blocks.
      hidden: the width of the hidden layer of a block's MLP.
      dropout: the share of the numbers that training drops of what attention and MLP add; see `Dropout`.
      seed: determines the initial weights and what is dropped; None draws others each time.

    Raises:
      ValueError: `heads`, `blocks` or `hidden` is below 1, or `dropout` is outside [0, 1).
    """

    def __init__(
        self,
        heads: Count = 8,
        blocks: Count = 1,
        hidden: Count = 64,
        dropout: float = 0.0,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.heads, self.blocks, self.hidden = heads, blocks, hidden
        self.dropout = dropout
        self.seed = seed
        self.blocks_of_layers = [
            _Block(heads, hidden, dropout, self._seed(f"block/{i}"), dtype=self.dtype_policy, name=f"block_{i}")
            for i in range(blocks)
        ]

    def _seed(self, name: str) -> int | None:
        return None if self.seed is None else derive_seed(self.seed, name)

    def build(self, input_shape: Any) -> None:
        """Creates the weights."""
        _, length, width = tf.TensorShape(input_shape[0]).as_list()
        self.places = self.add_weight(name="places", shape=[1 + length, width], initializer="zeros")
        for block in self.blocks_of_layers:
            build_sublayer(block, width)
        super().build(input_shape)

    def call(self, inputs: Sequence[tf.Tensor], training: bool = False) -> tf.Tensor:
        """Returns the vectors [B, 1 + L, D] of the target and of the events, the latest first, in the compute dtype.

        Args:
          inputs: events [B, L, D], the latest in the last place that has one; the target [B, D]; and which places have
            an event, bool [B, L]: the first ones.
          training: whether numbers are dropped.
        """
        events, target, present = inputs
        latest_first = tf.reverse_sequence(events, tf.reduce_sum(tf.cast(present, tf.int32), axis=1), seq_axis=1)
        x = tf.concat([target[:, tf.newaxis], latest_first], axis=1) + self.places
        counts = tf.concat([tf.ones_like(present[:, :1]), present], axis=1)
        for block in self.blocks_of_layers:
            x = block(x, counts, training=training)
        return x * tf.cast(counts, x.dtype)[..., tf.newaxis]

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return super().get_config() | {
            "heads": self.heads,
            "blocks": self.blocks,
            "hidden": self.hidden,
            "dropout": self.dropout,
            "seed": self.seed,
        }


class _Block(keras.layers.Layer):
    """Attention and an MLP, each with a residual connection and layer normalization: [B, P, D] -> [B, P, D]."""

    def __init__(self, heads: Count, hidden: Count, dropout: float, seed: int | None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._heads, self._hidden, self._seed = heads, hidden, seed
        self.norms = [LayerNorm(dtype=self.dtype_policy, name=f"norm_{part}") for part in ("attention", "mlp")]
        # Made only on request, so that checkpoints of models without them have no counters.
        self._dropouts = [
            Dropout(dropout, self._derived(f"dropout/{part}"), dtype=self.dtype_policy, name=f"dropout_{part}")
            for part in (("attention", "mlp") if dropout else ())
        ]

    def _derived(self, name: str) -> int | None:
        return None if self._seed is None else derive_seed(self._seed, name)

    def build(self, input_shape: Any) -> None:
        """Creates the weights."""
        width = tf.TensorShape(input_shape)[-1]
        self._dim = -(-width // self._heads)
        joined = self._heads * self._dim
        self._query, self._key, self._value = (self._product(n, width, joined) for n in ("query", "key", "value"))
        self._output = self._product("output", joined, width)
        self.mlp = MLP((self._hidden, width), seed=self._derived("mlp"), dtype=self.dtype_policy, name="mlp")
        for layer in (self.mlp, *self.norms, *self._dropouts):
            build_sublayer(layer, width)
        super().build(input_shape)

    def _product(self, name: str, inputs: int, outputs: int) -> Dense:
        initializer = keras.initializers.GlorotNormal(self._derived(name))
        layer = Dense(outputs, use_bias=False, kernel_initializer=initializer, dtype=self.dtype_policy, name=name)
        build_sublayer(layer, inputs)
        return layer

    def call(self, x: tf.Tensor, counts: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Returns vectors [B, P, D]; `counts` is bool [B, P], the places that are attended."""
        x = self._added(0, x, self._attended(x, counts), training)
        return self._added(1, x, self.mlp(x), training)

    def _added(self, part: int, x: tf.Tensor, change: tf.Tensor, training: bool) -> tf.Tensor:
        """Returns the normalized sum of vectors [B, P, D] and their change."""
        if self._dropouts:
            change = self._dropouts[part](change, training=training)
        flat = tf.reshape(x + change, [-1, x.shape[2]])  # so that all places share the norm's weights
        return tf.reshape(self.norms[part](flat), [-1, x.shape[1], x.shape[2]])

    def _attended(self, x: tf.Tensor, counts: tf.Tensor) -> tf.Tensor:
        """Returns what each place [B, P, D] takes from the others."""
        query, key, value = (self._by_head(layer(x)) for layer in (self._query, self._key, self._value))
        products = tf.matmul(query, key, transpose_b=True) / math.sqrt(self._dim)
        masked = tf.where(counts[:, tf.newaxis, tf.newaxis], products, products.dtype.min)
        attended = tf.transpose(tf.matmul(tf.nn.softmax(masked), value), [0, 2, 1, 3])  # weights [B, heads, P, P]
        return self._output(tf.reshape(attended, [-1, x.shape[1], self._heads * self._dim]))

    def _by_head(self, vectors: tf.Tensor) -> tf.Tensor:
        """Maps [B, P, heads * d] to [B, heads, P, d]."""
        return tf.transpose(tf.reshape(vectors, [-1, vectors.shape[1], self._heads, self._dim]), [0, 2, 1, 3])
