"""What runs on TPUs need, made of prepared data, and traced."""

import itertools

import click_log
import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from cases import matrix
from fake_tpu import KINDS, fake_tpu

import tfrs_dlrm as td
from tfrs_dlrm.config import DataConfig, DLRMConfig, MatrixFactorizationConfig, RunConfig, TrainConfig
from tfrs_dlrm.distribute import placement
from tfrs_dlrm.training.evaluation import score
from tfrs_dlrm.training.factory import load_run
from tfrs_dlrm.training.factory import make_model as make_family_model
from tfrs_dlrm.training.inputs import distributed_dataset
from tfrs_dlrm.training.loop import train_and_evaluate
from tfrs_dlrm.training.tpu import most_values, tpu_tables

BATCH = 64


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return click_log.make(str(tmp_path_factory.mktemp("log")))


def make_model(data, replicate_below):
    schema = td.Schema.load(f"{data}/schema.json")
    model = td.DLRM(schema, (16, 8), (16, 1), embeddings=tpu_tables(data, schema, BATCH, 0, replicate_below))
    model.compile(keras.optimizers.Adam(), td.Adagrad(0.05))
    return model


@pytest.mark.parametrize(
    ("kind", "replicate_below"),
    matrix(itertools.product(KINDS, [0, 1000]), fast=[("V1", 1000), ("SparseCore", 0)]),
)
def test_fit_and_scores_are_traced_from_prepared_data(data, kind, replicate_below):
    with fake_tpu(kind) as strategy, strategy.scope():
        model = make_model(data, replicate_below)
        assert model.embeddings.batch_size == BATCH // 2
        iterator = iter(distributed_dataset(data, BATCH, tables=model.embeddings))
        graph = model.make_train_function().get_concrete_function(iterator).graph
        assert [o for o in graph.get_operations() if o.type == "TPUReplicateMetadata"]
        placed = {t.name for t in model.embeddings.placement.tables if t.kind == "tpu_embedding"}
        assert bool(placed) == bool(kind) and ("user" in placed) == (bool(kind) and replicate_below < 1600)


def test_keras_formats_refuse_tables_on_tpus(data, tmp_path):
    with fake_tpu("V1") as strategy, strategy.scope():
        model = make_model(data, 1000)
        for name, refused in [("m.keras", model.save), ("m", model.save), ("w.h5", model.save_weights)]:
            with pytest.raises(ValueError, match=r"tables on a TPU are no weights of a Keras model; use td\.save"):
                refused(f"{tmp_path}/{name}")
        with pytest.raises(ValueError, match="tables on a TPU"):
            model.get_weights()
    assert not list(tmp_path.iterdir())


# Of matrix factorization, the other features have no gradients.
CONFIGS = {
    "matrix_factorization": MatrixFactorizationConfig(8, item="site"),
    "dlrm": DLRMConfig(8, bottom_mlp=(16, 8), top_mlp=(16, 1), batch_norm=True, dropout=0.2),
}


@pytest.mark.parametrize(
    ("kind", "name"),
    matrix(itertools.product(KINDS, CONFIGS), fast=[("V1", "matrix_factorization"), ("SparseCore", "dlrm")]),
)
def test_other_models_are_traced(data, kind, name):
    with fake_tpu(kind) as strategy, strategy.scope():
        schema = td.Schema.load(f"{data}/schema.json")
        model = make_family_model(CONFIGS[name], schema, 0, lambda schema: tpu_tables(data, schema, BATCH, 0, 0))
        model.compile(keras.optimizers.Adam(), td.Adagrad(0.05))
        iterator = iter(distributed_dataset(data, BATCH, tables=model.embeddings))
        graph = model.make_train_function().get_concrete_function(iterator).graph
        assert [o for o in graph.get_operations() if o.type == "TPUReplicateMetadata"]


def test_the_default_is_an_optimizer_that_the_tables_can_have(data):
    for replicate_below, kind in ((0, td.Adagrad), (1 << 20, td.RowWiseAdagrad)):
        with fake_tpu("V1") as strategy, strategy.scope():
            schema = td.Schema.load(f"{data}/schema.json")
            tables = tpu_tables(data, schema, BATCH, 0, replicate_below)
            model = td.DLRM(schema, (16, 8), (16, 1), embeddings=tables)
            model.compile(embedding_optimizer="auto")
            assert type(model.embedding_optimizer) is kind


@pytest.mark.parametrize("kind", matrix(["V1", "SparseCore"], fast=["V1"]))
def test_a_run_of_another_strategy_is_loaded_whatever_its_row_optimizer_is(data, tmp_path, monkeypatch, kind):
    train = TrainConfig(batch_size=BATCH, steps=1, tensorboard=False)
    train_and_evaluate(RunConfig(DataConfig(path=data), CONFIGS["matrix_factorization"], train=train), str(tmp_path))
    trained = load_run(str(tmp_path))[0].embeddings.tables["site"].numpy()
    monkeypatch.setitem(placement.REPLICATE_BELOW, "tpu", 0)
    with fake_tpu(kind) as strategy, strategy.scope():
        model, config, _ = load_run(str(tmp_path))
        assert config.optimizer.embedding == "rowwise_adagrad" and "site" in model.embeddings.on_hardware
        shards = model.embeddings.logical_tables()["tables/site"].shards
        np.testing.assert_array_equal(np.concatenate([s.read(0, s.end - s.begin) for s in shards]), trained)
        with pytest.raises(ValueError, match="'site' is on TPU embedding hardware, which has no RowWiseAdagrad"):
            load_run(str(tmp_path), compiled=True)


def test_scores_are_those_of_the_examples_there_are(data, monkeypatch):
    """Groups of a batch for each replica, the last of them filled up; in the order of the rows, as --group_by needs."""
    with fake_tpu("V1") as strategy, strategy.scope():
        model = make_model(data, 0)
        given = []

        def scores(features):  # for what the chips would do
            parts = strategy.experimental_local_results(features)
            given.extend(parts)
            logits = [tf.reduce_sum(part["dense"], axis=1) for part in parts]
            return strategy.experimental_distribute_values_from_function(
                lambda context: logits[context.replica_id_in_sync_group]
            )

        monkeypatch.setattr(model, "scores", scores)
        rows = td.dataset(data, 50, split="train", shuffle=False)
        found = score(model, rows.take(3))
        # And the real ones, traced with what they get.
        values = strategy.experimental_distribute_values_from_function(lambda context: given[0])
        tf.function(model._scores).get_concrete_function(values)
    expected = list(rows.take(3))
    sums = [features["dense"].numpy().sum(axis=1) for features, *_ in expected]
    np.testing.assert_allclose(found.logits, np.concatenate(sums), rtol=1e-6)
    for i, column in enumerate(c for c in (found.labels, found.weights) if c is not None):
        np.testing.assert_array_equal(column, np.concatenate([batch[i + 1] for batch in expected]))
    assert len(given) == 6  # 150 examples are five batches of 32, and the replicas step together
    assert {part["dense"].shape[0] for part in given} == {32}


def test_most_values_are_counted_over_all_rows(data):
    lengths = [int(tf.reduce_max(f["tags"].row_lengths())) for f, *_ in td.dataset(data, 100, shuffle=False)]
    lengths += [int(tf.reduce_max(f["tags"].row_lengths())) for f, *_ in td.dataset(data, 100, split="eval")]
    assert most_values(data, ["tags"]) == {"tags": max(lengths)} == {"tags": 3}


def test_what_does_not_fit_is_refused(data):
    schema = td.Schema.load(f"{data}/schema.json")
    with fake_tpu("") as strategy, strategy.scope():
        with pytest.raises(ValueError, match="batch_size=63 over 2 replicas"):
            tpu_tables(data, schema, 63)
        with pytest.raises(ValueError, match=r"give embeddings=, as tfrs_dlrm.training.tpu.tpu_tables makes them"):
            td.DLRM(schema, (16, 8), (16, 1))
