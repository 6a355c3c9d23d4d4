"""This package: `DLRM`, its row optimizers for the tables and a Keras optimizer for the MLPs."""

import os

import numpy as np
import tensorflow as tf
import tf_keras as keras
from workloads import Batch, Weights, Workload, batches

import tfrs_dlrm as td
from peers import KERAS_EPSILON, LEARNING_RATE
from tfrs_dlrm.embeddings import kernels

_ROWS = {"sgd": td.SGD, "adagrad": td.Adagrad, "rowwise": td.RowWiseAdagrad}


class Ours:
    kernels = "0"

    def __init__(self, workload: Workload, optimizer: str, precision: str, weights: Weights | None):
        keras.mixed_precision.set_global_policy("mixed_bfloat16" if precision == "bf16" else "float32")
        self.model = td.DLRM(schema(workload), workload.bottom, workload.top)
        rate = LEARNING_RATE[optimizer]
        dense = keras.optimizers.SGD(rate) if optimizer == "sgd" else _adagrad(rate)
        os.environ[kernels.SWITCH] = self.kernels
        self.model.compile(optimizer=dense, embedding_optimizer=_ROWS[optimizer](rate), metrics=[])
        if weights is not None:
            self._assign(workload, weights)
        self._batches = [self._tensors(b) for b in batches(workload)]
        self._step = tf.function(self._loss_of_step)

    def _assign(self, workload: Workload, weights: Weights) -> None:
        for i in range(len(workload.rows)):
            self.model.embeddings.tables[f"C{i}"].assign(weights.table(i))
        for name, mlp in (("bottom", self.model.bottom_mlp), ("top", self.model.top_mlp)):
            for layer, values in zip(mlp.dense_layers, weights.mlp(name), strict=True):
                layer.set_weights(values)

    def _loss_of_step(self, batch: tuple) -> tf.Tensor:
        loss = self.model.train_step(batch)["loss"]
        self.model.reset_metrics()  # the model reports the mean since the start of an epoch
        return loss

    def _tensors(self, batch: Batch) -> tuple[dict, tf.Tensor]:
        features = {"dense": tf.constant(batch.dense)}
        if batch.splits is None:
            features["ids"] = tf.constant(np.stack(batch.ids, axis=1))
        else:
            for i, (ids, splits) in enumerate(zip(batch.ids, batch.splits, strict=True)):
                features[f"C{i}"] = tf.RaggedTensor.from_row_splits(tf.constant(ids), tf.constant(splits))
        return features, tf.constant(batch.labels)

    def step(self, i: int) -> float:
        return float(self._step(self._batches[i % len(self._batches)]))


class OursSorted(Ours):
    """With what `tfrs_dlrm.dataset(sort_ids=True)` adds to a batch, which `train/main.py` uses on one device."""

    def _tensors(self, batch: Batch) -> tuple[dict, tf.Tensor]:
        features, labels = super()._tensors(batch)
        for i, ids in enumerate(batch.ids):
            table = self.model.schema.table(f"C{i}")
            features[table.order_key] = tf.constant(np.argsort(ids, kind="stable").astype(np.int32))
        return features, labels


class OursByKernels(Ours):
    """With the C++ kernels of `tfrs-dlrm kernels`, built now unless they are there."""

    kernels = "1"

    def __init__(self, workload: Workload, optimizer: str, precision: str, weights: Weights | None):
        os.environ[kernels.SWITCH] = self.kernels
        if kernels.find() is None:
            kernels.build()
        super().__init__(workload, optimizer, precision, weights)


def schema(workload: Workload) -> td.Schema:
    return td.Schema(
        label=td.Label("label"),
        dense=tuple(td.DenseFeature(f"I{i}") for i in range(workload.dense)),
        categorical=tuple(
            td.CategoricalFeature(f"C{i}", multi_valued=bool(workload.longest_bag)) for i in range(len(workload.rows))
        ),
        tables=tuple(td.Table(f"C{i}", workload.dim, r, combiner="sum") for i, r in enumerate(workload.rows)),
    )


def _adagrad(rate: float) -> keras.optimizers.Optimizer:
    return keras.optimizers.Adagrad(rate, initial_accumulator_value=0.0, epsilon=KERAS_EPSILON)
