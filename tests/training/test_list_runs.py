"""Runs whose loss is of how the rows of each group are ranked: from a raw log to an export that knows no groups."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
import tf_keras as keras
from fake_tpu import KINDS, fake_tpu
from sklearn.metrics import ndcg_score

import tfrs_dlrm as td
from tfrs_dlrm.config import DataConfig, LogisticRegressionConfig, OptimizerConfig, RunConfig, TrainConfig
from tfrs_dlrm.serving.exporting.export import export
from tfrs_dlrm.tools import comparison
from tfrs_dlrm.tools.search import run as search_run
from tfrs_dlrm.training.evaluation import evaluate_run
from tfrs_dlrm.training.inputs import distributed_dataset
from tfrs_dlrm.training.loop import train_and_evaluate
from tfrs_dlrm.training.state import check_goals
from tfrs_dlrm.training.tpu import tpu_tables

ITEMS, ROWS = 12, 8


def write(path: str, queries: int = 600, seed: int = 0) -> None:
    """Queries with strong effects that no feature tells, of items with small effects."""
    rng = np.random.default_rng(seed)
    effects, items = np.linspace(-1.5, 1.5, ITEMS), rng.integers(0, ITEMS, (queries, ROWS))
    logits = effects[items] + rng.normal(0, 3, (queries, 1))
    clicked = rng.random((queries, ROWS)) < 1 / (1 + np.exp(-logits))
    numbers = np.repeat(np.arange(queries), ROWS)
    columns = {"clicked": clicked.astype(int).ravel(), "item": items.ravel(), "query": numbers}
    pd.DataFrame(columns).to_csv(path, index=False)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    home = tmp_path_factory.mktemp("queries")
    write(f"{home}/log.csv")
    item = td.CategoricalFeature("item", encoding="ids", dtype="int64")
    schema = td.Schema(td.Label("clicked"), categorical=(item,), tables=(td.Table("item", 4, ITEMS),), group="query")
    td.prepare(schema, [f"{home}/log.csv"], f"{home}/data", eval_fraction=0.25)
    return f"{home}/data"


def recipe(data: str, **train) -> RunConfig:
    return RunConfig(
        DataConfig(path=data),
        LogisticRegressionConfig(list_loss="softmax"),
        OptimizerConfig("adam", 0.02, "lazy_adam", 0.02),
        TrainConfig(batch_size=128, tensorboard=False, **{"epochs": 8, **train}),
    )


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    workdir = str(tmp_path_factory.mktemp("run"))
    return workdir, train_and_evaluate(recipe(data), workdir)


def test_a_run_learns_the_order_and_its_export_knows_no_groups(run, tmp_path):
    model = td.load_model(run[0])
    scores = model.logits({"ids": np.arange(ITEMS, dtype=np.int32)[:, np.newaxis]}).numpy()
    assert np.corrcoef(scores, np.arange(ITEMS))[0, 1] > 0.95 and scores[-1] - scores[0] > 0.5
    exported = export(run[0], str(tmp_path / "export"))
    serve = tf.saved_model.load(exported.path).signatures["serving_default"]
    assert list(serve.structured_input_signature[1]) == ["item"]


@pytest.mark.parametrize("kind", KINDS)
def test_train_steps_are_traced_for_tpus(data, kind):
    with fake_tpu(kind) as strategy, strategy.scope():
        schema = td.Schema.load(f"{data}/schema.json")
        tables = tpu_tables(data, schema, 64, 0, 1000)
        model = td.EmbeddingMLP(schema, (16, 1), embeddings=tables, list_loss="softmax")
        model.compile(keras.optimizers.Adam(), td.Adagrad(0.05))
        batches = iter(distributed_dataset(data, 64, tables=tables, whole_groups=True))
        graph = model.make_train_function().get_concrete_function(batches).graph
        assert [o for o in graph.get_operations() if o.type == "TPUReplicateMetadata"]


def test_settings_that_cannot_work_are_refused(data, tmp_path):
    config = recipe(data)
    config.model.list_loss_weight = 1.5
    with pytest.raises(ValueError, match=r"model.list_loss_weight=1.5: a number above 0 and at most 1 is needed"):
        train_and_evaluate(config, str(tmp_path / "a"))
    plain = dataclasses.replace(td.Schema.load(f"{data}/schema.json"), group=None)
    with pytest.raises(ValueError, match=r"model.list_loss='softmax': the schema has no group; give it the column"):
        recipe(data).model.schema(plain)


def test_ndcg_chooses_checkpoints_and_contestants(data, tmp_path):
    evaluation = pq.read_table(f"{data}/eval")
    labels, groups = evaluation["label"].to_numpy(), evaluation["group"].to_numpy()
    config = recipe(data, monitor="ndcg", epochs=2, eval_every_steps=20)
    models = ["logs@logistic_regression:model.list_loss=none", "lists@logistic_regression"]
    contestants = comparison.contestants(config, models)
    options = comparison.ComparisonOptions(seeds=1, measure=False)
    outcomes, _ = comparison.compare(contestants, str(tmp_path), options)
    assert [x.shown[0] for x in outcomes] == ["ndcg", "ndcg"] and outcomes[0].metrics != outcomes[1].metrics
    assert "NDCG@10" in comparison.table(comparison.summary(outcomes, {}))
    for outcome in outcomes:
        model = td.load_model(str(tmp_path / outcome.label / "seed-0"), which="latest")
        scores = model.predict(td.dataset(data, 64, split="eval"), verbose=0)
        # Whole groups are reported, those of odd ids.
        of_groups = [(labels[groups == g], scores[groups == g]) for g in np.unique(groups) if g % 2]
        expected = np.mean([ndcg_score([y], [s], k=10) for y, s in of_groups if y.any()])
        assert outcome.metrics["ndcg"] == pytest.approx(expected, rel=1e-6)
        curve = {x["step"]: x["ndcg"] for x in outcome.curve}
        best = evaluate_run(str(tmp_path / outcome.label / "seed-0"))
        assert best.scores.metrics()["ndcg"] == pytest.approx(max(curve.values()))
    plain = dataclasses.replace(td.Schema.load(f"{data}/schema.json"), group=None)
    with pytest.raises(ValueError, match=r"config.train.monitor='ndcg': .* has no group to rank the rows of; give the"):
        check_goals(config, plain, has_eval=True)


@pytest.mark.slow
def test_a_search_chooses_by_ndcg(data, tmp_path, monkeypatch):
    monkeypatch.setattr(search_run, "FEW_FOR_AUC", 1)
    config, lines = recipe(data, monitor="ndcg", epochs=1), []
    config.search.candidates = ("logistic_regression:model.list_loss=none", "logistic_regression")
    search_run.search_and_train(config, str(tmp_path / "run"), say=lines.append)
    with open(tmp_path / "run" / "trials.json", encoding="utf-8") as f:
        found = json.load(f)
    assert found["chosen"] == max(found["trials"], key=lambda trial: trial["best"]["ndcg"])["label"]
    assert any(line.split()[:2] == ["NDCG@10", "AUC"] for line in lines)
