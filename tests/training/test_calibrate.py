"""A run that is calibrated: what is fitted to which rows, and that evaluation, model and bundle all apply it."""

import dataclasses
import json
import os

import click_log
import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import tfrs_dlrm as td
from tfrs_dlrm.config import DataConfig, DLRMConfig, OptimizerConfig, RunConfig, TrainConfig
from tfrs_dlrm.data.reading.row_groups import looked_up
from tfrs_dlrm.metrics import evaluate_scores
from tfrs_dlrm.metrics.calibrators import Curve, fit_curve
from tfrs_dlrm.models.calibration import Calibration
from tfrs_dlrm.programs import launch
from tfrs_dlrm.serving.bundle.manifest import read_manifest
from tfrs_dlrm.serving.exporting.export import ExportOptions, export
from tfrs_dlrm.training.calibrate import CalibrationOptions, calibrate
from tfrs_dlrm.training.evaluation import evaluate_run, score
from tfrs_dlrm.training.factory import load_run
from tfrs_dlrm.training.groups import Grouping
from tfrs_dlrm.training.inputs import evaluation_dataset
from tfrs_dlrm.training.loop import train_and_evaluate
from tfrs_dlrm.training.run_calibration import CALIBRATION_FILE, read_calibration
from tfrs_dlrm.training.workdir import Workdir

BY_SLOT = CalibrationOptions("isotonic", by="slot", min_examples=60)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return click_log.make(str(tmp_path_factory.mktemp("log")))


@pytest.fixture(scope="module")
def plain(data, tmp_path_factory):
    workdir = str(tmp_path_factory.mktemp("run") / "clicks")
    config = RunConfig(
        DataConfig(path=data),
        DLRMConfig(embedding_dim=8, bottom_mlp=(16, 8), top_mlp=(16, 1)),
        OptimizerConfig("adam", 0.01, "lazy_adam", 0.01),
        TrainConfig(batch_size=64, epochs=2, tensorboard=False),
    )
    train_and_evaluate(config, workdir)
    return workdir


@pytest.fixture
def run(plain):
    yield plain
    launch.call("calibrate", [f"--workdir={plain}", "--undo"])


@pytest.fixture(scope="module")
def logits(plain, data):
    """The scores of all evaluation rows, without calibration."""
    return score(load_run(plain, calibrated=False)[0], evaluation_dataset(data, 512))


def save(run, options):
    found = calibrate(run, options)
    found.found.save(Workdir(run))
    return found


def test_curves_are_fitted_to_one_half_and_measured_on_the_other(plain, data, logits):
    found = calibrate(plain, BY_SLOT)
    fitted = found.found.fitted(len(logits.labels))
    assert 0.4 < fitted.mean() < 0.6
    columns = [x[fitted] for x in (logits.labels, logits.logits, logits.weights)]
    curves = found.found.calibration.curves
    assert curves[0] == fit_curve("isotonic", *columns)
    slots = np.concatenate([rows for rows, _ in looked_up(data, "eval", "slot")])
    own = found.found.calibration.rows
    values, counts = np.unique(slots[fitted], return_counts=True)
    assert 0 < len(own) < len(values) and set(own) <= set(values[counts >= 60])
    in_first = slots[fitted] == own[0]
    assert curves[1] == fit_curve("isotonic", *(x[in_first] for x in columns))

    # The graph equals the curves in NumPy, and the metrics are of the rows that were not fitted.
    index = {row: i for i, row in enumerate(own, 1)}
    rest = slots[~fitted]
    after = [curves[index.get(s, 0)](z) for s, z in zip(rest, logits.logits[~fitted], strict=True)]
    np.testing.assert_allclose(found.after, after, rtol=1e-4, atol=1e-5)
    wanted = evaluate_scores(logits.labels[~fitted], after, logits.weights[~fitted])
    assert found.found.metrics["after"]["log_loss"] == pytest.approx(wanted["log_loss"], rel=1e-5)
    assert not os.path.exists(os.path.join(plain, CALIBRATION_FILE))


def test_platt_keeps_the_auc(plain):
    metrics = calibrate(plain).found.metrics
    assert metrics["after"]["auc"] == pytest.approx(metrics["before"]["auc"], abs=1e-4)
    assert metrics["after"]["calibration"] == pytest.approx(1, abs=0.2)


@pytest.mark.slow
def test_evaluation_model_and_bundle_apply_it(run, data, logits, tmp_path):
    found = save(run, BY_SLOT)
    evaluation = evaluate_run(run)
    np.testing.assert_allclose(evaluation.scores.logits, found.after, rtol=1e-4, atol=1e-5)
    assert f"The {len(found.after):,} rows that it was not calibrated on" in evaluation.note
    groups = Grouping(run, ["slot", "tags"]).measure(evaluation, "eval")
    assert groups.by_value["slot"].examples.sum() == len(found.after)
    assert evaluate_run(run, split="train").note == ""

    # All of Keras' ways, and the bundle, whose context has the feature or leaves it to the candidates.
    model = td.load_model(run)
    batch, *_ = next(iter(td.dataset(data, 64, split="eval", shuffle=False)))
    rows = ~found.found.fitted(len(logits.labels))[:64]
    answers = model(batch).numpy()
    np.testing.assert_allclose(answers[rows], 1 / (1 + np.exp(-found.after[: rows.sum()])), rtol=1e-4)
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "model.keras")(batch), answers)
    for context in (("user", "slot"), ("user",)):
        exported = export(run, str(tmp_path / "clicks"), options=ExportOptions(context=context))
        assert read_manifest(exported.path).calibration == {
            "method": "isotonic", "output": "probability", "by": "slot", "curves": len(found.found.calibration.curves)
        }  # fmt: skip
    with open(os.path.join(exported.path, "assets.extra/reference.jsonl"), encoding="utf-8") as f:
        served = [json.loads(line)["probability"] for line in f][:64]
    np.testing.assert_allclose(served, answers, rtol=1e-4)


def test_the_program_writes_undoes_and_refuses(run, capsys):
    assert launch.call("calibrate", [f"--workdir={run}", "--method=platt", "--by=slot", "--min_examples=60"]) == 0
    out = capsys.readouterr().out
    assert "before     after" in out and "Curves of their own: " in out and f"{run}/calibration.json" in out
    assert os.path.getsize(os.path.join(run, "calibration.png")) > 10_000
    found = read_calibration(Workdir(run))
    assert found is not None and found.calibration.method == "platt" and found.calibration.feature == "slot"

    # Of another checkpoint it is refused, and a damaged file is named.
    dataclasses.replace(found, checkpoint="step-1").save(Workdir(run))
    with pytest.raises(ValueError, match=r"is of step-1, and the best checkpoint is step-.*calibrate again"):
        load_run(run)
    with open(os.path.join(run, CALIBRATION_FILE), "w", encoding="utf-8") as f:
        f.write('{"calibration": 3}')
    with pytest.raises(ValueError, match=r"calibration\.json"):
        evaluate_run(run)
    assert launch.call("calibrate", [f"--workdir={run}", "--undo"]) == 0
    assert not os.path.exists(os.path.join(run, CALIBRATION_FILE)) and evaluate_run(run).note == ""
    for options, message in (
        (CalibrationOptions(by="tags"), "an example has several values of it"),
        (CalibrationOptions(by="price"), "feature 'price' is a number"),
        (CalibrationOptions(share=1.0), "a share between 0 and 1 is needed"),
        (CalibrationOptions(share=0.01), "at least 20 are needed"),
    ):
        with pytest.raises(ValueError, match=message):
            calibrate(run, options)


def test_a_calibration_of_one_of_several_labels():
    found = Calibration(
        "platt", (Curve((0.0,), (-1.0,), (0.5,)), Curve((0.0,), (0.0,), (2.0,))), label=1, feature="x", rows=(7,)
    )
    scores, rows = tf.constant([2.0, 4.0, 6.0]), np.array([7, 0, 9])
    np.testing.assert_allclose(found(scores, rows), [4, 1, 2])
    np.testing.assert_allclose(found.by_label(rows)(1, scores), [4, 1, 2])
    assert found.by_label(rows)(0, scores) is scores
    assert Calibration.from_dict(json.loads(json.dumps(found.to_dict()))) == found
