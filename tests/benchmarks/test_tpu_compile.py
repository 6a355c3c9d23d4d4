"""What `make verify-tpu` compiles is the train step, with nothing in it that a TPU has not. Needs no libtpu."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import tfrs_dlrm as td
from tfrs_dlrm.training.factory import precision as policy

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
BATCH = 8


@pytest.fixture
def make(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from tpu_compile.dense_half import DenseHalf
    from workloads import WORKLOADS

    return lambda shape, precision: DenseHalf(dataclasses.replace(WORKLOADS[shape], batch=BATCH), precision)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_stablehlo_has_nothing_that_tpus_have_not(make, precision):
    from tpu_compile.dense_half import product_flops

    half = make("criteo_kaggle", precision)
    text = half.stablehlo()
    types = set(re.findall(r"tensor<(?:[0-9?]+x)*([^>x]+)>", text))
    narrow = {"bf16"} if precision == "bfloat16" else set()
    assert types == {"f32", "i1", "i32", "i64"} | narrow  # i64 is the optimizer's count of steps
    assert "tensor<?" not in text and "x?" not in text and "custom_call" not in text
    assert {op.split(".")[0] for op in re.findall(r"= \"?(\w+\.\w+)", text)} <= {"stablehlo", "chlo", "func", "mhlo"}
    assert product_flops(text) == half.flops()
    arguments = re.search(r"func\.func @main\((.*?)\) ->", text)[1]
    sizes = {"f32": 4, "bf16": 2, "i64": 8}
    shapes = re.findall(r"tensor<((?:\d+x)*)(\w+)>", arguments)
    total = sum(sizes[kind] * int(np.prod([int(n) for n in dims.split("x")[:-1]])) for dims, kind in shapes)
    assert 0 <= total - half.argument_bytes() < 16  # the learning rate and the count of steps are not by hand


@pytest.mark.parametrize("precision, tolerance", [("float32", 1e-4), ("bfloat16", 0.25)])
@pytest.mark.slow
def test_compiled_by_xla_it_is_the_train_step(make, precision, tolerance):
    half = make("criteo_kaggle", precision)
    half.model.compile(keras.optimizers.SGD(1.0), metrics=[])  # whose steps are the gradients
    rows = 5
    schema = half.model.schema.with_vocabulary_sizes(dict.fromkeys([t.name for t in half.model.schema.tables], rows))
    with policy(precision):
        whole = td.DLRM(schema, half.workload.bottom, half.workload.top)
        whole.compile(keras.optimizers.SGD(1.0), embedding_optimizer=td.SGD(1.0), metrics=[])
    for ours, theirs in zip(half.model.dense_variables, whole.dense_variables, strict=True):
        ours.assign(theirs)
    rng = np.random.default_rng(0)
    ids = tf.constant(rng.integers(0, rows, [BATCH, 26], dtype=np.int32))
    dense, labels = tf.constant(rng.random([BATCH, 13], np.float32)), tf.constant(rng.random(BATCH) < 0.2)
    labels = tf.cast(labels, tf.float32)  # few 1s, so that the gradient of the last bias is no small difference
    features = {"dense": dense, "ids": ids}
    weights = [v.numpy() for v in whole.dense_variables]
    tables = {name: table.numpy() for name, table in whole.embeddings.tables.items()}
    activations = whole.embeddings.lookup(whole.embeddings.prepare(features))

    loss, upstream = tf.function(half.step, jit_compile=True, autograph=False)(dense, labels, *activations)
    expected = whole.train_step((features, labels))["loss"]

    np.testing.assert_allclose(loss, expected, rtol=tolerance)
    for old, ours, theirs in zip(weights, half.model.dense_variables, whole.dense_variables, strict=True):
        assert distance(ours - old, theirs - old) < tolerance, theirs.name
    for i, (name, table) in enumerate(tables.items()):
        gone = np.zeros_like(table)  # the sum of the gradients of the activations that each row became
        np.add.at(gone, ids.numpy()[:, i], tf.cast(upstream[i], tf.float32).numpy())
        assert distance(gone, table - whole.embeddings.tables[name].numpy()) < tolerance, name


def distance(a, b):
    """Relative to the length of b."""
    length = np.linalg.norm(b)
    assert length > 0
    return np.linalg.norm(a - b) / length
