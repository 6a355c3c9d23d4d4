"""Compares the kernels with TensorFlow's operations on a small step, where they were just built."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfrs_dlrm.embeddings.kernels.kernel_step import KernelStep
from tfrs_dlrm.embeddings.kernels.library import find
from tfrs_dlrm.embeddings.optimizers import RowWiseAdagrad
from tfrs_dlrm.embeddings.table_step import TableStep
from tfrs_dlrm.embeddings.tables import EmbeddingTables
from tfrs_dlrm.schema import CategoricalFeature, Label, Schema, Table

_LARGEST = 1e-6


def try_kernels() -> float:
    """Returns by how much tables and slots differ after two steps on 512 examples with many equal rows.

    Raises:
      RuntimeError: the kernels are not found, or the difference is above 1e-6.
    """
    kernels = find()
    if kernels is None:
        raise RuntimeError("the kernels are not found or switched off; unset TFRS_DLRM_KERNELS and build them again")
    rng = np.random.default_rng(0)
    schema = Schema(
        label=Label("label"),
        categorical=(CategoricalFeature("one"), CategoricalFeature("bag", multi_valued=True)),
        tables=(Table("one", 16, 50), Table("bag", 16, 300)),
    )
    lengths = rng.integers(0, 6, 512)
    bags = tf.RaggedTensor.from_row_lengths(rng.integers(0, 300, lengths.sum()), lengths)
    batch = {"ids": tf.constant(rng.integers(0, 50, [512, 1])), "bag": bags}
    states = []
    for by_kernels in (False, True):
        tables, optimizer = EmbeddingTables(schema), RowWiseAdagrad(0.1)
        tables.compile(optimizer)
        step = KernelStep(tables, optimizer, kernels) if by_kernels else TableStep(tables, optimizer)
        for _ in range(2):
            ids = tables.prepare(batch)
            with tf.GradientTape() as tape:
                found = step.lookup(ids)
                tape.watch(found)
                loss = tf.add_n([tf.reduce_sum(tf.sin(9.0 * v)) for v in step.vectors(found)]) / 512.0
            step.update(ids, tape.gradient(loss, found))
        states.append([*tables.tables.values(), *(s["accumulator"] for s in optimizer.slots.values())])
    difference = max(float(tf.reduce_max(tf.abs(a - b))) for a, b in zip(*states, strict=True))
    if not difference <= _LARGEST:
        raise RuntimeError(
            f"a step by the kernels differs from TensorFlow's by {difference:.1e}, above {_LARGEST:.0e}; remove them by"
            " `tfrs-dlrm kernels --remove`, and report the compiler and the processor"
        )
    return difference
