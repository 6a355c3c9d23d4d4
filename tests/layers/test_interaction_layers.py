"""The layers of later models; tests/models/test_family.py compares them with NumPy inside of their models."""

import numpy as np
import pytest
import tensorflow as tf
from layer_checks import check_layer

from tfrs_dlrm.layers import (
    MLP,
    BilinearFusion,
    CompressedInteraction,
    CustomizedGateControl,
    FactorizedInteraction,
    FactorizedMLP,
    FeatureGate,
    FieldAttention,
    GatedCrossNetwork,
    Gates,
    LayerNorm,
    MaskBlock,
    MixtureOfExperts,
    ParallelMLPs,
    ProgressiveExtraction,
    TaskTowers,
)

RNG = np.random.default_rng(0)
X, Y, VECTORS = (tf.constant(RNG.normal(size=(5, *n)), tf.float32) for n in ((4,), (6,), (3, 2)))


LAYERS = pytest.mark.parametrize(
    "layer, inputs",
    [
        (GatedCrossNetwork(2, seed=4), X),
        (FeatureGate((3,), seed=4), [X, Y]),
        (FeatureGate(), X),
        (BilinearFusion(3, heads=2, seed=4), [X, Y]),
        (LayerNorm(), VECTORS),
        (MaskBlock(3, seed=4, dropout=0.5), [Y, X]),
        (FieldAttention(2, 3, seed=4), VECTORS),
        (CompressedInteraction((3, 2), seed=4), VECTORS),
        (FactorizedInteraction(3, "relu", seed=4), X),
        (FactorizedMLP((3, 2), "tanh", batch_norm=True, seed=4), X),
        (ParallelMLPs(2, (5, 3), "tanh", batch_norm=True, dropout=0.5, seed=4), X),
        (ParallelMLPs(3, (4,), final_bias=range(12), seed=4), VECTORS),
        (MixtureOfExperts((5, 3), 4, 3, seed=4), X),
        (MixtureOfExperts((5,), 2, 2, seed=4, dropout=0.5, batch_norm=True), X),
        (CustomizedGateControl((4, 3), 2, 1, tasks=2, last=False, seed=4), VECTORS),
        (ProgressiveExtraction((5, 4), 1, 3, seed=4), X),
        (TaskTowers(MixtureOfExperts((5,), seed=4), (3, 1), [0.5, -1], 4), X),
        (FactorizedMLP((3, 2), use_bias=False, seed=4), X),
        (MLP((3,), dropout=0.5, batch_norm=True, all_hidden=True, seed=4), X),
        (FactorizedMLP((3,), batch_norm=True, all_hidden=True, seed=4), X),
    ],
)


@LAYERS
def test_layer_checks(layer, inputs, tmp_path):
    check_layer(layer, inputs, tmp_path, files=False)  # the models are saved in every format


@pytest.mark.parametrize("inputs", [X, VECTORS], ids=["of one input", "of an input for each"])
def test_layer_checks_of_gates(inputs, tmp_path):
    gates = Gates(3, 2, seed=4)
    check_layer(gates, inputs, tmp_path, files=False)
    np.testing.assert_allclose(tf.reduce_sum(gates(inputs), axis=2), np.ones([5, 3]), rtol=1e-6)


@LAYERS
def test_gradients_in_bfloat16_are_those_of_float32(layer, inputs):
    """Summed over a batch of 8200 in bfloat16, a gradient would be off by more than half."""
    many = tf.nest.map_structure(lambda x: tf.tile(tf.abs(x), [1640] + [1] * (x.shape.rank - 1)), inputs)
    gradients, weights = [], None
    for policy in ("float32", "mixed_bfloat16"):
        made = type(layer).from_config(layer.get_config() | {"dtype": policy})
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.cast(made(many), tf.float32))
        weights = weights or made.get_weights()
        for w, value in zip(made.get_weights(), weights, strict=True):
            np.testing.assert_array_equal(w, value)
        gradients.append(tape.gradient(loss, made.trainable_variables))
    for exact, half in zip(*gradients, strict=True):
        np.testing.assert_allclose(half, exact, rtol=0.15, atol=0.15 * float(tf.reduce_max(tf.abs(exact))))


def test_gates_by_hand():
    network = GatedCrossNetwork(1)
    network.build([None, 2])
    network.set_weights([np.array([[1.0, 0.0], [2.0, 1.0]]), np.array([0.0, -1.0]), np.array([[0.0, 99], [0, 99]])])
    # [3, 4] * ([3, 4] W + [0, -1]) * [1/2, 1] + [3, 4] = [3, 4] * [11, 3] * [1/2, 1] + [3, 4].
    np.testing.assert_allclose(network(tf.constant([[3.0, 4.0]])), [[19.5, 16.0]])
    np.testing.assert_array_equal(FeatureGate()(X), X)  # at first


def test_fusion_by_hand():
    fusion = BilinearFusion(1, heads=2)
    fusion.build([[None, 4], [None, 2]])
    fusion.set_weights([np.array([[[[1.0]], [[2.0]]], [[[3.0]], [[4.0]]]])])
    # (1 * 1 + 2 * 2) * 10 + (3 * 3 + 4 * 4) * 100
    np.testing.assert_allclose(fusion([tf.constant([[1.0, 2, 3, 4]]), tf.constant([[10.0, 100]])]), [[2550.0]])


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: MaskBlock(1, 0.0), "reduction=0.0; a positive ratio"),
        (lambda: CompressedInteraction(()), r"maps=\[\]; at least one layer"),
        (lambda: ParallelMLPs(2, ()), r"units=\[\]; at least one layer"),
        (lambda: ParallelMLPs(2, (3,), final_bias=[1.0]), r"final_bias=\[1.0\]: 2 MLPs have 6 outputs"),
        (lambda: TaskTowers(MixtureOfExperts((3,)), (3, 2), [0.0, 0.0]), r"tower_mlp=\[3, 2\] must end in 1"),
        (lambda: BilinearFusion(1, 3)([X, Y]), r"heads=3 does not divide the widths \[4, 6\]; choose a divisor"),
    ],
)
def test_refuses(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_no_bias_in_any_layer():
    layer = FactorizedMLP((3, 2), use_bias=False)
    layer(X)
    assert [tuple(w.shape) for w in layer.weights] == [(4, 3), (4, 3), (3, 2)]


def test_mask_blocks_drop_outputs_in_training():
    plain, block = MaskBlock(64, seed=4), MaskBlock(64, seed=4, dropout=0.5)
    expected, found = plain([Y, X]).numpy(), block([Y, X], training=True).numpy()
    np.testing.assert_array_equal(block([Y, X]), expected)
    kept = found > 0
    np.testing.assert_allclose(found[kept], 2 * expected[kept], rtol=1e-6)
    assert 0.3 < kept.sum() / (expected > 0).sum() < 0.7


def test_experts_of_one_layer_drop_outputs_and_normalize_in_training():
    plain, dropped = ParallelMLPs(2, (64,), all_hidden=True, seed=4), MixtureOfExperts((64,), 2, seed=4, dropout=0.5)
    experts = ParallelMLPs(2, (64,), all_hidden=True, dropout=0.5, seed=4)
    expected, found = plain(X).numpy(), experts(X, training=True).numpy()
    kept = found > 0
    np.testing.assert_allclose(found[kept], 2 * expected[kept], rtol=1e-5)
    assert 0.3 < kept.sum() / (expected > 0).sum() < 0.7
    assert np.any(dropped(X, training=True).numpy() != dropped(X).numpy())
    normalized = MixtureOfExperts((64,), 2, seed=4, batch_norm=True)
    normalized(X)
    assert len(normalized.experts.batch_norms) == 1
