"""What requests lack has its serving value in every signature of a bundle, and the log's value in evaluations."""

import re

import numpy as np
import pytest
import tensorflow as tf
from served_log import ROWS, SERVED, SHOWN, as_served, make, prepared

import tfrs_dlrm as td
from tfrs_dlrm.config import DataConfig, DLRMConfig, OptimizerConfig, RunConfig, TrainConfig
from tfrs_dlrm.serving.bundle.manifest import read_manifest
from tfrs_dlrm.serving.exporting.export import ExportOptions, export
from tfrs_dlrm.serving.verification import prepared_rows
from tfrs_dlrm.serving.verification.verify import verify
from tfrs_dlrm.tools.explain.explain_run import Questions, explain_run
from tfrs_dlrm.training.evaluation import evaluate_run
from tfrs_dlrm.training.loop import train_and_evaluate


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The training rows, their prepared data, the directory of a run, and its bundle."""
    home, (rows, data) = tmp_path_factory.mktemp("served"), prepared()
    run = str(home / "run")
    config = RunConfig(
        DataConfig(path=data),
        DLRMConfig(embedding_dim=4, bottom_mlp=(8, 4), top_mlp=(8, 1), linear=True),
        OptimizerConfig("adam", 0.05, "adagrad", 0.5),
        TrainConfig(batch_size=30, steps=6, tensorboard=False),
    )
    train_and_evaluate(config, run)
    return rows, data, run, export(run, str(home / "model"), options=ExportOptions(context=("user",))).path


def test_every_signature_scores_as_the_model_on_rows_with_the_value(exported):
    rows, data, run, path = exported
    encoder, model = td.Encoder.load(data), td.load_model(run)
    wanted = model(encoder(as_served(rows))).numpy()
    assert np.abs(wanted - model(encoder(rows)).numpy()).max() > 1e-3
    raw = {name: encoder.raw_inputs(rows)[name] for name in encoder.serving_signature()}
    signatures = tf.saved_model.load(path).signatures
    assert set(signatures["serving_default"].structured_input_signature[1]) == {"price", "user", "site"}
    np.testing.assert_allclose(signatures["serving_default"](**raw)["probability"], wanted, atol=1e-6)
    np.testing.assert_allclose(td.raw_model(model, encoder)(raw), wanted, atol=1e-6)

    def example(i):
        features = {
            "price": tf.train.Feature(float_list=tf.train.FloatList(value=[rows.price[i]])),
            "position": tf.train.Feature(float_list=tf.train.FloatList(value=[5.0])),  # nobody asked for it
            **{
                name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[rows[name][i].encode()]))
                for name in ("user", "site")
            },
        }
        return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()

    examples = tf.constant([example(i) for i in range(ROWS)])
    for name, output in {"serialized_examples": "probability", "regress": "outputs"}.items():
        (given,) = signatures[name].structured_input_signature[1]
        np.testing.assert_allclose(signatures[name](**{given: examples})[output], wanted, atol=1e-6)
    mine = np.flatnonzero(rows.user == "u1")
    candidates = {name: tf.gather(raw[name], mine)[None] for name in ("price", "site")}
    ranked = signatures["rank"](user=tf.constant(["u1"]), **candidates)["scores"]
    np.testing.assert_allclose(ranked[0], wanted[mine], atol=1e-6)


def test_evaluations_and_explanations_are_of_the_values_of_the_log(exported):
    _, data, run, _ = exported
    found = evaluate_run(run)
    scores = td.load_model(run)(td.Encoder.load(data)(make(1)))
    np.testing.assert_allclose(1 / (1 + np.exp(-found.scores.logits)), scores, atol=1e-6)
    assert found.note == "Scored with the log's values of position, delay, place, slot, shown, which requests lack"
    explained = explain_run(run, Questions(("importance",), ("position", "place_x_site"), seeds=1))
    assert all(abs(f.worsening["log_loss_rise"][0]) > 0 for f in explained.importance.features)


def test_the_bundle_says_what_it_takes_and_is_verified(exported, monkeypatch):
    _, data, _, path = exported
    manifest = read_manifest(path)
    served = {"position": 1.0, "delay": None, "place": "p1", "slot": 3, "shown": SHOWN}
    assert dict(manifest.serving_values) == served
    assert [(f.name, f.context) for f in manifest.features] == [("price", False), ("user", True), ("site", False)]
    assert manifest.context == ("user", "shown_hour_x_user")
    with open(f"{path}/MODEL.md", encoding="utf-8") as f:
        assert 'because only training has it: `position` (`1.0`), `delay` (missing), `place` (`"p1"`)' in f.read()
    # Rows of the log are compared if they have all these values.
    (found,) = [c.message for c in verify(path, data=data, latency=False).checks if "serving value of" in c.message]
    assert re.search(rf"{SERVED} .*, which have the serving value of position, delay, place, slot, shown", found)
    monkeypatch.setattr(prepared_rows, "_is_served", lambda *_: False)
    report = verify(path, data=data, latency=False)
    assert report.passed and "none of 90 rows has the serving value of position" in report.checks[-1].message
