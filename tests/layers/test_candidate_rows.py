"""Rows whose columns of the context are stored once, against the matrix of all rows in NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from tfrs_dlrm.layers import MLP, CompressedInteraction, DotInteraction, FeatureGate
from tfrs_dlrm.layers.candidate_rows import CandidateRows, SplitKernels, apply, concatenate, stack, summed

COUNT = 3  # candidates of each of two contexts


def numbers(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def rows_of(context, candidate, order):
    return CandidateRows(tf.constant(context), tf.constant(candidate), np.array(order), COUNT, SplitKernels())


def close(found, expected, rtol=1e-5, atol=1e-6):
    np.testing.assert_allclose(tf.convert_to_tensor(found), expected, rtol=rtol, atol=atol)


def same(found, expected):
    close(found, expected, 0, 0)


def mixed(*inner):
    """Six rows of 5 columns, of which those at 0, 3 and 4 are the candidate's; and the matrix of them."""
    context, candidate = numbers(2, 2, *inner), numbers(6, 3, *inner)
    order = [2, 0, 1, 4, 3]
    matrix = np.concatenate([np.repeat(context, COUNT, axis=0), candidate], axis=1)[:, order]
    return rows_of(context, candidate, order), matrix


def test_by_hand():
    rows = rows_of([[1.0], [2.0]], [[10.0], [20.0], [30.0], [40.0], [50.0], [60.0]], [1, 0])
    assert tf.convert_to_tensor(rows).numpy().tolist() == [[10, 1], [20, 1], [30, 1], [40, 2], [50, 2], [60, 2]]
    assert rows.times(tf.Variable([[1.0], [100.0]])).numpy().ravel().tolist() == [110, 120, 130, 240, 250, 260]
    assert rows.shape.as_list() == [None, 2]
    with pytest.raises(TypeError, match="rows of float32 are taken for int32; cast them first"):
        tf.convert_to_tensor(rows, tf.int32)


def test_is_the_matrix_for_operations_of_tensorflow():
    rows, matrix = mixed()
    same(tf.sigmoid(rows), tf.sigmoid(matrix))
    same(rows * matrix + rows, matrix * matrix + matrix)
    same(tf.concat([rows, matrix], axis=1), np.concatenate([matrix, matrix], axis=1))
    same(rows[:, 1:3], matrix[:, 1:3])


def test_columns_keep_their_places():
    (flat, matrix), (vectors, cube) = mixed(), mixed(4)
    close(summed(vectors), cube.sum(axis=1))
    same(vectors[:, :, 1:], cube[:, :, 1:])
    same(vectors.flattened(), cube.reshape(6, -1))
    for part in (slice(1, 4), slice(1, 3), slice(3, 5)):  # columns of both kinds, and of one
        same(flat[:, part], matrix[:, part])
        same(vectors[:, part, 1:], cube[:, part, 1:])
    same(flat[:, :0], matrix[:, :0])
    assert flat[:, 1:3].same_for_all and isinstance(flat[:, 3:5], tf.Tensor)
    weights = numbers(5)
    close(apply(lambda x, w: x * w, flat, tf.constant(weights)), matrix * weights)
    own = numbers(6, 2)
    joined = concatenate([tf.constant(own), flat, vectors.flattened()])
    assert isinstance(joined, CandidateRows) and joined.context.shape == [2, 2 + 8]
    same(joined, np.concatenate([own, matrix, cube.reshape(6, -1)], axis=1))


def test_stacks_vectors():
    once, own = numbers(2, 4), [numbers(6, 4), numbers(6, 4) + 1]
    shared = CandidateRows(tf.constant(once), None, np.arange(4), COUNT, SplitKernels())
    found = stack([tf.constant(own[0]), shared, tf.constant(own[1])])
    assert found.context.shape == [2, 1, 4]
    same(found, np.stack([own[0], np.repeat(once, COUNT, axis=0), own[1]], axis=1))


@pytest.mark.parametrize(
    ("layer", "inner"),
    [
        (MLP((4, 2), seed=1), ()),
        (MLP((4,), use_bias=False, seed=1), ()),
        (DotInteraction(), (4,)),
        (DotInteraction(self_interaction=True), (4,)),
        (CompressedInteraction((3, 2), seed=1), (4,)),
        (FeatureGate(), ()),
    ],
)
def test_layers_compute_the_same_for_all_rows(layer, inner):
    rows, matrix = mixed(*inner)
    expected = layer(matrix).numpy()
    if isinstance(layer, FeatureGate):  # which begins with gates of 1
        layer.logits.assign(numbers(5))
        expected = layer(matrix).numpy()
    close(layer(rows), expected)
    close(tf.function(lambda: tf.convert_to_tensor(layer(rows)))(), expected)


def test_layers_over_contexts_alone_compute_once():
    once = numbers(2, 4)
    shared = CandidateRows(tf.constant(once), None, np.arange(4), COUNT, SplitKernels())
    mlp = MLP((3, 5), batch_norm=True, seed=1)
    expected = mlp(once).numpy()
    found = mlp(shared)
    assert found.same_for_all and found.context.shape == [2, 5]
    close(found, np.repeat(expected, COUNT, axis=0))
    rows, matrix = mixed()
    gate = FeatureGate((3,), seed=1)
    gated = gate([matrix, np.repeat(once, COUNT, axis=0)]).numpy()
    assert isinstance(gate([rows, shared]), CandidateRows)
    close(gate([rows, shared]), gated)


def test_a_kernel_is_split_once():
    rows, _ = mixed()
    kernel = tf.Variable(numbers(5, 2))
    rows.times(kernel)
    first = list(rows.kernels.variables)
    tf.function(lambda: rows.times(kernel))()
    assert [v.shape.as_list() for v in rows.kernels.variables] == [[2, 2], [3, 2]]
    assert all(a is b for a, b in zip(first, rows.kernels.variables, strict=True))
