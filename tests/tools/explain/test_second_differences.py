"""Importance and interactions of a model whose formula is known: the same as NumPy gives for that formula."""

import itertools

import click_log
import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from sklearn.metrics import log_loss, roc_auc_score

import tfrs_dlrm as td
from tfrs_dlrm.tools.explain.importance import permutation_importance
from tfrs_dlrm.tools.explain.interactions import interactions
from tfrs_dlrm.tools.explain.sample import draw_sample, score_sample

FEATURES = ["price", "age", "site", "user", "slot", "tags"]


class Known(td.RankingModel):
    """site . user + price * sum(tags) + sin(age) * slot[0]; the rest adds up."""

    def compute_logits(self, dense, embeddings, training):
        price, age, missing = tf.unstack(dense, axis=1)
        site, user, slot, tags = embeddings
        pairs = tf.reduce_sum(site * user, axis=1) + price * tf.reduce_sum(tags, axis=1) + tf.sin(age) * slot[:, 0]
        return pairs + missing + slot[:, 1]


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    """The model, a sample, and the values of each feature in it: what `formula` takes."""
    data = click_log.make(str(tmp_path_factory.mktemp("log")), 1200)
    model = Known(td.Schema.load(f"{data}/schema.json"))
    model.build()
    rng = np.random.default_rng(0)
    for table in model.embeddings.tables.values():
        table.assign(rng.normal(size=table.shape))
    sample = draw_sample(data, "train", 500)
    tables = {name: t.numpy().astype(np.float64) for name, t in model.embeddings.tables.items()}
    frame = sample.table.to_pandas()
    bags = []
    for rows, weights in zip(frame.tags, frame.tags_weights, strict=True):
        length = np.sqrt((weights**2).sum())
        bags.append(weights @ tables["tags"][rows] / length if len(rows) else np.zeros(8))
    values = {name: tables[name][frame[name]] for name in ("site", "user", "slot")} | {"tags": np.array(bags)}
    values |= {"price": frame.price.to_numpy(), "age": frame[["age", "age_missing"]].to_numpy()}
    return model, sample, values


def formula(v):
    pairs = (v["site"] * v["user"]).sum(1) + v["price"] * v["tags"].sum(1) + np.sin(v["age"][:, 0]) * v["slot"][:, 0]
    return pairs + v["age"][:, 1] + v["slot"][:, 1]


def exchanged(values, features, donors):
    return {name: v[donors] if name in features else v for name, v in values.items()}


def test_the_values_of_a_feature_are_exchanged_as_a_whole(known):
    model, sample, values = known
    donors = np.random.default_rng(5).permutation(500)
    np.testing.assert_allclose(score_sample(model, sample, 64), formula(values), atol=1e-4)
    for features in ([f] for f in FEATURES):
        found = score_sample(model, sample.exchanged(features, donors), 500)
        np.testing.assert_allclose(
            found, formula(exchanged(values, features, donors)), atol=1e-4, err_msg=str(features)
        )
        assert not np.allclose(found, formula(values), atol=0.1)


def test_importance_is_what_scikit_learn_says_of_the_exchanged_scores(known):
    model, sample, values = known
    frame, seen = sample.table.to_pandas(), []
    found = permutation_importance(model, sample, FEATURES, seeds=2, batch_size=200, progress=seen.append)
    assert sum(seen) == 500 * (1 + 6 * 2) and found.examples == 500

    def measure(z):
        p = 1 / (1 + np.exp(-z))
        return roc_auc_score(frame.label, z, sample_weight=frame.weight), log_loss(
            frame.label, p, sample_weight=frame.weight
        )

    assert tuple(found.metrics.values()) == pytest.approx(measure(formula(values)), abs=1e-4)
    drops = {}
    for feature in FEATURES:
        orders = [np.random.default_rng(seed).permutation(500) for seed in range(2)]
        measured = np.array([measure(formula(exchanged(values, [feature], order))) for order in orders])
        drops[feature] = found.metrics["auc"] - measured[:, 0]
        one = next(f for f in found.features if f.feature == feature)
        np.testing.assert_allclose(one.worsening["auc_drop"], drops[feature], atol=1e-4)
        rises = measured[:, 1] - found.metrics["log_loss"]
        np.testing.assert_allclose(one.worsening["log_loss_rise"], rises, atol=1e-4)
        spread = abs(drops[feature][0] - drops[feature][1]) / np.sqrt(2)
        assert one.summary()["auc_drop_spread"] == pytest.approx(spread, abs=1e-4)
    means = [f.worsening["auc_drop"].mean() for f in found.features]
    assert means == sorted(means, reverse=True)


def test_interactions_are_the_second_differences_of_the_formula(known):
    model, sample, values = known
    found = interactions(model, sample, FEATURES, seeds=2, batch_size=64)
    expected = np.full((2, 6, 6), np.nan)
    for seed, (i, j) in itertools.product(range(2), itertools.permutations(range(6), 2)):
        donors = np.random.default_rng(seed).permutation(500)
        alone = [formula(exchanged(values, [FEATURES[k]], donors)) for k in (i, j)]
        both = formula(exchanged(values, [FEATURES[i], FEATURES[j]], donors))
        expected[seed, i, j] = np.abs(formula(values) - sum(alone) + both).mean()
    np.testing.assert_allclose(found.strength, expected.mean(0), atol=1e-4)
    np.testing.assert_allclose(found.spread, expected.std(0, ddof=1), atol=1e-4)
    planted = {("site", "user"), ("price", "tags"), ("age", "slot")}
    assert {pair[:2] for pair in found.pairs()[:3]} == planted
    assert all(strength < 1e-5 < 0.1 < found.pairs()[2][2] for *_, strength, _ in found.pairs()[3:])


def test_a_sample_is_rows_of_the_set_each_once(known, tmp_path):
    data = click_log.make(str(tmp_path), 400)
    everything = pq.read_table(f"{data}/eval").to_pandas()
    some, same, all_of_them = (
        draw_sample(data, "eval", n, seed).table.to_pandas() for n, seed in ((40, 1), (40, 1), (999, 0))
    )
    assert some.equals(same) and len(some) == 40
    key = ["price", "age", "site", "user", "slot"]

    def rows(frame):
        return sorted(map(tuple, frame[key].to_numpy()))

    assert rows(all_of_them) == rows(everything) and list(all_of_them.price) != list(everything.price)
    assert set(rows(some)) <= set(rows(everything))
