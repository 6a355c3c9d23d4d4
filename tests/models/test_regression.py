"""Numbers to predict, from a raw log to what is exported."""

import json
import os
import shutil
from pathlib import Path

import click_log
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import rating_log
import serving_bundles
import tensorflow as tf
import tf_keras as keras
from sklearn.metrics import mean_absolute_error, mean_squared_error

import tfrs_dlrm as td
from tfrs_dlrm.config import DataConfig, DLRMConfig, OptimizerConfig, RunConfig, TrainConfig
from tfrs_dlrm.data.preparing.samples import read_samples, to_tensors
from tfrs_dlrm.metrics import evaluate_predictions, regression_metrics
from tfrs_dlrm.models.scorers import ModelScorer
from tfrs_dlrm.models.tasks import BinaryClassification, Regression, task_of
from tfrs_dlrm.serving.bundle.manifest import Tolerance, read_manifest
from tfrs_dlrm.serving.client.serving_client import ServingClient
from tfrs_dlrm.serving.exporting.export import ExportOptions, export
from tfrs_dlrm.serving.protocol import InvalidRequest
from tfrs_dlrm.serving.request_logs.scored_rows import ScoredRequest
from tfrs_dlrm.serving.verification.verify import verify
from tfrs_dlrm.tools.explain.explain_run import Questions, explain_run
from tfrs_dlrm.training.evaluation import evaluate_run
from tfrs_dlrm.training.factory import load_run
from tfrs_dlrm.training.groups import Grouping
from tfrs_dlrm.training.loop import train_and_evaluate
from tfrs_dlrm.training.warm_start import warm_start

RATING = td.Label("rating", task="regression")


# ---- the label -------------------------------------------------------------------------------------------------------


def test_a_label_of_numbers_is_plain_json(tmp_path):
    schema = rating_log.SCHEMA.with_units({"label": (3.5, 1.25)})
    label = {"column": "rating", "task": "regression", "mean": 3.5, "std": 1.25}
    assert json.loads(schema.to_json())["label"] == label
    assert td.Schema.from_json(schema.to_json()) == schema
    # That of clicks is what it was before there was a task.
    assert json.loads(click_log.SCHEMA.to_json())["label"] == {"column": "clicked"}
    assert isinstance(task_of(click_log.SCHEMA.label), BinaryClassification) and isinstance(
        task_of(schema.label), Regression
    )


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ({"task": "rank"}, 'schema.label.task: "rank" is not "classification" or "regression"'),
        ({"task": "regression", "threshold": 3}, "make a 0 or 1; task 'regression' takes the number"),
        ({"mean": 2.0}, "mean=2.0 is no share of 1s, from 0 to 1"),
        ({"std": 2.0}, "std=2.0 belongs to task 'regression', not 'classification'"),
        ({"task": "regression", "std": 0.0}, "mean=0.0, std=0.0; finite numbers are needed, std above 0"),
    ],
)
def test_wrong_labels_are_refused(label, message):
    wrong = json.loads(rating_log.SCHEMA.to_json()) | {"label": {"column": "y", **label}}
    with pytest.raises(ValueError) as e:
        td.Schema.from_json(json.dumps(wrong))
    assert message in str(e.value)


def test_prepared_labels_are_the_numbers_of_the_log(tmp_path):
    prepared = rating_log.make(str(tmp_path), 500)
    log = pd.read_csv(tmp_path / "ratings.csv")
    train, evaluation = (pq.read_table(f"{prepared}/{split}").to_pandas() for split in ("train", "eval"))
    assert train["label"].dtype == np.float32 and len(train) + len(evaluation) == 500 and len(evaluation) > 50
    found = np.sort(np.concatenate([train["label"], evaluation["label"]]))
    np.testing.assert_array_equal(found, np.sort(log["rating"].astype(np.float32)))
    # The unit of the loss comes from the training rows alone.
    label = td.Schema.load(f"{prepared}/schema.json").label
    assert label.mean == pytest.approx(np.mean(train["label"].to_numpy(np.float64)), rel=1e-12)
    assert label.std == pytest.approx(np.std(train["label"].to_numpy(np.float64)), rel=1e-7)
    features, labels, weights = next(iter(td.dataset(prepared, 50, split="eval")))
    np.testing.assert_array_equal(labels, evaluation["label"][:50])
    assert set(weights.numpy()) == {0.5, 1, 2} and features["ids"].shape == (50, 2)


def test_labels_that_are_no_numbers_are_bad_rows(tmp_path):
    good = [f"{value},1,u{i % 2},i0,1" for i, value in enumerate([-1, 0, 3.5, 1e30])]
    bad = ["high,1,u0,i0,1", ",1,u0,i0,1", "inf,1,u0,i0,1", "1e39,1,u0,i0,1", "nan,1,u0,i0,1"]
    (tmp_path / "log.csv").write_text("\n".join(["rating,price,user,item,weight", *good, *bad]) + "\n")
    schema = td.Schema(RATING, categorical=rating_log.SCHEMA.categorical)
    with pytest.raises(ValueError, match="line 6, column 'rating': 'high' is not a finite float32 number"):
        td.prepare(schema, [str(tmp_path / "log.csv")], str(tmp_path / "strict"))
    manifest = td.prepare(schema, [str(tmp_path / "log.csv")], str(tmp_path / "out"), bad_rows="quarantine")
    assert (manifest.rows("train"), manifest.bad_rows) == (4, 5)
    reasons = [json.loads(line)["reason"] for line in (tmp_path / "out/quarantine.jsonl").read_text().splitlines()]
    no_number = "is not a finite float32 number"
    assert reasons == [f"'{x}' {no_number}" for x in ["high"]] + ["the label is missing"] + [
        f"'{x}' {no_number}" for x in ("inf", "1e39", "nan")
    ]
    labels = pq.read_table(tmp_path / "out" / "train").column("label").to_pylist()
    assert labels == np.float32([-1, 0, 3.5, 1e30]).tolist()


def test_equal_labels_have_no_unit_of_their_own(tmp_path):
    (tmp_path / "log.csv").write_text("rating,user\n" + "0.1,a\n0.1,b\n0.1,a\n" * 33)
    schema = td.Schema(RATING, categorical=(td.CategoricalFeature("user"),))
    td.prepare(schema, [str(tmp_path / "log.csv")], str(tmp_path / "out"))
    label = td.Schema.load(tmp_path / "out/schema.json").label
    assert label.mean == pytest.approx(0.1) and label.std == 1.0


# ---- loss and metrics ------------------------------------------------------------------------------------------------


def test_metrics_by_hand_and_beside_scikit_learn():
    # Errors 1 and -3, of weights 3 and 1: squares add up to 3 + 9, absolute ones to 3 + 3.
    by_hand = evaluate_predictions([1, 5], [2, 2], [3, 1])
    assert by_hand == {
        "examples": 2, "weight": 4, "label_mean": 2, "prediction_mean": 2, "rmse": np.sqrt(3), "mae": 1.5,
    }  # fmt: skip
    rng = np.random.default_rng(0)
    y, z, w = rng.normal(1000, 30, 700), rng.normal(1000, 30, 700), rng.exponential(1, 700)
    exact = evaluate_predictions(y, z, w)
    assert exact["rmse"] == pytest.approx(np.sqrt(mean_squared_error(y, z, sample_weight=w)), rel=1e-12)
    assert exact["mae"] == pytest.approx(mean_absolute_error(y, z, sample_weight=w), rel=1e-12)
    streamed = regression_metrics()
    for part in np.split(np.arange(700), [1, 300]):
        for metric in streamed:
            metric.update_state(np.float32(y[part]), np.float32(z[part])[:, None], np.float32(w[part]))
    assert {m.name: float(m.result()) for m in streamed} == pytest.approx(
        {"rmse": exact["rmse"], "mae": exact["mae"]}, rel=1e-5
    )
    assert np.isnan(evaluate_predictions([1.0], [2.0], [0.0])["rmse"])
    with pytest.raises(ValueError, match=r"label of example 1 is inf; expected a finite number"):
        evaluate_predictions([1, np.inf], [1, 1])


class _Shifted(td.RankingModel):
    """Scores that are known: the first dense feature plus a weight."""

    def __init__(self, schema, **kwargs):
        super().__init__(schema, **kwargs)
        self.shift = tf.Variable(0.0)

    def compute_logits(self, dense, embeddings, training):
        return dense[:, :1] + self.shift + 0.0 * tf.cast(embeddings[0][:, :1], tf.float32)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_the_loss_is_the_squared_error_in_units_of_the_labels(policy):
    schema = td.Schema(
        td.Label("y", task="regression", mean=1000.0, std=20.0),
        (td.DenseFeature("x"),),
        (td.CategoricalFeature("u"),),
        (td.Table("u", 4, 3),),
    )
    before = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy(policy)
    try:
        model = _Shifted(schema)
    finally:
        keras.mixed_precision.set_global_policy(before)
    model.compile(keras.optimizers.SGD(0.25))
    x, y, w = np.float32([[0.5], [-1], [2]]), np.float32([1003, 970, 1050]), np.float32([1, 2, 0.5])
    features = {"dense": tf.constant(x), "ids": tf.zeros([3, 1], tf.int32)}
    predictions = 1000 + 20 * x[:, 0]
    np.testing.assert_allclose(model(features), predictions)
    # What a served model computes is the same number before mean and unit.
    assert isinstance(model.row_scorer(), ModelScorer)
    found = model.train_on_batch(features, y, w, return_dict=True)
    errors = (predictions - y) / 20
    assert found["loss"] == pytest.approx((w * errors**2).sum() / 3, rel=1e-5)
    assert found["rmse"] == pytest.approx(np.sqrt(np.average((20 * errors) ** 2, weights=w)), rel=1e-5)
    assert found["mae"] == pytest.approx(np.average(np.abs(20 * errors), weights=w), rel=1e-5)
    assert model.shift.numpy() == pytest.approx(-0.25 * 2 * (w * errors).sum() / 3, rel=1e-5)


# ---- a run -----------------------------------------------------------------------------------------------------------


def make_config(data, **train):
    return RunConfig(
        DataConfig(path=data),
        DLRMConfig(embedding_dim=8, bottom_mlp=(16, 8), top_mlp=(32, 1)),
        OptimizerConfig("adam", 0.01, "lazy_adam", 0.01),
        TrainConfig(**{"batch_size": 128, "tensorboard": False, **train}),
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return rating_log.make(str(tmp_path_factory.mktemp("ratings")))


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    workdir = str(tmp_path_factory.mktemp("run"))
    return workdir, train_and_evaluate(make_config(data, epochs=30, patience=6), workdir)


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    output = str(tmp_path_factory.mktemp("exports") / "ratings")
    return export(run[0], output, options=ExportOptions(context=("user",)))


@pytest.mark.slow
def test_a_planted_rating_is_learned_down_to_its_noise(data, run):
    workdir, result = run
    labels = pq.read_table(f"{data}/eval").column("label").to_numpy()
    evaluation = evaluate_run(workdir)
    columns = evaluation.columns()
    assert 0.95 * rating_log.NOISE < columns["this model"]["rmse"] < 1.1 * rating_log.NOISE
    mean, weights = td.Schema.load(f"{data}/schema.json").label.mean, evaluation.scores.weights
    np.testing.assert_array_equal(evaluation.scores.labels, labels)
    by_hand = np.sqrt(np.average((labels.astype(np.float64) - mean) ** 2, weights=weights))
    assert columns["training mean"]["rmse"] == pytest.approx(by_hand) and by_hand > 6
    assert evaluation.scores.metrics() == result.best


def test_groups_have_the_errors_that_pandas_finds(data, run):
    evaluation = evaluate_run(run[0])
    found = Grouping(run[0], ["item"]).measure(evaluation, "eval")
    rows = pq.read_table(f"{data}/eval").to_pandas()
    rows["error"] = evaluation.scores.logits.astype(np.float64) - rows["label"]
    table = pd.DataFrame(found.to_dict()["group_by"]["item"]).set_index("row")
    for row, part in rows.groupby("item"):
        expected = [
            len(part),
            part["weight"].sum(),
            np.average(part["label"].astype(np.float64), weights=part["weight"]),
            np.average(part["label"] + part["error"], weights=part["weight"]),
            np.sqrt(np.average(part["error"] ** 2, weights=part["weight"])),
            np.average(part["error"].abs(), weights=part["weight"]),
        ]
        columns = ["examples", "weight", "label_mean", "prediction_mean", "rmse", "mae"]
        np.testing.assert_allclose(table.loc[row, columns].to_numpy(float), expected, rtol=1e-6)
    assert len(table) == rows["item"].nunique() == 15
    assert "By item, the 2 largest of 15 groups:" in found.text(2) and "rmse" in found.text(2)
    with pytest.raises(ValueError, match="gauc=user,item: label 'rating' is a number to predict, which has no AUC"):
        Grouping(run[0], gauc=["user", "item"])


def test_what_a_rating_depends_on_is_what_its_model_relies_on(run):
    """See `rating_log.write`: the effects of user, item and price add up, and nothing acts together."""
    found = explain_run(run[0], Questions(interaction_examples=200))
    rises = {f.feature: f.worsening["rmse_rise"].mean() for f in found.importance.features}
    assert found.importance.metrics["rmse"] == pytest.approx(run[1].best["rmse"], rel=1e-6)
    rng = np.random.default_rng(0)  # the log's
    stds = {"user": rng.normal(0, 5, 20).std(), "item": rng.normal(0, 5, 15).std(), "price": 3}
    for feature, std in stds.items():  # an effect exchanged for another adds twice their variance to the squared error
        rise = np.sqrt(2 * std**2 + rating_log.NOISE**2) - rating_log.NOISE
        assert rises[feature] == pytest.approx(rise, rel=0.15)
    assert max(s for *_, s, _ in found.interactions.pairs()) < 2
    text, data = found.text(3), found.to_dict()
    assert f"to RMSE {run[1].best['rmse']:.6f} and MAE " in text and "second difference of the prediction|" in text
    assert set(data["importance"]) == {"rmse", "mae", "examples", "seeds", "features"} and data["label"] == "rating"
    assert len(data["importance"]["features"][0]["rmse_rises"]) == 3
    assert len(td.plots.explanation(found.to_dict())) == 3


def test_the_best_checkpoint_has_the_lowest_error(run):
    workdir, result = run
    records = [json.loads(line) for line in (Path(workdir) / "metrics.jsonl").read_text().splitlines()]
    errors = [r["eval"]["rmse"] for r in records]
    assert result.best["rmse"] == min(errors) and result.best_step == records[np.argmin(errors)]["step"]
    assert errors[0] > 1.5 * min(errors)
    if "did not improve" in result.reason:
        assert result.reason == "the evaluation RMSE did not improve in 6 evaluations"
        assert np.argmin(errors) == len(errors) - 7
    assert 0 < records[-1]["train"]["loss"] < 0.15 and records[-1]["train"]["mae"] < 2


def test_a_target_auc_is_refused(data, tmp_path):
    with pytest.raises(
        ValueError, match=r"config.train.target_auc=0.8: the label of .* has no AUC and no log loss; leave it"
    ):
        train_and_evaluate(make_config(data, target_auc=0.8), str(tmp_path / "work"))
    assert not (tmp_path / "work").exists()


def test_a_warm_start_takes_labels_of_another_mean(run, data, tmp_path):
    other = rating_log.make(str(tmp_path / "log"), 1000, schema=rating_log.SCHEMA, seed=0)
    schema = td.Schema.load(f"{other}/schema.json")
    assert schema.label != td.Schema.load(f"{data}/schema.json").label
    model = td.DLRM(schema.with_dim(8), (16, 8), (32, 1))
    model.compile()
    report = warm_start(model, other, run[0])
    assert any(note.startswith("label 'rating': mean ") for note in report.notes)


# ---- what is exported ------------------------------------------------------------------------------------------------


def test_what_is_exported_says_what_was_trained(run, exported, data):
    manifest = read_manifest(exported.path)
    assert manifest.task == "regression" and "classify" not in manifest.signatures
    outputs = {name: set(signature["outputs"]) for name, signature in manifest.signatures.items()}
    assert outputs == {
        "serving_default": {"prediction"}, "serialized_examples": {"prediction"}, "encoded": {"prediction"},
        "regress": {"outputs"}, "rank": {"scores", "order"}, "rank_top_k": {"scores", "indices"},
    }  # fmt: skip
    serve = tf.saved_model.load(exported.path).signatures["serving_default"]
    raw = to_tensors(read_samples(data), td.Encoder.load(data).signature())
    predictions = serve(**raw)["prediction"].numpy()
    model, _, _ = load_run(run[0])
    encoded = td.Encoder.load(data)(raw)
    np.testing.assert_allclose(predictions, model(encoded), rtol=1e-5)
    labels = pq.read_table(f"{data}/eval").column("label").to_numpy()[:256]
    assert np.sqrt(np.mean((predictions - labels) ** 2)) < 1.3 * rating_log.NOISE
    lines = list(map(json.loads, Path(exported.path, "assets.extra/reference.jsonl").read_text().splitlines()))
    np.testing.assert_allclose([line["prediction"] for line in lines[:256]], predictions, rtol=1e-5)
    card = Path(exported.path, "MODEL.md").read_text()
    assert "predicts its label, a number," in card and "probabilit" not in card


def test_it_passes_its_verification_and_a_changed_one_does_not(exported, data, tmp_path):
    report = verify(exported.path, data, latency=False)
    assert report.passed, [check for check in report.checks if check.status != "ok"]
    texts = {check.name: check.message for check in report.checks}
    assert (
        texts["examples"].startswith("serialized_examples, regress: ")
        and "predictions of missing" in texts["odd values"]
    )

    changed = tmp_path / "1"
    shutil.copytree(exported.path, changed)
    file = changed / "assets.extra/reference.jsonl"
    lines = file.read_text().splitlines()
    row = json.loads(lines[3])
    lines[3] = json.dumps(row | {"prediction": row["prediction"] + 0.01})
    file.write_text("\n".join(lines) + "\n")
    statuses = {check.name: check for check in verify(str(changed), latency=False).checks}
    assert statuses["scores"].status == "failed" and "1 of 259 scores differ" in statuses["scores"].message


@pytest.mark.matrix
def test_smaller_tables_are_measured_in_the_unit_of_the_labels(run, tmp_path):
    smaller = export(run[0], str(tmp_path / "ratings"), options=ExportOptions(storage="int8"))
    accuracy = read_manifest(smaller.path).accuracy
    assert set(accuracy) == {"examples", "rmse", "mae", "largest_change"}
    assert accuracy["rmse"][0] == run[1].best["rmse"] and abs(np.subtract(*accuracy["rmse"])) < 0.05
    card = Path(smaller.path, "MODEL.md").read_text()
    assert f"RMSE {accuracy['rmse'][0]:.6f} -> {accuracy['rmse'][1]:.6f}, MAE" in card
    assert verify(smaller.path, latency=False).passed


def test_servers_and_clients_take_it(exported, data):
    rows = read_samples(data)[:3]
    with serving_bundles.running(os.path.dirname(exported.path)) as there:
        (model,) = there.http.get("/catalog").json()["models"]  # what the page shows
        assert model["versions"][0]["output"] == "prediction"
        for address in (there.rest, f"grpc://{there.grpc}"):
            with ServingClient(address, "ratings") as client:
                predictions = client.predict({name: [row[name] for row in rows] for name in rows[0]})["prediction"]
                np.testing.assert_allclose(client.regress(rows), predictions, rtol=1e-6)
                ranked = client.rank(
                    {"user": rows[0]["user"]}, {n: [row[n] for row in rows] for n in ("price", "item")}
                )
                assert ranked["scores"][0] == pytest.approx(predictions[0], rel=1e-5)
                with pytest.raises(InvalidRequest, match="unknown signature 'classify'"):
                    client.classify(rows)


def test_predictions_are_logged_as_probabilities_are():
    inputs, predictions = {"price": np.float32([1, 2])}, np.float32([7, 8])
    request = ScoredRequest("r", "ratings", 1, "serving_default", inputs, {"prediction": predictions})
    found = request.scores()
    assert found is not None and found.tolist() == [7, 8]
    rows = request.choose(found, np.array([1]))
    assert (rows.probabilities.tolist(), rows.numbers.tolist(), rows.inputs["price"].tolist()) == ([8], [1], [2])


def test_a_tolerance_grows_with_numbers_beyond_the_usual():
    tolerance = Tolerance(0.5, 10.0)
    found, expected = np.array([10.5, 10.6, 100.0, 100.0, np.nan]), np.array([10.0, 10.0, 104.9, 106.0, 1.0])
    assert tolerance.met(found, expected).tolist() == [True, False, True, False, False]
    assert str(tolerance) == "0.5, in proportion above 10" and str(Tolerance(1e-6)) == "1e-06"
