"""A label that comes after another: purchases after clicks, learned from all rows (ESMM)."""

import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
import tensorflow_recommenders as tfrs
import tf_keras as keras

import tfrs_dlrm as td
from tfrs_dlrm.metrics.calibrators import Curve
from tfrs_dlrm.models.calibration import Calibration
from tfrs_dlrm.models.label_losses import LabelLosses
from tfrs_dlrm.models.label_tasks import Tasks
from tfrs_dlrm.models.missing_labels import weights_of_known
from tfrs_dlrm.serving.bundle.manifest import read_manifest
from tfrs_dlrm.serving.exporting.export import ExportOptions
from tfrs_dlrm.serving.exporting.serving_model import ServingModel
from tfrs_dlrm.serving.verification.verify import verify
from tfrs_dlrm.training.centering import center
from tfrs_dlrm.training.evaluation import Scores, score

OUTPUTS = ["probability", "probability_cart", "probability_bought", "probability_cart_rate", "probability_bought_rate"]
LABELS = (td.Label("in_cart", name="cart", after="clicked"), td.Label("bought", after="cart", loss_weight=2.0))


def schema(more=LABELS, **label):
    return td.Schema(
        td.Label("clicked", **label),
        categorical=(td.CategoricalFeature("user"), td.CategoricalFeature("item")),
        tables=(td.Table("user", 4), td.Table("item", 4)),
        more_labels=more,
    )


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.fixture(scope="module")
def log():
    """What follows is known of the rows where the label before it is 1, and of some of those."""
    rng = np.random.default_rng(0)
    users, items = rng.integers(0, 20, 6000), rng.integers(0, 15, 6000)
    clicked = rng.random(6000) < sigmoid(items / 5 - 2)
    cart = clicked & (rng.random(6000) < sigmoid(users / 5 - 2))
    bought = cart & (rng.random(6000) < 0.4)
    frame = pd.DataFrame({"user": users, "item": items, "clicked": clicked * 1})
    missing = rng.random(6000) < 0.1
    return frame.assign(
        in_cart=np.where(~clicked, np.nan, cart), bought=np.where(cart & ~missing, bought * 1.0, np.nan)
    )


@pytest.fixture(scope="module")
def data(log, tmp_path_factory):
    path = str(tmp_path_factory.mktemp("after") / "data")
    td.prepare(schema(), log, path, eval_fraction=0.25)
    return path


@pytest.fixture(scope="module")
def model(data):
    found = td.EmbeddingMLP(td.Schema.load(f"{data}/schema.json"), (8, 1), seed=1)
    found.compile(keras.optimizers.Adam(0.01), td.LazyAdam(0.01))
    found.fit(td.dataset(data, 256), epochs=2, verbose=0)
    return found


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ((td.Label("a", after="click"),), "label 'a': after='click' is no label that stands before it; did you mean"),
        ((td.Label("a", after="b"), td.Label("b")), r"the labels before it are \['clicked'\]"),
        ((td.Label("a", after="a"),), "label 'a': after='a' is no label that stands before it"),
        ((td.Label("a", after="clicked", task="regression"),), "label 'a': after='clicked': both have to be 0 or 1"),
        ((td.Label("a", after="clicked"), td.Label("a_rate")), "label 'a_rate' is listed 2 times"),
    ],
)
def test_what_a_label_cannot_come_after_is_refused(more, message):
    with pytest.raises(ValueError, match=message):
        schema(more)
    with pytest.raises(ValueError, match="label 'clicked': after='a': the first label comes after none"):
        schema((td.Label("a"),), after="a")
    assert td.Schema.from_json(schema().to_json()) == schema()


def test_rows_without_the_earlier_label_have_the_later_one_as_zero(data, log, tmp_path):
    found = pd.concat([pq.read_table(f"{data}/{split}").to_pandas() for split in ("train", "eval")])
    cart = log["in_cart"].fillna(0)
    bought = np.where(cart == 0, 0, log["bought"])
    expected = np.stack([log["clicked"], cart, bought], axis=1).astype(np.float32)
    rows = found[["label", "label/cart", "label/bought"]].to_numpy()

    def counts(values):
        return np.unique(np.nan_to_num(values, nan=-1), axis=0, return_counts=True)

    for a, b in zip(counts(rows), counts(expected), strict=True):
        np.testing.assert_array_equal(a, b)
    assert 0 < np.isnan(rows[:, 2]).mean() < 0.1
    lines = ["clicked,in_cart,bought,user,item", "0,1,,u,i", "1,0,1,u,i", "1,1,1,u,i", "0,,0,u,i", "0,0,1,u,i"]
    (tmp_path / "log.csv").write_text("\n".join(lines) + "\n")
    td.prepare(schema(), [str(tmp_path / "log.csv")], str(tmp_path / "out"), bad_rows="quarantine")
    bad = [json.loads(line) for line in (tmp_path / "out/quarantine.jsonl").read_text().splitlines()]
    assert [(b["row"], b["column"], b["reason"]) for b in bad] == [
        (2, "in_cart", "1, and clicked is 0; correct the log, or leave out after"),
        (3, "bought", "1, and cart is 0; correct the log, or leave out after"),
        (6, "bought", "1, and cart is 0; correct the log, or leave out after"),
    ]


def test_scores_are_logits_of_products(model):
    """To 1e-5 of float64, also where a probability or its complement rounds to 0 in float32."""
    rng = np.random.default_rng(1)
    outputs = np.concatenate([rng.normal(0, 3, (50, 3)), rng.normal(0, 60, (50, 3))])
    outputs[0] = 0
    tensor = tf.constant(outputs, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(tensor)
        scores = model.label_tasks.scores(tensor)
    log_p = np.cumsum(-np.logaddexp(0, -outputs), axis=1)
    # log(1 - p) by the probability that the first, or else the second, or else the third fails
    fails = -np.logaddexp(0, outputs)
    log_q = np.stack(
        [np.logaddexp.reduce(np.c_[fails[:, 0], log_p[:, :i] + fails[:, 1 : i + 1]], axis=1) for i in range(3)], axis=1
    )
    np.testing.assert_allclose(scores, log_p - log_q, rtol=1e-5, atol=1e-5)
    slopes = tape.gradient(scores, tensor).numpy()
    expected = np.sum(np.exp(fails[:, None, :] - log_q[:, :, None]) * np.tri(3), axis=1)
    np.testing.assert_allclose(slopes, expected, rtol=1e-4, atol=1e-5)
    assert model.label_tasks.scores(tf.zeros([1, 3]))[0, 1].numpy() == pytest.approx(-np.log(3))


def test_models_begin_and_are_centered_at_the_shares_of_all_rows(data, log):
    labels = pq.read_table(f"{data}/train").to_pandas()[["label", "label/cart", "label/bought"]].to_numpy()
    known, in_cart = np.isfinite(labels[:, 2]), labels[:, 1] == 1
    rates = [labels[:, 0].mean(), labels[labels[:, 0] == 1, 1].mean(), labels[in_cart & known, 2].mean()]
    means = np.cumprod(np.float64(rates))
    fresh = td.EmbeddingMLP(td.Schema.load(f"{data}/schema.json"), (8, 1), seed=1)
    fresh.build()
    begins = fresh.output_bias.numpy()
    np.testing.assert_allclose(sigmoid(begins), rates, rtol=1e-5)
    fresh.output_bias.assign_add([0.8, -0.5, 1.0])
    center(fresh, data, 100_000, 700, 0)
    scores = np.concatenate([fresh.logits(x) for x, _ in td.dataset(data, 500, shuffle=False)]).astype(np.float64)
    # Known rows with a full cart stand for all of these.
    weights = np.where(in_cart, known * in_cart.sum() / (in_cart & known).sum(), 1)
    bought = np.average(sigmoid(scores[:, 2]), weights=weights)
    found = [sigmoid(scores[:, 0]).mean(), sigmoid(scores[:, 1]).mean(), bought]
    np.testing.assert_allclose(found, means, rtol=1e-5)
    moved = fresh.output_bias.numpy()
    center(fresh, data, 100_000, 700, 0)
    np.testing.assert_allclose(fresh.output_bias, moved, atol=2e-5)


def test_labels_that_are_missing_where_the_earlier_one_is_zero_count(data):
    """Arrays of one's own may have NaN there. Without that, a model would learn the rate of clicked rows."""
    features, labels = next(iter(td.dataset(data, 512, shuffle=False)))
    given = labels.numpy()
    given[given[:, 0] == 0, 1:] = np.nan
    losses = []
    for y in (labels, given):
        fresh = td.EmbeddingMLP(td.Schema.load(f"{data}/schema.json"), (8, 1), seed=1)
        fresh.compile(keras.optimizers.SGD(0.1))
        losses.append(fresh.train_on_batch(features, y, return_dict=True)["loss"])
    assert losses[0] == losses[1]


def test_calibration_keeps_the_rates_of_later_labels(data, model, tmp_path):
    """In the model and in a bundle: a line through the logit of clicks, or of the label between two others."""
    features, _ = next(iter(td.dataset(data, 64, split="eval", shuffle=False)))
    tasks = model.label_tasks
    plain = {k: v.numpy() for k, v in tasks.named(model(features)).items()}
    for label, name in enumerate(("probability", "probability_cart")):
        found = td.EmbeddingMLP.from_config(
            model.get_config() | {"calibration": Calibration("platt", (Curve((0.0,), (-1.5,), (1.0,)),), label)}
        )
        found.build()
        found.set_weights(model.get_weights())
        answers = {k: v.numpy() for k, v in tasks.named(found(features)).items()}
        odds = np.exp(-1.5) * plain[name] / (1 - plain[name])
        np.testing.assert_allclose(answers[name], odds / (1 + odds), rtol=1e-5)
        rate = plain["probability_bought"] / plain["probability_cart"]
        np.testing.assert_allclose(answers["probability_bought_rate"], rate, rtol=1e-5)
        if label == 0:
            np.testing.assert_allclose(answers["probability_cart_rate"], plain["probability_cart_rate"], rtol=1e-5)
        serving = ServingModel(found, td.Encoder.load(data))
        served = serving.score_encoded(serving.padded(features))
        for k, v in answers.items():
            np.testing.assert_allclose(tasks.named(served)[k], v, rtol=1e-5)


def test_rates_are_served_and_verified(data, model, tmp_path):
    path, comparison = td.export_model(
        model, data, str(tmp_path / "m"), ExportOptions(context=("user",), storage="int8")
    )
    manifest = read_manifest(path)
    assert list(comparison.tolerances) == OUTPUTS and list(manifest.more_outputs) == OUTPUTS[1:]
    assert verify(path, data, latency=False).passed
    signatures = tf.saved_model.load(path).signatures
    raw = {"user": tf.constant([[3]], tf.int64), "item": tf.constant([[1, 2, 3]], tf.int64)}
    raw = {
        k: tf.strings.as_string(v) if signatures["rank"].structured_input_signature[1][k].dtype == tf.string else v
        for k, v in raw.items()
    }
    answers = {k: v.numpy() for k, v in signatures["rank"](**(raw | {"user": raw["user"][0]})).items()}
    np.testing.assert_allclose(answers["scores_cart_rate"], answers["scores_cart"] / answers["scores"], rtol=1e-5)
    np.testing.assert_allclose(
        answers["scores_bought_rate"], answers["scores_bought"] / answers["scores_cart"], rtol=1e-5
    )
    assert (answers["scores_cart"] < answers["scores"]).all()


def test_the_product_is_what_evaluation_measures(data, model):
    scores = score(model, td.dataset(data, 700, split="eval", shuffle=False, drop_remainder=False))
    labels = pq.read_table(f"{data}/eval").to_pandas()
    np.testing.assert_array_equal(scores.more["cart"].labels, labels["label/cart"])
    assert scores.metrics()["prediction_mean_cart"] == pytest.approx(labels["label/cart"].mean(), rel=0.2)


class _Shares(td.RankingModel):
    """Predicts a number per value of the dense feature, 0 or 1, and label."""

    def __init__(self, schema, **kwargs):
        super().__init__(schema, **kwargs)
        self.outputs = self.add_weight("outputs", [2, len(schema.labels)], initializer="zeros")

    def compute_logits(self, dense, embeddings, training):
        return tf.gather(self.outputs, tf.cast(dense[:, 0], tf.int32)) + 0.0 * embeddings[0][:, :1]


def missing_log():
    """Returns x and labels: a third of the clicks lack the cart; half of the carts the purchase, more where x is 1."""
    rng = np.random.default_rng(3)
    x = rng.integers(0, 2, 6000)
    clicked = rng.random(6000) < np.where(x, 0.3, 0.6)
    cart = np.where(clicked, rng.random(6000) < np.where(x, 0.8, 0.5), 0.0)
    cart[clicked & (rng.random(6000) < 0.33)] = np.nan
    bought = np.where(cart == 0, 0.0, rng.random(6000) < np.where(x, 0.3, 0.6))
    bought[np.isnan(cart) | ((cart == 1) & (rng.random(6000) < np.where(x, 0.8, 0.3)))] = np.nan
    return x, np.stack([clicked, cart, bought], axis=1).astype(np.float32)


def known_rates(labels):
    """Returns the mean of each label among rows with a 1 of the label before it, where it is known."""
    clicked, cart = labels[:, 0] == 1, labels[:, 1] == 1
    return [clicked.mean(), np.nanmean(labels[clicked, 1]), np.nanmean(labels[cart, 2])]


@pytest.mark.parametrize("loss_weights", ["fixed", "uncertainty"])
def test_rates_are_those_of_known_rows_where_labels_are_missing(loss_weights):
    """The optimum, by the counts of each feature value, which lack labels unequally often."""
    x, labels = missing_log()
    made = td.Schema(
        td.Label("clicked"),
        (td.DenseFeature("x"),),
        (td.CategoricalFeature("u"),),
        (td.Table("u", 1, 2),),
        more_labels=LABELS,
    )
    model = _Shares(made, loss_weights=loss_weights)
    model.compile(keras.optimizers.Adam(0.1), td.SGD(0.0))
    features = {"dense": tf.constant(x[:, None], tf.float32), "ids": tf.zeros([6000, 1], tf.int32)}
    model.fit(tf.data.Dataset.from_tensors((features, labels)).repeat(), steps_per_epoch=400, verbose=0)
    expected = [known_rates(labels[x == value]) for value in (0, 1)]
    np.testing.assert_allclose(sigmoid(model.outputs.numpy()), expected, rtol=2e-3)


def test_metrics_let_known_rows_stand_for_those_that_lack_the_label():
    """Weights by hand, and the mean label that evaluation and the metrics of `fit` are of."""
    labels = np.array(
        [[0, 0, 0], [1, 0, 0], [1, np.nan, np.nan], [1, 1, np.nan], [1, 1, 1], [1, np.nan, np.nan]], np.float32
    )
    found = weights_of_known(tf.constant(labels), tf.constant([1.0, 1, 2, 1, 1, 1]), (None, 0, 1))
    # Clicked rows weigh 6, of which 3 have the second label; then full carts weigh 4, of which 2 have the third.
    wanted = [[1, 1, 1], [1, 2, 2], [2, 0, 0], [1, 2, 0], [1, 2, 4], [1, 0, 0]]
    np.testing.assert_allclose(found, wanted)
    _, labels = missing_log()
    means = np.cumprod(known_rates(labels))
    tasks = Tasks(schema())
    logits = np.tile(np.log(means / (1 - means)).astype(np.float32), (6000, 1))
    for weights in (None, np.full(6000, 0.5, np.float32)):
        metrics = Scores.of(tasks, labels, logits, weights).metrics()
        for name, mean in zip(("", "_cart", "_bought"), means, strict=True):
            assert metrics[f"label_mean{name}"] == pytest.approx(mean, rel=1e-5)
            assert metrics[f"calibration{name}"] == pytest.approx(1, rel=1e-5)
    losses = LabelLosses(schema(), tasks, [tfrs.tasks.Ranking(loss=task.loss()) for task in tasks.all], None)
    losses(tf.constant(labels), tf.constant(logits), None, [], tf.zeros([2], tf.int64))
    found = {metric.name: metric.result() for metric in losses.metrics[:-1]}
    entropies = -(means * np.log(means) + (1 - means) * np.log1p(-means))
    np.testing.assert_allclose([found[f"log_loss{n}"] for n in ("", "_cart", "_bought")], entropies, rtol=1e-5)


def test_prepare_begins_rates_at_those_of_known_rows(tmp_path):
    x, labels = missing_log()
    frame = pd.DataFrame(
        {"user": x, "item": x, "clicked": labels[:, 0], "in_cart": labels[:, 1], "bought": labels[:, 2]}
    )
    td.prepare(schema(), frame, str(tmp_path / "out"))
    found = [label.mean for label in td.Schema.load(str(tmp_path / "out/schema.json")).labels]
    # Of the rows that lack the cart, purchases are missing too, so that they do not count for their rate.
    np.testing.assert_allclose(found, np.cumprod(known_rates(labels)), rtol=1e-5)
