"""LightGBM beside networks: what it reads, and that it is trained and judged as they are."""

import builtins

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import log_loss, roc_auc_score

import tfrs_dlrm as td
from tfrs_dlrm.config import DataConfig, DLRMConfig, OptimizerConfig, RunConfig, SearchConfig, TrainConfig
from tfrs_dlrm.tools import comparison
from tfrs_dlrm.tools.comparison import trees
from tfrs_dlrm.tools.comparison.contestants import contestants
from tfrs_dlrm.tools.search.run import search_and_train


def log(rows=6000, seed=0):
    rng = np.random.default_rng(seed)
    x, z = rng.normal(size=(2, rows))
    site, tags = rng.integers(0, 12, rows), [rng.choice(6, rng.integers(0, 4), replace=False) for _ in range(rows)]
    logit = 2 * np.sign(x) * np.sign(z) + (site % 3 - 1) + np.array([1.5 * (2 in t) for t in tags]) - 2
    return pd.DataFrame(
        {
            "y": (rng.random(rows) < 1 / (1 + np.exp(-logit))).astype(int),
            "x": x,
            "z": z,
            "site": [f"s{s}" for s in site],
            "tags": ["|".join(f"t{i}" for i in t) for t in tags],
            "w": rng.choice([0.5, 2.0], rows),
        }
    )


def schema(**given):
    return td.Schema(
        td.Label("y"),
        dense=(td.DenseFeature("x"), td.DenseFeature("z")),
        categorical=(td.CategoricalFeature("site"), td.CategoricalFeature("tags", separator="|")),
        **given,
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("trees") / "data")
    td.prepare(schema(weight="w"), log(), path, eval_fraction=0.3)
    return path


def recipe(data):
    return RunConfig(
        data=DataConfig(path=data),
        model=DLRMConfig(embedding_dim=4, bottom_mlp=(4,), top_mlp=(4, 1)),
        optimizer=OptimizerConfig("adam", 0.01, "lazy_adam", 0.01),
        train=TrainConfig(batch_size=256, epochs=1, tensorboard=False),
    )


def test_columns_are_numbers_categories_and_the_values_of_lists(data):
    found = trees.read(data, "eval")
    features, labels, weights = next(iter(td.dataset(data, 1000, split="eval", shuffle=False, drop_remainder=False)))
    rows = len(labels)
    np.testing.assert_array_equal(found.labels[:rows], labels)
    np.testing.assert_array_equal(found.weights[:rows], weights)
    np.testing.assert_array_equal(found.columns[:rows, :2].astype(np.float32), features["dense"])
    np.testing.assert_array_equal(found.columns[:rows, 2], features["ids"][:, 0])
    assert found.categorical == [2] and found.columns.shape[1] == 2 + 1 + 1 + 6
    lists = features["tags"].to_list()
    assert found.columns[:rows, 3].tolist() == [len(values) for values in lists]
    expected = [[float(row in values) for row in range(1, 7)] for values in lists]
    assert found.columns[:rows, 4:].tolist() == expected


@pytest.mark.parametrize("encoding", ["hash", "ids"])
def test_columns_of_lists_are_the_rows_that_training_has_most(encoding, tmp_path):
    """Hashes and ids are not numbered by frequency; id 0 is a value; evaluation has the columns of training."""
    rng = np.random.default_rng(1)
    values = np.array([0, *range(1000, 1079)])
    shares = np.r_[[0.3, 0.1], np.full(78, 0.6 / 78)]
    lists = [rng.choice(values, rng.integers(0, 5), p=shares) for _ in range(3000)]
    frame = pd.DataFrame({"y": rng.integers(0, 2, 3000), "tags": lists})
    feature = td.CategoricalFeature("tags", multi_valued=True, encoding=encoding, dtype="int64")
    made = td.Schema(td.Label("y"), categorical=(feature,), tables=(td.Table("tags", 4, vocabulary_size=4000),))
    td.prepare(made, frame, str(tmp_path / "data"), eval_fraction=0.3)

    def looked_up(split):
        batches = td.dataset(str(tmp_path / "data"), 500, split=split, shuffle=False, drop_remainder=False)
        return [np.array(row, int) for x, _ in batches for row in x["tags"].to_list()]

    counts = np.bincount(np.concatenate(looked_up("train")), minlength=4000)
    most = np.sort(np.argsort(-counts, kind="stable")[:50])
    assert encoding == "hash" or most[0] == 0
    for split in ("train", "eval"):
        rows = [np.bincount(row, minlength=4000) for row in looked_up(split)]
        expected = np.column_stack([np.sum(rows, axis=1), np.array(rows)[:, most]])
        np.testing.assert_array_equal(trees.read(str(tmp_path / "data"), split).columns, expected)


def test_compared_in_one_table_with_networks(data, tmp_path):
    """The odd rows measure, the even ones stop the growth; weights count; and a second call trains nothing."""
    given = contestants(recipe(data), ["dlrm", "few@lightgbm:trees.num_iterations=3", "lightgbm"])
    options = comparison.ComparisonOptions(seeds=2, budget=2, measure=False)
    said = []
    outcomes, costs = comparison.compare(given, str(tmp_path / "runs"), options, said.append)
    assert not costs and [o.label for o in outcomes] == ["dlrm"] * 2 + ["few"] * 2 + ["lightgbm"] * 2
    auc = {o.label: o.metrics["auc"] for o in outcomes}
    assert auc["lightgbm"] > max(auc["few"], auc["dlrm"]) and 0.85 < outcomes[-1].metrics["calibration"] < 1.15
    assert set(outcomes[-1].chosen) == set(trees.TreesConfig.of(recipe(data)).spaces())
    assert outcomes[-1].metrics != outcomes[-2].metrics  # other seeds

    lightgbm = pytest.importorskip("lightgbm")
    rows = trees.read(data, "eval")
    booster = lightgbm.Booster(model_file=str(tmp_path / "runs/lightgbm/seed-0/model.txt"))
    p = booster.predict(rows.columns[1::2])
    kept = {"y_true": rows.labels[1::2], "sample_weight": rows.weights[1::2]}
    found = next(o for o in outcomes if (o.label, o.seed) == ("lightgbm", 0)).metrics
    assert found["auc"] == pytest.approx(roc_auc_score(y_score=p, **kept), abs=1e-6)
    assert found["log_loss"] == pytest.approx(log_loss(y_pred=p, **kept), rel=1e-6)

    table = comparison.table(comparison.summary(outcomes, costs))
    assert [line.split()[0] for line in table.splitlines()[1:]] == ["dlrm", "few", "lightgbm"]
    before = len(said)
    again, _ = comparison.compare(given, str(tmp_path / "runs"), options, said.append)
    assert len(said) == before and [o.metrics for o in again] == [o.metrics for o in outcomes]


def test_dropped_negatives_and_numbers_keep_their_scale(tmp_path):
    td.prepare(schema(), log(), str(tmp_path / "kept"), eval_fraction=0.3, keep_negatives=0.2)
    scores, count = trees.fit(trees.TreesConfig.of(recipe(str(tmp_path / "kept"))), str(tmp_path / "a"))
    assert 0.93 < scores.metrics()["calibration"] < 1.07 and 20 < count < 2000
    numbers = log().assign(y=lambda x: 100 + 30 * x["x"].clip(-1, 1))
    of_numbers = td.Schema(td.Label("y", task="regression"), schema().dense, schema().categorical)
    td.prepare(of_numbers, numbers, str(tmp_path / "numbers"), eval_fraction=0.3)
    scores, _ = trees.fit(trees.TreesConfig.of(recipe(str(tmp_path / "numbers"))), str(tmp_path / "b"))
    assert scores.metrics()["rmse"] < 1 and 95 < scores.logits.mean() < 105


def test_what_cannot_be_compared_is_refused(data, tmp_path, monkeypatch):
    for text, message in (
        ("lightgbm:model.dropout=0.1", r"'model.dropout' is unknown; name one of trees.FIELD"),
        ("lightgbm:trees.leaves=3", "trees.leaves"),
        ("lightgbm:trees.num_leaves=1", "trees.num_leaves=1"),
        ("lightgbm:trees.feature_fraction=0", "a number above 0 and at most 1"),
    ):
        with pytest.raises(ValueError, match=message):
            contestants(recipe(data), [text])
    config = recipe(data)
    config.search = SearchConfig(candidates=("dlrm", "lightgbm"), budget="1m")
    with pytest.raises(ValueError, match="'lightgbm' is not a model that a run trains; compare it"):
        search_and_train(config, str(tmp_path / "run"))
    plain = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "lightgbm":
            raise ImportError(name)
        return plain(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ValueError, match="'x@lightgbm' is not a model that a run trains; compare it"):
        config.search.candidates = ("dlrm", "x@lightgbm")
        search_and_train(config, str(tmp_path / "run"))
    with pytest.raises(ImportError, match=r"lightgbm is not installed: .*compare"):
        contestants(recipe(data), ["lightgbm"])
