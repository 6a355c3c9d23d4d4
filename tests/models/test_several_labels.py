"""Several labels at once, of which an example may lack all but the first, from a raw log to what is exported."""

import dataclasses
import json
import os
from pathlib import Path

import funnel_log
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import rating_log
import serving_bundles
import tensorflow as tf
import tf_keras as keras
from any_model import any_model
from sklearn.metrics import log_loss, roc_auc_score

import tfrs_dlrm as td
from tfrs_dlrm.config import MODELS, DataConfig, DLRMConfig, OptimizerConfig, RunConfig, TrainConfig
from tfrs_dlrm.data.preparing.samples import read_samples, to_tensors
from tfrs_dlrm.data.reading.record_dataset import record_dataset
from tfrs_dlrm.data.reading.records import write_records
from tfrs_dlrm.serving.bundle.manifest import read_manifest
from tfrs_dlrm.serving.client.serving_client import ServingClient
from tfrs_dlrm.serving.exporting.export import ExportOptions, export
from tfrs_dlrm.serving.request_logs.label_join import join_labels
from tfrs_dlrm.serving.request_logs.request_log import RequestLog
from tfrs_dlrm.serving.request_logs.scored_rows import ScoredRequest
from tfrs_dlrm.serving.verification.verify import verify
from tfrs_dlrm.tools.explain.explain_run import Questions, explain_run
from tfrs_dlrm.training.evaluation import evaluate_run
from tfrs_dlrm.training.factory import load_run
from tfrs_dlrm.training.groups import Grouping
from tfrs_dlrm.training.loop import train_and_evaluate

OUTPUTS = ["probability", "probability_purchase", "prediction_paid"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return funnel_log.make(str(tmp_path_factory.mktemp("funnel")))


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    config = RunConfig(
        DataConfig(path=data),
        DLRMConfig(embedding_dim=8, bottom_mlp=(16, 8), top_mlp=(32, 1)),
        OptimizerConfig("adam", 0.01, "lazy_adam", 0.01),
        TrainConfig(batch_size=128, epochs=10, tensorboard=False),
    )
    workdir = str(tmp_path_factory.mktemp("run"))
    return workdir, train_and_evaluate(config, workdir)


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    return export(run[0], str(tmp_path_factory.mktemp("exports") / "funnel"), options=ExportOptions(context=("user",)))


# ---- data ------------------------------------------------------------------------------------------------------------


def test_the_schema_is_plain_json():
    assert td.Schema.from_json(funnel_log.SCHEMA.to_json()) == funnel_log.SCHEMA
    assert "more_labels" not in json.loads(rating_log.SCHEMA.to_json())
    assert [label.name for label in funnel_log.SCHEMA.labels] == ["", "purchase", "paid"]
    assert funnel_log.SCHEMA.label_columns == ("label", "label/purchase", "label/paid")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([{"column": "bought?"}], "label 'bought?': names are letters, digits and underscores"),
        ([{"column": "a"}, {"column": "a"}], "label 'a' is listed 2 times"),
        ([{"column": "a", "std": 2.0}], "label 'a': std=2.0 belongs to task 'regression'"),
        ([{"column": "a", "loss_weight": 0.0}], "label 'a': loss_weight=0.0; a positive number is needed"),
    ],
)
def test_wrong_labels_are_refused(more, message):
    wrong = json.loads(rating_log.SCHEMA.to_json()) | {"more_labels": more}
    with pytest.raises(ValueError) as e:
        td.Schema.from_json(json.dumps(wrong))
    assert message in str(e.value)


def test_prepared_labels_are_those_of_the_log(data):
    log = pd.read_csv(Path(data).parent / "funnel.csv")
    parts = [pq.read_table(f"{data}/{split}").to_pandas() for split in ("train", "eval")]
    found = pd.concat(parts)[["label", "label/purchase", "label/paid"]].to_numpy()
    expected = np.stack([log["clicked"], log["bought?"].map({"yes": 1.0, "no": 0.0}), log["paid"]], axis=1)
    expected = expected.astype(np.float32)

    def ordered(rows):
        return rows[np.lexsort(np.nan_to_num(rows, nan=-1).T)]

    np.testing.assert_array_equal(ordered(found), ordered(expected))
    assert 0.2 < np.isnan(found[:, 1]).mean() < np.isnan(found[:, 2]).mean() < 0.9
    paid = td.Schema.load(f"{data}/schema.json").more_labels[1]
    known = parts[0]["label/paid"].dropna().to_numpy(np.float64)
    assert (paid.mean, paid.std) == pytest.approx((known.mean(), known.std()), rel=1e-9)


def test_batches_have_a_column_for_each_label(data):
    _, labels, weights = next(iter(td.dataset(data, 100, split="eval")))
    expected = pq.read_table(f"{data}/eval").to_pandas()[["label", "label/purchase", "label/paid"]][:100]
    np.testing.assert_array_equal(labels, expected)
    assert labels.shape == (100, 3) and weights.shape == (100,)
    write_records(data)
    _, again, _ = next(iter(record_dataset(data, 100, split="eval")))
    np.testing.assert_array_equal(again, labels)


def test_only_the_labels_beside_the_first_may_be_missing(tmp_path):
    lines = ["1,yes,3.5", "0,,", "1,NA,NA", "NA,no,1", "1,maybe,1", "1,no,high", "1,no,"]
    (tmp_path / "log.csv").write_text(
        "clicked,bought?,paid,user\n" + "".join(f"{x},u{i % 2}\n" for i, x in enumerate(lines))
    )
    schema = td.Schema(
        funnel_log.SCHEMA.label,
        categorical=(td.CategoricalFeature("user"),),
        text=td.TextFormat(missing=("NA",)),
        more_labels=funnel_log.SCHEMA.more_labels,
    )
    manifest = td.prepare(schema, [str(tmp_path / "log.csv")], str(tmp_path / "out"), bad_rows="quarantine")
    bad = [json.loads(line) for line in (tmp_path / "out/quarantine.jsonl").read_text().splitlines()]
    assert [(b["row"], b["reason"]) for b in bad] == [
        (5, "the label is missing"),
        (6, "label 'maybe' is none of 'yes', 'no'"),
        (7, "'high' is not a finite float32 number"),
    ]
    assert manifest.rows("train") == 4
    found = pq.read_table(tmp_path / "out/train").to_pandas()[["label", "label/purchase", "label/paid"]]
    nan = np.nan
    np.testing.assert_array_equal(found, [[1, 1, 3.5], [0, nan, nan], [1, nan, nan], [1, 0, nan]])


def test_logged_requests_are_joined_with_all_labels(tmp_path):
    log = RequestLog(str(tmp_path / "log"), 1.0)
    inputs = {"age": np.float32([30, 40, 50]), "user": np.array([b"u1", b"u2", b"u3"], object)}
    inputs["item"] = inputs["user"]
    outputs = {"probability": np.float32([0.1, 0.2, 0.3]), "prediction_paid": np.float32([1, 2, 3])}
    found = ScoredRequest("r", "funnel", 1, "serving_default", inputs, outputs).scores()
    assert found is outputs["probability"]
    log.write("r", inputs, found, 1)
    log.close()
    labels = tmp_path / "labels.csv"
    labels.write_text("request_id,row,clicked,bought?,paid,weight\nr,0,0,,,1\nr,1,1,no,,2\nr,2,1,yes,9.5,1\n")
    joined = tmp_path / "joined.parquet"
    assert join_labels([f"{tmp_path}/log/requests-*.tfrecord"], str(labels), str(joined), funnel_log.SCHEMA).rows == 3
    td.prepare(funnel_log.SCHEMA, [str(joined)], str(tmp_path / "out"))
    found = pq.read_table(tmp_path / "out/train").to_pandas()[["label", "label/purchase", "label/paid", "weight"]]
    np.testing.assert_array_equal(found, [[0, np.nan, np.nan, 1], [1, 0, np.nan, 2], [1, 1, 9.5, 1]])


# ---- the model -------------------------------------------------------------------------------------------------------


class _Known(td.RankingModel):
    """Scores that are known: the dense features, each plus a weight."""

    def __init__(self, schema, **kwargs):
        super().__init__(schema, **kwargs)
        self.shifts = tf.Variable([0.0, 0.0, 0.0])

    def compute_logits(self, dense, embeddings, training):
        return dense + self.shifts + 0.0 * embeddings[0][:, :1]


def test_loss_and_metrics_are_those_of_each_label_where_it_is_known():
    schema = td.Schema(
        td.Label("a"),
        tuple(td.DenseFeature(name) for name in "xyz"),
        (td.CategoricalFeature("u"),),
        (td.Table("u", 4, 3),),
        more_labels=(td.Label("b", loss_weight=3.0), td.Label("c", task="regression", mean=10.0, std=2.0)),
    )
    model = _Known(schema)
    model.compile(keras.optimizers.SGD(0.5))
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(50, 3)).astype(np.float32), rng.exponential(1, 50).astype(np.float32)
    y = np.stack([rng.integers(0, 2, 50), rng.integers(0, 2, 50), rng.normal(10, 2, 50)], axis=1).astype(np.float32)
    known = rng.random((50, 3)) < [1, 0.6, 0.4]
    features = {"dense": tf.constant(x), "ids": tf.zeros([50, 1], tf.int32)}
    scores = np.stack([x[:, 0], x[:, 1], 10 + 2 * x[:, 2]], axis=1)
    np.testing.assert_allclose(model.logits(features), scores, rtol=1e-6)
    probabilities = 1 / (1 + np.exp(-x[:, :2]))
    np.testing.assert_allclose(model(features), np.column_stack([probabilities, scores[:, 2]]), rtol=1e-5)
    found = model.train_on_batch(features, np.where(known, y, np.nan), w, return_dict=True)

    probability, errors = 1 / (1 + np.exp(-x.astype(np.float64))), x[:, 2] - (y[:, 2] - 10) / 2
    losses = [-np.where(y[:, i] == 1, np.log(probability[:, i]), np.log1p(-probability[:, i])) for i in (0, 1)]
    masked = w[:, None] * known
    parts = [(masked[:, 0] * losses[0]), 3 * masked[:, 1] * losses[1], masked[:, 2] * errors**2]
    assert found["loss"] == pytest.approx(np.sum(parts) / 50, rel=1e-5)
    b, c = known[:, 1], known[:, 2]
    assert found["auc"] == pytest.approx(roc_auc_score(y[:, 0], x[:, 0], sample_weight=w), abs=1e-3)
    assert found["auc_b"] == pytest.approx(roc_auc_score(y[b, 1], x[b, 1], sample_weight=w[b]), abs=1e-3)
    assert found["log_loss_b"] == pytest.approx(log_loss(y[b, 1], probability[b, 1], sample_weight=w[b]), rel=1e-5)
    assert found["rmse_c"] == pytest.approx(2 * np.sqrt(np.average(errors[c] ** 2, weights=w[c])), rel=1e-5)
    assert "rmse" not in found and "log_loss" in found
    slopes = [probability[:, 0] - y[:, 0], 3 * (probability[:, 1] - y[:, 1]), 2 * errors]
    expected = [-0.5 * (masked[:, i] * slope).sum() / 50 for i, slope in enumerate(slopes)]
    np.testing.assert_allclose(model.shifts, expected, rtol=1e-4)


def test_weights_learned_by_uncertainty_follow_the_formula():
    """See `LabelLosses`: a step of SGD against NumPy, also on two replicas, and the minimum e^s of many steps.

    Label b is known of a quarter of the rows and has a loss weight, which do not move that minimum.
    """
    schema = td.Schema(
        td.Label("a"),
        (td.DenseFeature("x"), td.DenseFeature("y"), td.DenseFeature("z")),
        (td.CategoricalFeature("u"),),
        (td.Table("u", 4, 3),),
        more_labels=(td.Label("b", loss_weight=3.0), td.Label("c", task="regression", mean=10.0, std=2.0)),
    )
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 3)).astype(np.float32)
    y = np.stack([rng.integers(0, 2, 64), rng.random(64) < 0.9, rng.normal(10, 6, 64)], axis=1).astype(np.float32)
    w, known = rng.exponential(1, 64).astype(np.float32), np.ones((64, 3), bool)
    known[16:, 1] = False
    features = {"dense": tf.constant(x), "ids": tf.zeros([64, 1], tf.int32)}
    p = 1 / (1 + np.exp(-x.astype(np.float64)))
    losses = [-np.where(y[:, i] == 1, np.log(p[:, i]), np.log1p(-p[:, i])) for i in (0, 1)]
    losses = np.stack([*losses, (x[:, 2] - (y[:, 2] - 10) / 2) ** 2 / 2], axis=1)
    weights, of_labels = w[:, None] * known, np.array([1.0, 3.0, 1.0])
    sizes, sums = weights.sum(0) / 64, (weights * losses).sum(0) / 64
    s = np.array([0.5, -0.25, 1.0])
    raw = 4 * np.arctanh(s / 4)
    for strategy in (tf.distribute.get_strategy(), td.make_strategy("mirrored", 2)):
        with strategy.scope():
            model = _Known(schema, loss_weights="uncertainty")
            model.compile(keras.optimizers.SGD(0.1), td.SGD(0.0))
        model.log_variances.assign(raw)
        batches = tf.data.Dataset.from_tensors((features, np.where(known, y, np.nan), w)).unbatch().batch(64)
        found = model.fit(strategy.experimental_distribute_dataset(batches), steps_per_epoch=1, verbose=0)
        loss = np.sum(of_labels * (sizes * s / 2 + np.exp(-s) * sums))
        assert found.history["loss"][0] == pytest.approx(loss, rel=1e-5)
        slopes = of_labels * (sizes / 2 - np.exp(-s) * sums) * (1 - (s / 4) ** 2)
        np.testing.assert_allclose(model.log_variances, raw - 0.1 * slopes, rtol=1e-5)
    model = _Known(schema, loss_weights="uncertainty")
    model.shifts = tf.Variable([0.0, 0.0, 0.0], trainable=False)
    model.compile(keras.optimizers.SGD(0.5), td.SGD(0.0))
    model.fit(batches.repeat(), steps_per_epoch=150, verbose=0)
    np.testing.assert_allclose(np.exp(4 * np.tanh(model.log_variances / 4)), 2 * sums / sizes, rtol=1e-3)
    with pytest.raises(ValueError, match="loss_weights='uncertainty' is for several labels, and the schema has one"):
        td.EmbeddingMLP(dataclasses.replace(schema, more_labels=()), loss_weights="uncertainty")
    with pytest.raises(ValueError, match="loss_weights='learned': choose fixed or uncertainty"):
        td.EmbeddingMLP(schema, loss_weights="learned")


def test_uncertainty_stays_finite_without_examples_and_without_errors():
    """Neither unknown labels nor rows of weight 0 move a factor. One without a loss counts at most e^4 times."""
    schema = td.Schema(
        td.Label("a"),
        tuple(td.DenseFeature(name) for name in "xyz"),
        (td.CategoricalFeature("u"),),
        (td.Table("u", 4, 3),),
        more_labels=(td.Label("b"), td.Label("c", task="regression")),
    )
    features = {"dense": tf.constant([[0.0, 0.0, 3.0]] * 4), "ids": tf.zeros([4, 1], tf.int32)}
    labels = np.array([[0, np.nan, 3.0], [1, np.nan, 3.0]] * 2, np.float32)
    model = _Known(schema, loss_weights="uncertainty")
    model.shifts = tf.Variable([0.0, 0.0, 0.0], trainable=False)
    model.compile(keras.optimizers.SGD(1e4), td.SGD(0.0))
    assert model.train_on_batch(features, labels, np.zeros(4), return_dict=True)["loss"] == 0
    np.testing.assert_array_equal(model.log_variances, np.zeros(3))
    for _ in range(3):
        model.train_on_batch(features, labels)
    first, never, exact = model.log_variances.numpy()
    assert np.isfinite(first) and never == 0 and exact < -1e3
    # Of label a at its bound, as of c, the loss is log 2; only half of s = -4 is left of the loss of c.
    found = model.test_on_batch(features, labels, return_dict=True)["loss"]
    s = 4 * np.tanh(first / 4)
    assert found == pytest.approx(s / 2 + np.exp(-s) * np.log(2) - 2, rel=1e-5)


SHARING = {
    "dlrm": {},
    "mlp": {},
    "dcn": {"cross_rank": 2},
    "dcn, parallel": {"cross_structure": "parallel"},
    "gdcn": {},
    "final_mlp": {"first_mlp": (16, 8), "second_mlp": (8,), "heads": 2},
    "mask_net": {"mask_units": 8},
    "final_net": {},
    "din": {},
    "bst": {},
    "auto_int": {"attention_dim": 4},
}


FURTHER = ("dcn, parallel", "gdcn", "final_mlp", "auto_int")  # add something to the output of the top MLP


@pytest.mark.parametrize("form", SHARING)
def test_labels_share_all_but_the_last_layer(data, form):
    """Each answer is that of a model of one label with its column of the last layer."""
    several = td.Schema.load(f"{data}/schema.json")
    shape = {"embedding_dim": 8, "bottom_mlp": (16, 8), "top_mlp": (32, 1)}
    config = any_model(form.split(",")[0], **shape | SHARING[form])
    model = config.build(several, seed=1)
    model.build()
    assert sum(v.shape[-1] == 3 for v in model.dense_variables) == 2 + (form in FURTHER)
    features = next(iter(td.dataset(data, 64)))[0]
    answers = model.logits(features).numpy()
    for i, label in enumerate(several.labels):
        alone = config.build(dataclasses.replace(several, label=label, more_labels=()), seed=2)
        alone.build()
        alone.set_weights([w[..., i : i + 1] if w.shape[-1] == 3 else w for w in model.get_weights()])
        np.testing.assert_allclose(answers[:, i], alone.logits(features), rtol=1e-5, atol=1e-5)
    again = type(model).from_config(model.get_config())
    again.build()
    assert [v.shape for v in again.dense_variables] == [v.shape for v in model.dense_variables]
    assert config.dense_cost(several).weights == sum(v.shape.num_elements() for v in model.dense_variables)


@pytest.mark.slow
def test_labels_of_other_models_than_dlrm_are_exported(data, tmp_path):
    model = td.DCN(td.Schema.load(f"{data}/schema.json"), top_mlp=(8, 1), cross_rank=2)
    model.build()
    path, found = td.export_model(model, data, str(tmp_path / "funnel"), ExportOptions(context=("user",)))
    assert list(found.tolerances) == OUTPUTS and verify(path, latency=False).passed


def test_a_model_with_one_number_for_several_labels_is_refused(data):
    class One(td.RankingModel):
        def compute_logits(self, dense, embeddings, training):
            return dense[:, :1]

    message = r"One.compute_logits returned shape \(1, 1\); return \[B, 3\], a column for each label"
    with pytest.raises(ValueError, match=message):
        One(td.Schema.load(f"{data}/schema.json")).build()
    schema = td.Schema.load(f"{data}/schema.json").with_dim(1)
    of_one_label = set(MODELS) - {form.split(",")[0] for form in SHARING}
    assert of_one_label >= {"logistic_regression", "matrix_factorization", "wide_and_deep"}
    for model in (MODELS[name]().model_class() for name in of_one_label):
        with pytest.raises(ValueError, match=f"{model.__name__} predicts one label and the schema has 3; .* as DLRM"):
            model(schema)


# ---- a run and its export --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_label_is_learned_and_the_first_one_chooses(data, run):
    workdir, result = run
    records = [json.loads(line) for line in (Path(workdir) / "metrics.jsonl").read_text().splitlines()]
    assert result.best["auc"] == max(r["eval"]["auc"] for r in records)
    evaluation = evaluate_run(workdir)
    found, mean = evaluation.columns()["this model"], evaluation.columns()["training mean"]
    assert found == result.best
    labels = pq.read_table(f"{data}/eval").to_pandas()
    assert found["examples"] == len(labels) and found["examples_paid"] == labels["label/paid"].notna().sum()
    assert found["auc"] > 0.7 and found["auc_purchase"] > 0.8
    # The price has a noise of 5.
    assert (
        4.5 < found["rmse_paid"] < 8
        and mean["rmse_paid"] > 15
        and set(mean)
        == {f"{name}_paid" for name in ("examples", "weight", "label_mean", "prediction_mean", "rmse", "mae")}
    )
    known = labels["label/purchase"].notna()
    scores = evaluation.scores.more["purchase"]
    np.testing.assert_array_equal(scores.labels, labels["label/purchase"][known])
    expected = roc_auc_score(scores.labels, scores.logits, sample_weight=labels["weight"][known])
    assert found["auc_purchase"] == pytest.approx(expected, abs=1e-12)


def test_groups_are_of_the_label_that_was_chosen_where_it_is_known(data, run):
    evaluation = evaluate_run(run[0])
    rows = pq.read_table(f"{data}/eval").to_pandas()
    names = Path(data, "vocabulary/item.txt").read_text().split()
    rows["value"] = ["<unseen>" if row == 0 else names[row - 1] for row in rows["item"]]
    model, _, _ = load_run(run[0])
    features = [x for x, *_ in td.dataset(data, 5000, split="eval", shuffle=False)]
    scores = np.concatenate([model.logits(x).numpy() for x in features])

    def by_pandas(label, column, measure):
        frame = rows.assign(y=rows[label].astype(np.float64), z=scores[:, column].astype(np.float64))
        frame = frame[frame["y"].notna()]
        return {value: (len(part), measure(part)) for value, part in frame.groupby("value")}

    def auc(part):
        return roc_auc_score(part["y"], part["z"], sample_weight=part["weight"]) if part["y"].nunique() > 1 else None

    def rmse(part):
        return np.sqrt(np.average((part["y"] - part["z"]) ** 2, weights=part["weight"]))

    cases = [("", "label", 0, "auc", auc), ("purchase", "label/purchase", 1, "auc", auc)]
    for name, column, i, metric, measure in [*cases, ("paid", "label/paid", 2, "rmse", rmse)]:
        found = Grouping(run[0], ["item"], label=name).measure(evaluation, "eval").to_dict()
        table = found["group_by"]["item"]
        expected = by_pandas(column, i, measure)
        assert found["label"] == (name or "clicked") and set(table["value"]) == set(expected)
        for value, examples, got in zip(table["value"], table["examples"], table[metric], strict=True):
            assert examples == expected[value][0]
            want = expected[value][1]
            assert np.isnan(got) if want is None else got == pytest.approx(want, rel=1e-5)
    grouping = Grouping(run[0], gauc=["user"], label="purchase")
    assert "GAUC by user for label purchase: 0." in grouping.measure(evaluation, "eval").text(3)
    assert evaluation.figure(grouping.label).get_suptitle().endswith(", purchase")
    with pytest.raises(ValueError, match="gauc=user: label 'paid' is a number to predict"):
        Grouping(run[0], gauc=["user"], label="paid")
    with pytest.raises(ValueError, match="no label 'purchases'; did you mean 'purchase'"):
        Grouping(run[0], label="purchases")
    with pytest.raises(ValueError, match="no label 'x'; choose among clicked, purchase, paid"):
        Grouping(run[0], label="x")


def test_what_each_label_depends_on(run):
    """See `funnel_log.write`: age counts for what is paid only, and the user hardly for that."""
    first = {}
    for label in ("", "purchase", "paid"):
        found = explain_run(run[0], Questions(("importance",), label=label))
        metrics = run[1].best if not label else {k.removesuffix(f"_{label}"): v for k, v in run[1].best.items()}
        assert found.importance.metrics == pytest.approx({k: metrics[k] for k in found.importance.metrics}, rel=1e-6)
        assert found.importance.examples == metrics["examples"] and found.label == (label or "clicked")
        first[label] = [f.feature for f in found.importance.features]
    assert set(first[""][:2]) == {"user", "item"} and first["purchase"][0] == "item"
    assert first["paid"] == ["item", "age", "user"]
    with pytest.raises(ValueError, match="no label 'purchased'; did you mean 'purchase'"):
        explain_run(run[0], Questions(label="purchased"))


def test_the_first_label_goes_by_its_column_unless_another_has_that_name():
    liked = td.Label("rating", threshold=8.0)
    features = {"categorical": (td.CategoricalFeature("user"),)}
    assert td.Schema(liked, **features).label_number("rating") == 0
    both = td.Schema(liked, more_labels=(td.Label("rating", task="regression"),), **features)
    assert (both.label_number(), both.label_number("rating")) == (0, 1)


@pytest.mark.matrix
def test_replicas_learn_the_same(data):
    found = []
    for strategy in (tf.distribute.get_strategy(), td.make_strategy("mirrored", 4)):
        with strategy.scope():
            model = td.DLRM(td.Schema.load(f"{data}/schema.json"), (16, 8), (16, 1))
            model.compile(keras.optimizers.SGD(0.01), td.SGD(0.01))
        batches = strategy.experimental_distribute_dataset(td.dataset(data, 128))
        history = model.fit(batches, steps_per_epoch=4, verbose=0).history
        found.append({name: values[-1] for name, values in history.items()})
    assert found[0] == pytest.approx(found[1], rel=1e-4) and {"auc_purchase", "rmse_paid"} < found[0].keys()


def test_what_is_exported_answers_for_each_label(data, run, exported):
    signatures = tf.saved_model.load(exported.path).signatures
    raw = to_tensors(read_samples(data), td.Encoder.load(data).signature())
    found = signatures["serving_default"](**raw)
    assert sorted(found) == sorted(OUTPUTS)
    model, _, _ = load_run(run[0])
    expected = dict(zip(OUTPUTS, model(td.Encoder.load(data)(raw)).numpy().T, strict=True))
    for name in OUTPUTS:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=1e-6, err_msg=name)

    manifest = read_manifest(exported.path)
    outputs = {name: sorted(signature["outputs"]) for name, signature in manifest.signatures.items()}
    scores = ["scores", "scores_paid", "scores_purchase"]
    assert outputs == {
        **dict.fromkeys(("serving_default", "serialized_examples", "encoded"), sorted(OUTPUTS)),
        "regress": ["outputs"],
        "classify": ["classes", "scores"],
        "rank": sorted(["order", *scores]),
        "rank_top_k": sorted(["indices", *scores]),
    }
    assert manifest.tolerance == 1e-6 and list(manifest.more_outputs) == OUTPUTS[1:]
    assert manifest.more_outputs["prediction_paid"]["tolerance"] > 1e-5
    assert "also gives `probability_purchase`, `prediction_paid`" in Path(exported.path, "MODEL.md").read_text()


def test_candidates_are_ordered_by_the_first_label(data, exported):
    signatures = tf.saved_model.load(exported.path).signatures
    raw = {k: v.numpy() for k, v in to_tensors(read_samples(data)[:12], td.Encoder.load(data).signature()).items()}
    request = {k: tf.constant(v[:1] if k == "user" else v[None]) for k, v in raw.items()}
    rows = {k: tf.constant(np.repeat(v[:1], 12) if k == "user" else v) for k, v in raw.items()}
    ranked, one_by_one = signatures["rank"](**request), signatures["serving_default"](**rows)
    for name, output in zip(("scores", "scores_purchase", "scores_paid"), OUTPUTS, strict=True):
        np.testing.assert_allclose(ranked[name][0], one_by_one[output], rtol=1e-5, atol=1e-6)
    order = np.argsort(-one_by_one["probability"].numpy(), kind="stable")
    np.testing.assert_array_equal(ranked["order"][0], order)
    best = signatures["rank_top_k"](**request, k=tf.constant([5]))
    np.testing.assert_array_equal(best["indices"][0], order[:5])
    np.testing.assert_allclose(best["scores_paid"][0], one_by_one["prediction_paid"].numpy()[order[:5]], rtol=1e-5)


def test_a_changed_answer_for_any_label_is_found(exported, data, tmp_path):
    report = verify(exported.path, data, latency=False)
    assert report.passed, [check for check in report.checks if check.status != "ok"]
    file = Path(exported.path, "assets.extra/reference.jsonl")
    whole = file.read_text()
    lines = whole.splitlines()
    row = json.loads(lines[4])
    lines[4] = json.dumps(row | {"probability_purchase": row["probability_purchase"] + 0.01})
    try:
        file.write_text("\n".join(lines) + "\n")
        checks = {check.name: check for check in verify(exported.path, latency=False).checks}
    finally:
        file.write_text(whole)
    assert checks["scores"].status == "failed" and "line 5, probability_purchase: " in checks["scores"].message


@pytest.mark.matrix
def test_smaller_tables_are_measured_by_label(run, tmp_path):
    smaller = export(run[0], str(tmp_path / "funnel"), options=ExportOptions(storage="float16"))
    accuracy = read_manifest(smaller.path).accuracy
    assert accuracy["auc"][0] == run[1].best["auc"] and set(accuracy["more"]) == {"purchase", "paid"}
    assert accuracy["more"]["paid"]["rmse"][0] == run[1].best["rmse_paid"]
    assert accuracy["more"]["purchase"]["examples"] == run[1].best["examples_purchase"]
    assert "examples of label paid: RMSE" in Path(smaller.path, "MODEL.md").read_text()


def test_clients_get_every_answer(exported, data):
    rows = read_samples(data)[:3]
    with serving_bundles.running(os.path.dirname(exported.path)) as there:
        (model,) = there.http.get("/catalog").json()["models"]  # what the page shows
        assert model["versions"][0]["output"] == "probability"
        for address in (there.rest, f"grpc://{there.grpc}"):
            with ServingClient(address, "funnel") as client:
                answers = client.predict({name: [row[name] for row in rows] for name in rows[0]})
                assert sorted(answers) == sorted(OUTPUTS)
                np.testing.assert_allclose(client.regress(rows), answers["probability"], rtol=1e-5)
                positive = [dict(row)["1"] for row in client.classify(rows)]
                np.testing.assert_allclose(positive, answers["probability"], rtol=1e-5)
