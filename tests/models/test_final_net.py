"""The two blocks of FinalNet, which learn from their mean, in NumPy."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from family import SCHEMA, batch
from numpy_models import numpy_factorized, rows_of_tables, sigmoid

import tfrs_dlrm as td
from tfrs_dlrm.schema import Label


def made(**label):
    schema = dataclasses.replace(SCHEMA, label=Label("y", **label), more_labels=(Label("z", loss_weight=0.5),))
    model = td.FinalNet(schema, top_mlp=(6, 5, 1), second_mlp=(4,), seed=3)
    model.compile(metrics=[])
    rng = np.random.default_rng(1)
    for v in model.trainable_variables:
        v.assign(rng.normal(0, 0.4, v.shape))
    return model


def outputs(model):
    """The outputs of both blocks, [B, 2] each."""
    x = np.concatenate([*rows_of_tables(model, batch()), batch()["dense"].numpy()], axis=1)
    blocks = [numpy_outputs(mlp, x) for mlp in (model.top_mlp, model.second_block)]
    return blocks[0], blocks[1] + model.output_bias.numpy()


def numpy_outputs(mlp, x):
    """All outputs of an MLP; `numpy_factorized` gives the first one."""
    last = mlp.dense_layers[-1]
    found = []
    for i in range(mlp.units[-1]):
        order = [i, *(j for j in range(mlp.units[-1]) if j != i)]
        kernel, bias = last.kernel.numpy(), last.bias.numpy()
        last.kernel.assign(kernel[:, order]), last.bias.assign(bias[order])
        found.append(numpy_factorized(mlp, x))
        last.kernel.assign(kernel), last.bias.assign(bias)
    return np.stack(found, axis=1)


def log_loss(p, z):
    return -p * np.log(sigmoid(z)) - (1 - p) * np.log(1 - sigmoid(z))


LABELS = np.array([[1, 0], [0, 0], [1, 1], [0, 1], [1, 0], [0, 1]], np.float32)


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_the_loss_is_of_the_labels_and_of_the_mean(task):
    model = made(task=task)
    z1, z2 = outputs(model)
    mean = (z1 + z2) / 2
    np.testing.assert_allclose(model.logits(batch()), mean, rtol=1e-4, atol=1e-5)
    losses = log_loss(LABELS, mean) + log_loss(sigmoid(mean), z1) + log_loss(sigmoid(mean), z2)
    if task == "regression":
        losses[:, 0] = ((LABELS - mean) ** 2 + (z1 - mean) ** 2 + (z2 - mean) ** 2)[:, 0]
    expected = np.mean(losses[:, 0] + 0.5 * losses[:, 1])
    np.testing.assert_allclose(model.compute_loss((batch(), LABELS), training=True), expected, rtol=1e-4)
    alone = log_loss(LABELS, mean)
    alone[:, 0] = (LABELS - mean)[:, 0] ** 2 if task == "regression" else alone[:, 0]
    evaluated = model.compute_loss((batch(), LABELS), training=False)
    np.testing.assert_allclose(evaluated, np.mean(alone[:, 0] + 0.5 * alone[:, 1]), rtol=1e-4)


def test_what_both_predict_is_taken_as_given():
    model = made()
    z1, z2 = outputs(model)
    p, p1, p2 = sigmoid((z1 + z2) / 2), sigmoid(z1), sigmoid(z2)
    with tf.GradientTape() as tape:
        loss = model.compute_loss((batch(), LABELS), training=True)
    biases = [mlp.dense_layers[-1].bias for mlp in (model.top_mlp, model.second_block)]
    first, second = tape.gradient(loss, biases)
    weights = np.array([1, 0.5])
    of_second = ((p - LABELS) / 2 + (p2 - p)) * weights
    np.testing.assert_allclose(second, of_second.mean(axis=0), atol=1e-5)
    # The bias of the first block is that of both.
    of_first = ((p - LABELS) / 2 + (p1 - p)) * weights
    np.testing.assert_allclose(first, (of_first + of_second).mean(axis=0), atol=1e-5)


def test_the_output_bias_moves_the_mean():
    model = made()
    before = model.logits(batch()).numpy()
    model.output_bias.assign_add([0.5, -0.25])
    np.testing.assert_allclose(model.logits(batch()), before + [0.5, -0.25], atol=1e-5)


def test_refuses_xla_of_the_logits_alone():
    model = td.FinalNet(SCHEMA, top_mlp=(1,), second_mlp=(4,))
    with pytest.raises(ValueError, match=r"jit_compile=True: .*a further loss; .* choose second_mlp=\(\)"):
        model.compile(jit_compile=True)
