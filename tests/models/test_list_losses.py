"""Losses of how the rows of groups are ranked, against NumPy, SciPy and scikit-learn, row by row and pair by pair."""

import dataclasses

import numpy as np
import pytest
import small_model
import tensorflow as tf
from scipy.special import log_softmax
from sklearn.metrics import log_loss

import tfrs_dlrm as td
from tfrs_dlrm.models.list_losses import LIST_LOSSES, pairwise_logistic, softmax_cross_entropy

LOSSES = sorted(LIST_LOSSES)


def drawn(rows: int = 60, groups: int = 9, seed: int = 0):
    """Groups in any order, some of them with clicks alone or without any; weights are whole numbers, some of them 0."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, groups, rows) * 2**40 - 2**42
    labels = (rng.random(rows) < 0.4).astype(np.float32)
    labels[ids == ids[0]], labels[ids == ids[1]] = 0, 1
    return ids, labels, rng.normal(size=rows).astype(np.float32) * 3, rng.integers(0, 4, rows).astype(np.float32)


def by_hand(name: str, ids, labels, scores, weights) -> float:
    """The loss of rows that are repeated as often as their weights say, in float64."""
    ids, labels, scores = (np.repeat(x, weights.astype(int)) for x in (ids, labels, scores.astype(np.float64)))
    total = 0.0
    for group in np.unique(ids):
        y, s = labels[ids == group], scores[ids == group]
        if y.min() == y.max():
            continue
        if name == "softmax":
            loss = -log_softmax(s)[y == 1].mean()
        else:
            differences = np.subtract.outer(s[y == 1], s[y == 0]).ravel()
            loss = log_loss(np.ones(len(differences)), 1 / (1 + np.exp(-differences)), labels=[0, 1])
        total += len(y) * loss
    return total


def test_values_by_hand():
    ids, labels = tf.constant([7, 7, 5, 7]), tf.constant([1.0, 0, 1, 0])
    scores = tf.math.log(tf.constant([2.0, 3, 9, 5]))
    # The click is 2 of 10; it is above the others with the probabilities 2/5 and 2/7. The row of 5 is alone.
    assert float(softmax_cross_entropy(ids, labels, scores)) == pytest.approx(-3 * np.log(2 / 10))
    assert float(pairwise_logistic(ids, labels, scores)) == pytest.approx(-3 * (np.log(2 / 5) + np.log(2 / 7)) / 2)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("weighted", [False, True])
def test_equals_numpy(name, weighted):
    ids, labels, scores, weights = drawn()
    weights = weights if weighted else np.ones_like(weights)
    given = tf.constant(scores)
    # By XLA, which knows static shapes alone, as TPUs do.
    loss = tf.function(LIST_LOSSES[name], jit_compile=True)
    with tf.GradientTape() as tape:
        tape.watch(given)
        found = loss(tf.constant(ids), labels, given, weights if weighted else None)
    assert float(found) == pytest.approx(by_hand(name, ids, labels, scores, weights), rel=1e-5)
    step = 1e-4 * np.eye(len(scores))
    slopes = [
        (by_hand(name, ids, labels, scores + d, weights) - by_hand(name, ids, labels, scores - d, weights)) / 2e-4
        for d in step
    ]
    np.testing.assert_allclose(tape.gradient(found, given), slopes, atol=1e-4)


@pytest.mark.parametrize("name", LOSSES)
def test_rows_that_do_not_count(name):
    """Padding changes nothing, wherever it is and whatever its scores, labels and groups are."""
    ids, labels, scores, weights = drawn()
    padded = np.arange(len(ids) + 12) % 6 != 5
    for score in (0.0, 1e30):

        def spread(values, padding, padded=padded):
            out = np.full(len(padded), padding, values.dtype)
            out[padded] = values
            return out

        given = tf.constant(spread(scores, score))
        with tf.GradientTape() as tape:
            tape.watch(given)
            found = LIST_LOSSES[name](spread(ids, ids[3]), spread(labels, 1), given, spread(weights, 0))
        assert float(found) == pytest.approx(float(LIST_LOSSES[name](ids, labels, scores, weights)), rel=1e-5)
        gradient = tape.gradient(found, given).numpy()
        assert np.isfinite(gradient).all() and not gradient[~padded].any() and gradient.any()


@pytest.mark.parametrize("name", LOSSES)
def test_extreme_scores_and_nothing_to_rank(name):
    ids, labels = tf.constant([1, 1, 2], tf.int64), tf.constant([1.0, 0, 1])
    for wrong, expected in (([-3e4, 3e4, 0], 2 * 6e4), ([3e4, -3e4, 0], 0.0)):
        scores = tf.constant(wrong)
        with tf.GradientTape() as tape:
            tape.watch(scores)
            loss = LIST_LOSSES[name](ids, labels, scores)
        assert float(loss) == pytest.approx(expected)
        assert np.isfinite(tape.gradient(loss, scores)).all()
    nothing = tf.zeros([0])
    assert float(LIST_LOSSES[name](tf.zeros([0], tf.int64), nothing, nothing)) == 0


# ---- models ----------------------------------------------------------------------------------------------------------


def with_groups(steps: int, rows: int = 4) -> tf.data.Dataset:
    """The batches of `small_model.data`, in groups of so many rows, which are neighbours."""
    numbers = np.arange(steps * 24) // rows
    groups = tf.data.Dataset.from_tensor_slices(numbers).batch(24)
    batches = tf.data.Dataset.zip((small_model.data(steps), groups))
    return batches.map(lambda batch, ids: (batch[0] | {"group": ids}, batch[1]))


SCHEMA = dataclasses.replace(small_model.SCHEMA, group="query")


def made(schema: td.Schema = SCHEMA, **arguments) -> td.DLRM:
    model = td.DLRM(schema, (8, 4), (8, 1), **arguments)
    model.compile("sgd", td.RowWiseAdagrad(0.1), metrics=[])
    return model


@pytest.mark.parametrize(("name", "weight"), [("softmax", 1.0), ("pairwise_logistic", 0.25)])
def test_training_mixes_the_losses_and_evaluation_is_by_the_log_loss(name, weight):
    model = made(list_loss=name, list_loss_weight=weight)
    features, labels = next(iter(with_groups(1)))
    scores, ones = model.logits(features).numpy(), np.ones(24)
    of_rows = log_loss(labels, 1 / (1 + np.exp(-scores.astype(np.float64))))
    of_groups = by_hand(name, features["group"].numpy(), labels.numpy(), scores, ones) / 24
    assert model.evaluate(small_model.data(1), verbose=0)[0] == pytest.approx(of_rows, rel=1e-5)
    found = model.fit(with_groups(1), verbose=0).history["loss"]
    assert found == [pytest.approx((1 - weight) * of_rows + weight * of_groups, rel=1e-5)]


def test_several_replicas_train_as_one_device():
    strategy = td.make_strategy("mirrored", 2)
    models = [made(list_loss="softmax")]
    with strategy.scope():
        models.append(made(list_loss="softmax"))
    for model in models:
        # Each replica has three of the six groups of a batch.
        model.fit(with_groups(3), verbose=0)
    one, two = map(small_model.everything, models)
    for name in one:
        np.testing.assert_allclose(one[name], two[name], rtol=1e-4, atol=1e-6, err_msg=name)


def test_what_list_losses_need():
    with pytest.raises(ValueError, match=r"list_loss='ndcg': choose none, softmax, pairwise_logistic"):
        made(list_loss="ndcg")
    with pytest.raises(ValueError, match=r"list_loss_weight=0: a number above 0 and at most 1 is needed"):
        made(list_loss="softmax", list_loss_weight=0)
    with pytest.raises(ValueError, match=r"list_loss='softmax': the schema has no group; name the column"):
        made(small_model.SCHEMA, list_loss="softmax")
    schema = dataclasses.replace(SCHEMA, label=td.Label("y", task="regression"))
    with pytest.raises(ValueError, match=r"list_loss='softmax' ranks rows of label 1 above those of label 0, and lab"):
        made(schema, list_loss="softmax")
    with pytest.raises(
        ValueError, match=r"the list loss needs features\['group'\], int64 \[B\], .*; found 'dense', 'i"
    ):
        made(list_loss="softmax").fit(small_model.data(1), verbose=0)
    named = with_groups(1).map(lambda x, y: (x | {"group": tf.strings.as_string(x["group"])}, y))
    with pytest.raises(ValueError, match=r"features\['group'\] of dtype string; whole numbers are needed, .*factorize"):
        made(list_loss="softmax").fit(named, verbose=0)
