"""Models of a log of which `prepare` keeps a share of the negatives: logits, losses and bundles, against NumPy."""

import json
import math
import os

import click_log
import funnel_log
import numpy as np
import pytest
import small_model
import tensorflow_recommenders as tfrs
import tf_keras as keras
from sklearn.metrics import log_loss

import tfrs_dlrm as td
from tfrs_dlrm.config import DataConfig, DLRMConfig, OptimizerConfig, RunConfig, TrainConfig
from tfrs_dlrm.data.preparing.prepare import prepare
from tfrs_dlrm.metrics import evaluate_scores
from tfrs_dlrm.models.label_losses import LabelLosses
from tfrs_dlrm.models.label_tasks import Tasks
from tfrs_dlrm.serving.bundle.manifest import read_manifest
from tfrs_dlrm.serving.exporting.export import export
from tfrs_dlrm.tools.explain.explain_run import Questions, explain_run
from tfrs_dlrm.training.evaluation import evaluate_run
from tfrs_dlrm.training.loop import train_and_evaluate

SHARE = 0.1


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


def test_odds_are_those_of_the_full_log_and_training_does_not_see_it(tmp_path):
    plain, model = small_model.make(), small_model.make(schema=small_model.SCHEMA.with_keep_negatives(SHARE))
    features, labels = next(iter(small_model.data(1)))
    among_kept = sigmoid(plain.logits(features))
    in_the_log = among_kept / (among_kept + (1 - among_kept) / SHARE)
    np.testing.assert_allclose(model(features), in_the_log, rtol=1e-5)
    # Validation data are rows of the log.
    assert model.evaluate(small_model.data(1), verbose=0)[0] == pytest.approx(log_loss(labels, in_the_log), rel=1e-5)
    histories = [m.fit(small_model.data(3), verbose=0).history["loss"] for m in (plain, model)]
    assert histories[0] == pytest.approx(histories[1], rel=1e-5)
    before, after = small_model.everything(plain), small_model.everything(model)
    for name in before:
        np.testing.assert_allclose(before[name], after[name], rtol=1e-3, atol=1e-5, err_msg=name)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(features), model(features))
    assert model.get_config()["schema"]["label"]["keep_negatives"] == SHARE


def test_the_loss_of_several_labels():
    """Positives of the first label weigh a share in the others' losses, as the negatives that were kept stand for."""
    schema = funnel_log.SCHEMA.with_keep_negatives(SHARE)
    tasks, rng = Tasks(schema), np.random.default_rng(0)
    losses = LabelLosses(schema, tasks, [tfrs.tasks.Ranking(loss=task.loss()) for task in tasks.all], None)
    labels = rng.integers(0, 2, (8, 3)).astype(np.float32)
    labels[2:4, 1:] = np.nan
    scores, weights = rng.normal(size=(8, 3)).astype(np.float32), rng.random(8).astype(np.float32)
    known, drawn = np.isfinite(labels[:, 1]), np.where(labels[:, 0] > 0, SHARE, 1.0)
    for training in (True, False):
        shift, others = (math.log(SHARE), drawn) if training else (0.0, np.ones(8))
        first = weights * np.logaddexp(0, np.where(labels[:, 0] > 0, -1, 1) * (scores[:, 0] - shift))
        second = 0.5 * weights * others * np.logaddexp(0, np.where(labels[:, 1] > 0, -1, 1) * scores[:, 1])
        third = weights * others * (scores[:, 2] - labels[:, 2]) ** 2
        wanted = (first.sum() + second[known].sum() + third[known].sum()) / 8
        found = losses(labels, scores, weights, [], np.zeros(2), training)
        assert float(found) == pytest.approx(wanted, rel=1e-5)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    home = tmp_path_factory.mktemp("kept")
    click_log.write(str(home / "log.csv"), 4000)
    prepare(click_log.SCHEMA, str(home / "log.csv"), str(home / "data"), eval_fraction=0.3, keep_negatives=0.25)
    config = RunConfig(
        DataConfig(path=str(home / "data")),
        DLRMConfig(embedding_dim=8, bottom_mlp=(16, 8), top_mlp=(16, 1)),
        OptimizerConfig("adam", 0.005, "lazy_adam", 0.005),
        TrainConfig(batch_size=64, epochs=3, tensorboard=False),
    )
    train_and_evaluate(config, str(home / "run"))
    return home


def raw_logits(model, features):
    """Without the shift."""
    return model.compute_logits(features["dense"], model.embeddings(features), training=False).numpy()[:, 0]


def test_evaluations_are_of_the_full_log(run):
    model = td.load_model(str(run / "run"))
    shift = math.log(0.25)
    for split, kept in (("eval", 1.0), ("train", 4.0)):
        batches = list(td.dataset(str(run / "data"), 512, split=split, shuffle=False))
        columns = [(raw_logits(model, f), y, w) for f, y, w in batches]
        logits, labels, weights = (np.concatenate(column) for column in zip(*columns, strict=True))
        stands_for = weights * np.where(labels > 0, 1.0, kept)
        wanted = evaluate_scores(labels, logits + shift, stands_for)
        found = evaluate_run(str(run / "run"), split=split).scores.metrics()
        assert found == pytest.approx(wanted, rel=1e-4)
        assert 0.85 < found["calibration"] < 1.2, split
        explained = explain_run(str(run / "run"), Questions(("importance",), ("site",), seeds=1), split=split)
        assert explained.importance.metrics == pytest.approx({k: wanted[k] for k in ("auc", "log_loss")}, rel=1e-4)


@pytest.mark.slow
def test_a_bundle_says_and_has_it(run):
    exported = export(str(run / "run"), str(run / "exports" / "kept"))
    assert read_manifest(exported.path).keep_negatives == 0.25
    with open(os.path.join(exported.path, "MODEL.md"), encoding="utf-8") as f:
        assert "trained on 0.25 of the negative rows; -1.3863 is added to its logits" in f.read()
    with open(os.path.join(exported.path, "assets.extra/reference.jsonl"), encoding="utf-8") as f:
        found = [json.loads(line)["probability"] for line in f][:256]
    scores = evaluate_run(str(run / "run")).scores
    np.testing.assert_allclose(found, sigmoid(scores.logits[:256]), rtol=1e-4)
