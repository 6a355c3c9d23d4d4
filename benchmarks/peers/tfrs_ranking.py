"""`tfrs.experimental.models.Ranking` of TensorFlow Recommenders, with Keras embeddings and one Keras optimizer."""

import numpy as np
import tensorflow as tf
import tensorflow_recommenders as tfrs
import tf_keras as keras
from workloads import Weights, Workload, batches

from peers import KERAS_EPSILON, LEARNING_RATE


class _Embeddings(keras.layers.Layer):
    """{feature: ids [B]} -> {feature: vectors [B, dim]}."""

    def __init__(self, workload: Workload, weights: Weights):
        super().__init__()
        self._tables = {}
        for i, (name, rows) in enumerate(zip(_names(workload), workload.rows, strict=True)):
            self._tables[name] = keras.layers.Embedding(rows, workload.dim, embeddings_initializer="zeros")
            self._tables[name].build(None)
            self._tables[name].embeddings.assign(weights.table(i))

    def call(self, features: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {name: self._tables[name](ids) for name, ids in features.items()}


class TfrsRanking:
    def __init__(self, workload: Workload, optimizer: str, precision: str, weights: Weights):
        if workload.longest_bag or optimizer not in _OPTIMIZERS or precision != "fp32":
            raise ValueError(f"TFRS Ranking has no bags, no {optimizer} or no {precision}")
        self._model = tfrs.experimental.models.Ranking(
            embedding_layer=_Embeddings(workload, weights),
            bottom_stack=tfrs.layers.blocks.MLP(list(workload.bottom), final_activation="relu"),
            top_stack=tfrs.layers.blocks.MLP(list(workload.top), final_activation=None),
            task=tfrs.tasks.Ranking(loss=keras.losses.BinaryCrossentropy(from_logits=True)),
        )
        self._model.compile(optimizer=_OPTIMIZERS[optimizer](LEARNING_RATE[optimizer]))
        names = _names(workload)
        self._batches = []
        for b in batches(workload):
            ids = dict(zip(names, map(tf.constant, b.ids), strict=True))
            features = {"dense_features": tf.constant(b.dense), "sparse_features": ids}
            self._batches.append((features, tf.constant(b.labels)))
        self._model(self._batches[0][0])  # makes the weights
        self._assign(workload, weights)
        self._step = tf.function(lambda batch: self._model.train_step(batch)["loss"])

    def _assign(self, workload: Workload, weights: Weights) -> None:
        self._model._bottom_stack.set_weights([w for layer in weights.mlp("bottom") for w in layer])
        top = weights.mlp("top")
        top[0] = (top[0][0][_rows_in_its_order(workload)], top[0][1])
        self._model._top_stack.set_weights([w for layer in top for w in layer])

    def step(self, i: int) -> float:
        return float(self._step(self._batches[i % len(self._batches)]))


def _adagrad(rate: float) -> keras.optimizers.Optimizer:
    return keras.optimizers.Adagrad(rate, initial_accumulator_value=0.0, epsilon=KERAS_EPSILON)


_OPTIMIZERS = {"sgd": keras.optimizers.SGD, "adagrad": _adagrad}


def _names(workload: Workload) -> list[str]:
    return [f"C{i:02d}" for i in range(len(workload.rows))]  # it takes features in alphabetic order


def _rows_in_its_order(workload: Workload) -> np.ndarray:
    """The rows of the first kernel of the top MLP. Its interaction has the dense vector last, ours has it first."""
    tables = len(workload.rows)
    position = {pair: workload.dim + k for k, pair in enumerate(workload.pairs)}
    ours = lambda i: 0 if i == tables else i + 1  # noqa: E731
    pairs = [tuple(sorted((ours(i), ours(j)), reverse=True)) for i, j in workload.pairs]
    return np.array([*range(workload.dim), *(position[pair] for pair in pairs)])
