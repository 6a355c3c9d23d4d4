"""What a TPU's tensor cores do in a train step: all of it but looking up embeddings and updating their tables."""

from __future__ import annotations

import dataclasses
import math
import re

import tensorflow as tf
import tf_keras as keras
from peers.ours import schema
from workloads import Workload

import tfrs_dlrm as td
from tfrs_dlrm.training.factory import precision as policy


class DenseHalf:
    """Bottom MLP, interaction, top MLP, loss, all gradients, and the update of the MLPs by Adam.

    Args:
      workload: its batch is that of one chip; its tables, dimension aside, do not matter.
      precision: `float32` or `bfloat16`, of activations and products; weights are float32.
    """

    def __init__(self, workload: Workload, precision: str):
        self.workload, self.precision = workload, precision
        rows = (1,) * len(workload.rows)
        with policy(precision):
            self.model = td.DLRM(schema(dataclasses.replace(workload, rows=rows)), workload.bottom, workload.top)
            self.model.compile(optimizer=keras.optimizers.Adam(0.001), metrics=[])

    def step(self, dense: tf.Tensor, labels: tf.Tensor, *activations: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Updates the weights; returns the loss and its gradient for each of the activations.

        Args:
          dense: float32 [B, n].
          labels: float32 [B].
          *activations: [B, D] in the compute dtype for each feature: what the tables have for a batch.
        """
        with tf.GradientTape() as tape:
            tape.watch(activations)
            logits = self.model.logits({"dense": dense}, list(activations), training=True)
            total = self.model.task(labels[:, tf.newaxis], logits[:, tf.newaxis], compute_metrics=False)
            loss = total / tf.cast(tf.size(labels), tf.float32)
        variables = self.model.dense_variables
        upstream, gradients = tape.gradient(loss, (list(activations), variables))
        self.model.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return loss, upstream

    def signature(self) -> list[tf.TensorSpec]:
        """Of the arguments of `step`, with the batch of the workload: XLA knows static shapes only."""
        w = self.workload
        activation = tf.TensorSpec([w.batch, w.dim], self.model.compute_dtype)
        return [tf.TensorSpec([w.batch, w.dense]), tf.TensorSpec([w.batch]), *[activation] * len(w.rows)]

    def stablehlo(self) -> str:
        """The step as TensorFlow's XLA bridge lowers it, in StableHLO."""
        function = tf.function(self.step, jit_compile=True, autograph=False)
        text = function.experimental_get_compiler_ir(*self.signature())(stage="stablehlo")
        # The one operation that is not StableHLO, and which only JAX's parser minds: a copy, in front of each result.
        return re.sub(r"mhlo\.copy (%[\w#]+) :", r"stablehlo.optimization_barrier \1 :", text)

    def flops(self) -> int:
        """By hand: of the matrix products, a multiplication and an addition for each term.

        Each layer has three products of B x m x n: forward, gradient of the weights, gradient of the inputs, which the
        bottom MLP's first layer does without; and one with a row of ones, the gradient of its bias. The interaction has
        two of F x F x D for each example: all dot products, each pair's twice, and their gradient.
        """
        w = self.workload
        layers = [*w.layers("bottom"), *w.layers("top")]
        weights, biases = sum(n * m for n, m in layers), sum(w.bottom) + sum(w.top)
        vectors = len(w.rows) + 1
        return 2 * w.batch * (3 * weights - w.dense * w.bottom[0] + biases + 2 * vectors**2 * w.dim)

    def argument_bytes(self) -> int:
        """By hand: of the batch, and of the weights with the two moments that Adam keeps of each."""
        w = self.workload
        weights = sum((n + 1) * m for name in ("bottom", "top") for n, m in w.layers(name))
        activation_bytes = 2 if self.precision == "bfloat16" else 4
        return w.batch * (4 * w.dense + 4 + len(w.rows) * w.dim * activation_bytes) + 3 * 4 * weights


def product_flops(text: str) -> int:
    """Of all matrix products in a StableHLO text: 2 x the numbers of the result x the length of what is summed over."""
    total = 0
    for line in text.splitlines():
        if "stablehlo.dot" in line:
            left, _, result = ([int(n) for n in t.split("x")[:-1]] for t in re.findall(r"tensor<([^>]+)>", line)[-3:])
            contracted = re.search(r"contracting_dims = \[(\d*)\]", line)
            over = left[int(contracted[1])] if contracted else left[-1]
            total += 2 * math.prod(result) * over
    return total
