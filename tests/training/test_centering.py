"""The last bias, set so that predictions average to the labels."""

import dataclasses
import json

import funnel_log
import numpy as np
import pandas as pd
import pytest
import run_weights
from any_model import any_model

import tfrs_dlrm as td
from tfrs_dlrm.config import MODELS, DataConfig, OptimizerConfig, RunConfig, TrainConfig
from tfrs_dlrm.training.centering import center
from tfrs_dlrm.training.evaluation import NonFiniteError
from tfrs_dlrm.training.factory import make_model


def log(rows, seed=0):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {"user": rng.integers(0, 9, rows), "item": rng.integers(0, 7, rows), "age": rng.normal(0, 1, rows)}
    )
    logits = frame["user"] / 3 - frame["item"] / 2 - 1.5
    return frame.assign(clicked=(rng.random(rows) < 1 / (1 + np.exp(-logits))).astype(int))


def schema(**label):
    return td.Schema(
        td.Label("clicked", **label),
        dense=(td.DenseFeature("age"),),
        categorical=(td.CategoricalFeature("user"), td.CategoricalFeature("item")),
    ).with_dim(4)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("centering") / "data")
    td.prepare(schema(), log(3000), path, eval_fraction=0.2)
    return path


def made(name, data):
    config = any_model(name, embedding_dim=4, bottom_mlp=(8, 4), top_mlp=(8, 1), user="user", item="item")
    model = make_model(config, td.Schema.load(f"{data}/schema.json"), 0)
    model.build()
    return model


def outputs(model, data):
    """Scores [N, labels], labels and weights of all training rows, in order."""
    batches = list(td.dataset(data, 500, shuffle=False))
    count = len(model.schema.labels)
    scores = np.concatenate([model.logits(batch[0]).numpy().reshape(-1, count) for batch in batches]).astype(np.float64)
    labels = np.concatenate([batch[1].numpy().reshape(-1, count) for batch in batches])
    weights = [batch[2].numpy() for batch in batches if len(batch) > 2]
    return scores, labels, np.concatenate(weights) if weights else np.ones(len(labels))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_model_predicts_as_many_clicks_as_there_are(name, data):
    model = made(name, data)
    model.output_bias.assign_add(np.full(model.output_bias.shape, 0.7, np.float32))
    before, labels, _ = outputs(model, data)
    assert sigmoid(before).mean() > 1.2 * labels.mean()
    moved = center(model, data, 10_000, 700, 0)
    after, *_ = outputs(model, data)
    np.testing.assert_allclose(after - before, moved[0], atol=1e-5)
    np.testing.assert_allclose(sigmoid(after).mean(), labels.mean(), rtol=1e-5)
    weights = [v.numpy() for v in model.dense_variables]
    center(model, data, 10_000, 700, 0)
    assert all((a == b.numpy()).all() for a, b in zip(weights, model.dense_variables, strict=True))


def test_drawn_rows_are_enough(data):
    model = made("dlrm", data)
    center(model, data, 500, 100, 0)
    scores, labels, _ = outputs(model, data)
    # Predictions of an untrained model differ little, so 500 rows give their mean.
    np.testing.assert_allclose(sigmoid(scores).mean(), labels.mean(), rtol=0.02)


@pytest.mark.parametrize("weight", ["weight", None])
@pytest.mark.parametrize("share", [1.0, 0.25])
def test_several_labels_weights_and_kept_negatives(tmp_path, weight, share):
    own = dataclasses.replace(funnel_log.SCHEMA, weight=weight)
    own = dataclasses.replace(own, label=dataclasses.replace(own.label, keep_negatives=share))
    data = funnel_log.make(str(tmp_path), 3000, schema=own)
    model = td.DLRM(td.Schema.load(f"{data}/schema.json"), (8, 8), (8, 1), seed=3)
    model.build()
    model.output_bias.assign([0.3, -0.4, 0.5])
    center(model, data, 10_000, 700, 0)
    scores, labels, weights = outputs(model, data)
    # Of the full log: each kept negative stands for 1 / share, and those of other labels count as often.
    stands_for = weights * np.where(labels[:, 0] > 0, 1.0, 1 / share)
    for i, predictions in enumerate((sigmoid(scores[:, 0] - np.log(share)), sigmoid(scores[:, 1]), scores[:, 2])):
        known = np.isfinite(labels[:, i])
        as_often = (weights if i == 0 else stands_for)[known]
        expected = np.average(labels[known, i], weights=as_often)
        np.testing.assert_allclose(np.average(predictions[known], weights=as_often), expected, rtol=1e-4)


def config(data, **train):
    return RunConfig(
        DataConfig(path=data),
        MODELS["dlrm"](embedding_dim=4, bottom_mlp=(8, 4), top_mlp=(8, 1)),
        OptimizerConfig("adam", 0.05, "rowwise_adagrad", 0.05),
        TrainConfig(batch_size=100, epochs=2, eval_every_steps=12, tensorboard=False, **train),
    )


def test_a_run_centers_before_each_evaluation_and_resumes_with_the_same_weights(data, tmp_path):
    td.train_and_evaluate(config(data, center_rows=5000), str(tmp_path / "run"))
    model = td.load_model(str(tmp_path / "run"))
    scores, labels, _ = outputs(model, data)
    np.testing.assert_allclose(sigmoid(scores).mean(), labels.mean(), rtol=1e-5)
    plain = td.train_and_evaluate(config(data), str(tmp_path / "plain"))
    assert abs(plain.best["calibration"] - 1) > 1e-3  # rates that large move the bias
    half = config(data, center_rows=5000)
    half.train.steps = 24
    td.train_and_evaluate(half, str(tmp_path / "half"))
    td.train_and_evaluate(config(data, center_rows=5000), str(tmp_path / "half"))
    first, second = (run_weights.weights(tmp_path / name) for name in ("run", "half"))
    for name, values in first.items():
        np.testing.assert_array_equal(second[name], values, err_msg=name)
    lines = [(tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in ("run", "half")]
    first, second = ([json.loads(line)["eval"] for line in found] for found in lines)
    assert first == second


def test_bad_weights_are_told_before_they_are_saved(data, tmp_path):
    model = made("dlrm", data)
    model.output_bias.assign([np.nan])
    with pytest.raises(NonFiniteError, match="scores are not finite"):
        center(model, data, 500, 100, 0)


def test_a_model_without_a_bias_is_refused(data):
    class Sum(td.RankingModel):
        def compute_logits(self, dense, embeddings, training):
            return embeddings[0][:, 0]

    with pytest.raises(ValueError, match=r"Sum has no output_bias; leave train.center_rows at 0"):
        center(Sum(td.Schema.load(f"{data}/schema.json")), data, 500, 100, 0)
