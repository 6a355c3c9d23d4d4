"""Importance and interactions of one of several labels: what NumPy and scikit-learn find where that label is known."""

import itertools

import funnel_log
import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from sklearn.metrics import log_loss, mean_absolute_error, mean_squared_error, roc_auc_score

import tfrs_dlrm as td
from tfrs_dlrm.tools.explain.importance import permutation_importance
from tfrs_dlrm.tools.explain.interactions import interactions
from tfrs_dlrm.tools.explain.sample import draw_sample, score_sample

FEATURES = ["age", "user", "item"]
COLUMNS = ["label", "label/purchase", "label/paid"]


class Known(td.RankingModel):
    """A head for each label: age + user[0], user . item, age * item[0] + user[1]."""

    def compute_logits(self, dense, embeddings, training):
        user, item = embeddings
        paid = dense[:, 0] * item[:, 0] + user[:, 1]
        return tf.stack([dense[:, 0] + user[:, 0], tf.reduce_sum(user * item, axis=1), paid], axis=1)


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    data = funnel_log.make(str(tmp_path_factory.mktemp("log")), 1500)
    model = Known(td.Schema.load(f"{data}/schema.json"))
    model.build()
    rng = np.random.default_rng(0)
    for table in model.embeddings.tables.values():
        table.assign(rng.normal(size=table.shape))
    return data, model


def heads(model, values):
    """Returns the scores for age, user and item, each [N]: a column per label."""
    age, user, item = values
    user, item = (model.embeddings.tables[n].numpy().astype(float)[v] for n, v in (("user", user), ("item", item)))
    paid = model.schema.more_labels[1]
    number = paid.mean + paid.std * (age * item[:, 0] + user[:, 1])
    return np.stack([age + user[:, 0], (user * item).sum(1), number], axis=1)


def exchanged(values, which, donors):
    return [v[donors] if i in which else v for i, v in enumerate(values)]


def of_clicks(y, z, w):
    return [roc_auc_score(y, z, sample_weight=w), log_loss(y, 1 / (1 + np.exp(-z)), sample_weight=w)]


def of_numbers(y, z, w):
    return [np.sqrt(mean_squared_error(y, z, sample_weight=w)), mean_absolute_error(y, z, sample_weight=w)]


@pytest.mark.parametrize(
    ("label", "names", "measure", "signs", "unit"),
    [
        (0, ["auc_drop", "log_loss_rise"], of_clicks, [-1, 1], "logit"),
        (1, ["auc_drop", "log_loss_rise"], of_clicks, [-1, 1], "logit"),
        (2, ["rmse_rise", "mae_rise"], of_numbers, [1, 1], "prediction"),
    ],
)
def test_each_label(known, label, names, measure, signs, unit):
    data, model = known
    sample = draw_sample(data, "train", 200, label=label)
    frame = sample.table.to_pandas()
    y, w = frame[COLUMNS[label]].to_numpy(float), frame["weight"].to_numpy(float)
    assert len(frame) == 200 and np.isfinite(y).all()
    values = [frame[name].to_numpy() for name in FEATURES]
    plain = heads(model, values)[:, label]
    np.testing.assert_allclose(score_sample(model, sample, 64), plain, rtol=1e-5, atol=1e-4)

    donors = np.random.default_rng(0).permutation(200)
    found = permutation_importance(model, sample, FEATURES, seeds=1)
    before = measure(y, plain, w)
    assert list(found.metrics.values()) == pytest.approx(before, rel=1e-4)
    expected = {}
    for i, feature in enumerate(FEATURES):
        after = measure(y, heads(model, exchanged(values, [i], donors))[:, label], w)
        expected[feature] = np.array(signs) * np.subtract(after, before)
        one = next(f for f in found.features if f.feature == feature)
        assert list(one.worsening) == names
        np.testing.assert_allclose([one.worsening[n][0] for n in names], expected[feature], rtol=1e-3, atol=1e-4)
    assert [f.feature for f in found.features] == sorted(FEATURES, key=lambda f: -expected[f][0])

    pairs = interactions(model, sample, FEATURES, seeds=1)
    assert pairs.unit == unit
    for i, j in itertools.combinations(range(3), 2):
        which = [[], [i], [j], [i, j]]
        f, f_i, f_j, f_ij = (heads(model, exchanged(values, w, donors))[:, label] for w in which)
        assert pairs.strength[i, j] == pytest.approx(np.abs(f - f_i - f_j + f_ij).mean(), rel=1e-4, abs=1e-4)
    planted = {1: ("user", "item"), 2: ("age", "item")}
    if label in planted:
        assert pairs.pairs()[0][:2] == planted[label] and pairs.pairs()[1][2] < 1e-3 * pairs.pairs()[0][2]


def test_a_sample_is_of_all_examples_that_have_the_label(known):
    data, _ = known
    everything = pq.read_table(f"{data}/eval").to_pandas()
    for label, column in enumerate(COLUMNS):
        of_label = everything[everything[column].notna()]
        found = draw_sample(data, "eval", 10_000, label=label)
        np.testing.assert_array_equal(np.sort(found.labels), np.sort(of_label[column]))
        assert len(draw_sample(data, "eval", 7, label=label)) == 7
    rows = {tuple(row) for row in of_label[["age", "user", "item"]].to_numpy()}
    assert {tuple(row) for row in found.table.to_pandas()[["age", "user", "item"]].to_numpy()} == rows


def test_a_label_that_is_known_of_nothing(tmp_path):
    lines = [f"{i % 2},{'yes' if i % 3 else 'no'},,{i},u{i % 5},i{i % 4},1" for i in range(100)]
    (tmp_path / "log.csv").write_text("\n".join(["clicked,bought?,paid,age,user,item,weight", *lines]) + "\n")
    td.prepare(funnel_log.SCHEMA, [str(tmp_path / "log.csv")], str(tmp_path / "out"))
    with pytest.raises(ValueError, match="out: label 'paid' is known of no example of the train set"):
        draw_sample(str(tmp_path / "out"), "train", 10, label=2)
