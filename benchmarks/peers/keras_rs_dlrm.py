"""Keras 3 on TensorFlow with the dot interaction of keras-rs, and one Keras optimizer.

Its Adagrad squares the gradients of equal ids before it adds them up, where all others add first, so its losses differ.
It also takes the root of every accumulator of every table.
"""

import keras
import keras_rs
import tensorflow as tf
from workloads import Weights, Workload, batches

from peers import KERAS_EPSILON, LEARNING_RATE


class KerasRsDLRM:
    def __init__(self, workload: Workload, optimizer: str, precision: str, weights: Weights):
        if workload.longest_bag or optimizer not in _OPTIMIZERS or precision != "fp32":
            raise ValueError(f"Keras 3 was not given bags, {optimizer} or {precision}")
        self._model = _model(workload, weights)
        self._model.compile(
            optimizer=_OPTIMIZERS[optimizer](LEARNING_RATE[optimizer]),
            loss=keras.losses.BinaryCrossentropy(from_logits=True),
        )
        self._batches = [
            ([tf.constant(b.dense), *map(tf.constant, b.ids)], tf.constant(b.labels[:, None]))
            for b in batches(workload)
        ]
        self._step = tf.function(self._loss_of_step)

    def _loss_of_step(self, batch: tuple) -> tf.Tensor:
        loss = self._model.train_step(batch)["loss"]
        self._model.reset_metrics()  # the model reports the mean since the start of an epoch
        return loss

    def step(self, i: int) -> float:
        return float(self._step(self._batches[i % len(self._batches)]))


def _adagrad(rate: float) -> keras.optimizers.Optimizer:
    return keras.optimizers.Adagrad(rate, initial_accumulator_value=0.0, epsilon=KERAS_EPSILON)


_OPTIMIZERS = {"sgd": keras.optimizers.SGD, "adagrad": _adagrad}


def _model(workload: Workload, weights: Weights) -> keras.Model:
    dense = keras.Input([workload.dense])
    ids = [keras.Input([], dtype="int32") for _ in workload.rows]
    bottom = _mlp(dense, weights.mlp("bottom"), "relu")
    vectors = [_embedding(x, weights.table(i)) for i, x in enumerate(ids)]
    products = keras_rs.layers.DotInteraction()([bottom, *vectors])
    logits = _mlp(keras.ops.concatenate([bottom, products], axis=1), weights.mlp("top"), None)
    return keras.Model([dense, *ids], logits)


def _mlp(x: keras.KerasTensor, weights: list, last: str | None) -> keras.KerasTensor:
    for number, values in enumerate(weights):
        layer = keras.layers.Dense(len(values[1]), activation="relu" if number < len(weights) - 1 else last)
        x = layer(x)
        layer.set_weights(values)
    return x


def _embedding(ids: keras.KerasTensor, table) -> keras.KerasTensor:
    layer = keras.layers.Embedding(*table.shape, embeddings_initializer="zeros")
    out = layer(ids)
    layer.set_weights([table])
    return out
