"""Every model against NumPy, and along the whole path from training to serving."""

import click_log
import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from any_model import any_model
from cases import matrix
from family import FORMS, NO_DENSE, PROJECTED, SCHEMA, batch, make
from numpy_models import LATER, in_numpy, rows_of_tables
from sklearn.linear_model import LogisticRegression as ScikitLearn

import tfrs_dlrm as td
from tfrs_dlrm.config import MODELS, DataConfig, DLRMConfig, OptimizerConfig, RunConfig, TrainConfig
from tfrs_dlrm.config.models.base import DeepModelConfig
from tfrs_dlrm.data.encoding.encoder import Encoder
from tfrs_dlrm.data.preparing.samples import read_samples, to_tensors
from tfrs_dlrm.data.reading.dataset import dataset
from tfrs_dlrm.schema import CategoricalFeature, DenseFeature, Label, Schema, Table
from tfrs_dlrm.serving.exporting.export import ExportOptions, export
from tfrs_dlrm.serving.exporting.serving_model import ServingModel
from tfrs_dlrm.serving.verification.verify import verify
from tfrs_dlrm.training.evaluation import score
from tfrs_dlrm.training.factory import load_run
from tfrs_dlrm.training.loop import train_and_evaluate
from tfrs_dlrm.training.workdir import Workdir


def test_every_model_has_a_form():
    assert {form.split()[0] for form in FORMS} == set(MODELS)


@pytest.mark.parametrize("schema", [SCHEMA, PROJECTED, NO_DENSE], ids=["", "projected", "without dense features"])
@pytest.mark.parametrize("form", FORMS)
def test_forward_equals_numpy(form, schema):
    model = make(form, schema)
    for size in (6, 1):
        features = batch(schema, size)
        expected = in_numpy(form.split()[0], model, features)
        found = model.logits(features)
        assert found.dtype == tf.float32
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(model(features), 1 / (1 + np.exp(-expected)), rtol=1e-5, atol=1e-5)
    assert np.std(in_numpy(form.split()[0], model, batch(schema))) > 0.02


@pytest.mark.parametrize("schema", [SCHEMA, PROJECTED], ids=["", "projected"])
def test_gates_of_final_mlp_read_numbers(schema, monkeypatch):
    second = ("price", "title") if schema.projected else ("price",)
    contexts = {"first_context": ("user", "age"), "second_context": second}
    monkeypatch.setitem(FORMS, "final_mlp of numbers", FORMS["final_mlp"] | contexts)
    model, features = make("final_mlp of numbers", schema), batch(schema)
    assert [gate.mlp.dense_layers[0].kernel.shape[0] for gate in model.gates] == [4 + 2, 1 + 4 * bool(schema.projected)]
    np.testing.assert_allclose(model.logits(features), in_numpy("final_mlp", model, features), rtol=1e-5, atol=1e-5)
    again = type(model).from_config(model.get_config())
    assert again.get_config() == model.get_config()


@pytest.mark.parametrize("form", FORMS)
def test_gradients_reach_every_weight_and_every_table(form):
    model = make(form, PROJECTED)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.square(model.logits(batch(PROJECTED))))
    gradients = tape.gradient(loss, model.trainable_variables)
    unused = {"matrix_factorization": ["tags"]}.get(form, [])
    for v, g in zip(model.trainable_variables, gradients, strict=True):
        reached = g is not None and np.abs(tf.convert_to_tensor(g)).max() > 0
        assert reached != any(v is model.embeddings.tables[name] for name in unused), v.name


@pytest.mark.parametrize("form", FORMS)
def test_config_round_trip_and_bfloat16(form):
    model, features = make(form, PROJECTED), batch(PROJECTED)
    again = type(model).from_config(model.get_config())
    assert again.get_config() == model.get_config()
    again.build()
    half = type(model).from_config(model.get_config() | {"dtype": "mixed_bfloat16"})
    half.build()
    assert {x.compute_dtype for x in half._flatten_layers() if "mlp" in x.name or x is half} == {"bfloat16"}
    for twin, tolerance in ((again, 0), (half, 0.05)):
        twin.set_weights(model.get_weights())
        expected = model.logits(features).numpy()
        np.testing.assert_allclose(twin.logits(features), expected, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("name", matrix(LATER, fast=["final_mlp"]))
def test_xla_compiles_the_logits_and_their_gradient_as_tpus_need(name):
    model, features = make(name, PROJECTED), batch(PROJECTED)

    @tf.function
    def logits_and_gradient(dense, rows):
        with tf.GradientTape() as tape:
            tape.watch(rows)
            logits = model.logits({"dense": dense}, rows)
        return logits, tape.gradient(logits, rows)

    given = features["dense"], list(model.embeddings(features))
    compiled = tf.function(logits_and_gradient.python_function, jit_compile=True)
    for found, expected in zip(*(tf.nest.flatten(f(*given)) for f in (compiled, logits_and_gradient)), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("model", [td.EmbeddingMLP, td.DCN])
def test_many_features_train_in_batches_whose_size_is_not_known(model):
    """TensorFlow's gradient of a concatenation of more than 16 does not say how wide they are."""
    names = [f"c{i}" for i in range(17)]
    schema = Schema(
        Label("y"),
        (),
        tuple(CategoricalFeature(n) for n in names),
        tuple(Table(n, 2, vocabulary_size=3) for n in names),
    )
    made = model(schema, top_mlp=(4, 1))
    made.compile(keras.optimizers.SGD(0.1), td.SGD(0.1), metrics=[])
    before = made.embeddings.tables["c16"].numpy()
    ids = np.random.default_rng(0).integers(0, 3, (7, 17)).astype(np.int32)
    made.fit(tf.data.Dataset.from_tensor_slices(({"ids": ids}, np.ones(7))).batch(4), verbose=0)
    moved = np.all(made.embeddings.tables["c16"].numpy() != before, axis=1)
    assert set(np.flatnonzero(moved)) == set(ids[:, 16])


def test_logistic_regression_of_numbers_alone():
    model, start = (td.LogisticRegression(Schema(Label("y"), (DenseFeature("x"),))) for _ in range(2))
    model.compile(keras.optimizers.SGD(1.0), metrics=[])
    model.fit({"dense": np.array([[2.0], [1.0]])}, np.array([1.0, 0.0]), verbose=0)
    start.build()
    w = float(start.dense_weights.vectors[0, 0])
    errors = 1 / (1 + np.exp(-np.array([2 * w, w]))) - [1, 0]
    np.testing.assert_allclose(model.dense_weights.vectors[0, 0], w - np.mean(errors * [2, 1]), rtol=1e-5)
    np.testing.assert_allclose(model.bias.bias, -np.mean(errors), atol=1e-6)


def test_dim_is_that_of_the_vectors():
    for model in (td.DeepFM, td.WideAndDeep):
        made = model(SCHEMA.with_dim(16), top_mlp=(1,))
        made.build()
        assert {t.dim for t in made.schema.tables} == {16}
        assert {name: tuple(v.shape) for name, v in made.embeddings.tables.items()} == {
            "user": (12, 17),
            "tags": (7, 17),
            "item": (9, 17),
        }
        inputs = 7 * 16 if model is td.DeepFM else 4 * 16 + 3  # three numbers, which have vectors in DeepFM
        assert made.top_mlp.dense_layers[0].kernel.shape == (inputs, 1)
    assert td.FactorizationMachine(SCHEMA.with_dim(1)).embeddings.tables["user"].shape == (12, 2)


def test_a_model_of_ones_own_with_linear_weights():
    class Wide(td.RankingModel):
        linear_weights = True

        def compute_logits(self, dense, embeddings, training):
            return tf.add_n([v[:, -1] for v in embeddings])

    made = Wide(SCHEMA)
    rows = rows_of_tables(made, batch())
    assert [r.shape[1] for r in rows] == [4, 6, 5, 5]
    np.testing.assert_allclose(made.logits(batch()), sum(r[:, -1] for r in rows), rtol=1e-5)


def test_refuses():
    names = {"user": 4, "item": 4, "tags": 3}
    categorical = tuple(CategoricalFeature(name) for name in names)
    schema = Schema(Label("y"), (DenseFeature("x"),), categorical, tuple(Table(n, d, 5) for n, d in names.items()))
    history = CategoricalFeature("user", multi_valued=True, sequence_length=3)
    for config in MODELS.values():
        model = config().model_class()
        with pytest.raises(ValueError, match=rf"'user' is a sequence, which {model.__name__} does not support"):
            model(Schema(Label("y"), (), (history, *categorical[1:]), schema.tables))
    for model in (c().model_class() for c in MODELS.values() if issubclass(c, DeepModelConfig)):
        with pytest.raises(ValueError, match=r"top_mlp=\[8\] must end in 1, the logit"):
            model(schema, top_mlp=(8,))
    with pytest.raises(ValueError, match=r"\{'user': 4, 'item': 4, 'tags': 3\}; LogisticRegression needs 1 for all"):
        td.LogisticRegression(schema)
    for model in (td.FactorizationMachine, td.DeepFM):
        with pytest.raises(ValueError, match=rf"'tags': 3\}}; {model.__name__} needs the same for all"):
            model(schema)
        with pytest.raises(ValueError, match=f"no categorical features; {model.__name__} multiplies their vectors"):
            model(Schema(Label("y"), schema.dense))
    with pytest.raises(ValueError, match=r"user='user', item='x': the names of two categorical.* user, item, tags"):
        td.MatrixFactorization(schema, item="x")
    with pytest.raises(ValueError, match=r"\{'user': 4, 'tags': 3\}; MatrixFactorization needs the same"):
        td.MatrixFactorization(schema, item="tags")
    tags = Schema(Label("y"), (), categorical[2:], schema.tables[2:])
    with pytest.raises(
        ValueError, match=r"rows of {'tags': 3} numbers; .* needs {'tags': 4}; make them for its schema"
    ):
        td.EmbeddingMLP(tags.with_dim(4), embeddings=td.EmbeddingTables(tags))
    with pytest.raises(ValueError, match=r"needs {'tags': 4}; make them for schema.with_linear_weights\(\)"):
        td.WideAndDeep(tags, embeddings=td.EmbeddingTables(tags))
    td.WideAndDeep(tags, embeddings=td.EmbeddingTables(tags.with_linear_weights()))
    with pytest.raises(ValueError, match=r"make them for schema.with_linear_weights\(\['user', 'item'\]\)"):
        td.MatrixFactorization(schema, embeddings=td.EmbeddingTables(schema))
    td.MatrixFactorization(schema, embeddings=td.EmbeddingTables(schema.with_linear_weights(["user", "item"])))
    with pytest.raises(ValueError, match="cross_structure='both': choose stacked or parallel"):
        td.DCN(schema, cross_structure="both")
    with pytest.raises(ValueError, match=r"first_mlp=\[8, 3\], heads=2: at least one layer"):
        td.FinalMLP(schema, first_mlp=(8, 3), heads=2)
    with pytest.raises(
        ValueError, match="'z' is in the context of a gate of FinalMLP, and no feature; the schema has user, i"
    ):
        td.FinalMLP(schema, second_context=("z",))
    with pytest.raises(ValueError, match="interaction='sum', self_interaction=False: choose dot, with or without"):
        td.DLRM(schema, interaction="sum")


def run_config(data, form, **train):
    model = {"embedding_dim": 8, "bottom_mlp": (16, 8), "top_mlp": (16, 8, 1), "user": "user", "item": "site"}
    return RunConfig(
        DataConfig(path=data, shuffle_rows=500),
        any_model(form.split()[0], **(FORMS[form] | model)),
        OptimizerConfig("adam", 0.01, "rowwise_adagrad", 0.05),
        TrainConfig(**({"batch_size": 128, "steps": 12, "eval_every_steps": 6, "tensorboard": False} | train)),
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return click_log.make(str(tmp_path_factory.mktemp("log")))


def save(model, data, path):
    """The two signatures alone, since all of them take long to trace."""
    serving = ServingModel(model, Encoder.load(data), ("user", "price"))
    functions = {
        "serving_default": (lambda **raw: {"probability": serving.score_raw(raw)}, serving.raw_signature()),
        "rank": (lambda **raw: {"scores": serving.score_candidates(raw)}, serving.rank_signature()),
    }
    signatures = {name: tf.function(f).get_concrete_function(**specs) for name, (f, specs) in functions.items()}
    tf.saved_model.save(serving, path, signatures=signatures)


@pytest.mark.parametrize("form", matrix([*MODELS, "dlrm cat", "dlrm autodis"], fast=[]))
def test_trains_and_serves(form, data, tmp_path):
    """The loaded SavedModel says of raw rows what the best checkpoint of the run says of encoded ones."""
    result = train_and_evaluate(run_config(data, form), str(tmp_path / "run"))
    assert result.step == 12
    model, _, _ = load_run(str(tmp_path / "run"))
    assert type(model) is MODELS[form.split()[0]]().model_class()
    if form == "dlrm cat":  # all of an export, which compares each of its signatures with the model
        path = export(
            str(tmp_path / "run"), str(tmp_path / "out"), options=ExportOptions(context=("user", "price"))
        ).path
        report = verify(path, latency=False)  # finds nothing of training: no moving averages that move, no counters
        assert report.passed, report
    else:
        save(model, data, path := str(tmp_path / "out"))
    signatures = tf.saved_model.load(path).signatures

    expected = 1 / (1 + np.exp(-score(model, dataset(data, 64, split="eval", shuffle=False).take(1)).logits))
    raw = to_tensors(read_samples(data)[:64], Encoder.load(data).signature())
    np.testing.assert_allclose(signatures["serving_default"](**raw)["probability"], expected, atol=1e-6)
    assert np.std(expected) > 1e-3
    context = {"user", "price"}
    request = {k: v[:1] if k in context else v[tf.newaxis, :20] for k, v in raw.items()}
    alike = {k: tf.repeat(v[:1], 20) if k in context else v[:20] for k, v in raw.items()}
    ranked = signatures["rank"](**request)["scores"][0]
    np.testing.assert_allclose(ranked, signatures["serving_default"](**alike)["probability"], atol=1e-6)


@pytest.mark.slow
def test_a_resumed_run_drops_and_normalizes_as_if_it_had_not_stopped(data, tmp_path):
    def weights(name):
        path = Workdir(str(tmp_path / name)).checkpoint("latest")
        readers = [tf.train.load_checkpoint(f"{path}/{file}") for file in ("rows", "dense")]
        names = [(r, n) for r in readers for n in r.get_variable_to_shape_map() if "OBJECT_GRAPH" not in n]
        return {n: np.asarray(r.get_tensor(n)) for r, n in names}

    train_and_evaluate(run_config(data, "dlrm cat"), str(tmp_path / "whole"))
    for steps in (6, 12):
        train_and_evaluate(run_config(data, "dlrm cat", steps=steps), str(tmp_path / "cut"))
    whole, cut = weights("whole"), weights("cut")
    assert whole.keys() == cut.keys()
    for name in whole:
        np.testing.assert_array_equal(whole[name], cut[name], err_msg=name)
    moved = [n for n in whole if "moving_mean" in n and np.abs(whole[n]).max() > 0]
    counted = [whole[n] for n in whole if n.startswith("model/") and "dropouts" in n and "steps" in n]
    assert len(moved) == 3 and counted == [12] * 3  # of the hidden layers: one of the bottom MLP, two of the top MLP


@pytest.mark.slow
def test_batch_normalization_is_over_all_replicas(data):
    def trained(strategy):
        with strategy.scope():
            config = DLRMConfig(8, bottom_mlp=(16, 8), top_mlp=(16, 1), batch_norm=True)
            model = config.build(config.schema(Schema.load(f"{data}/schema.json")), seed=0)
            model.compile(keras.optimizers.SGD(0.1), td.SGD(0.1), metrics=[])
            model.fit(dataset(data, 64, shuffle=False), steps_per_epoch=4, verbose=0)
        return [v.numpy() for v in model.variables]

    for one, three in zip(
        trained(td.make_strategy("one_device")), trained(td.make_strategy("mirrored", 3)), strict=True
    ):
        np.testing.assert_allclose(three, one, atol=1e-5)


def test_logistic_regression_is_that_of_scikit_learn():
    """L2 on looked-up rows weighs each weight by how often its value occurs; scaled columns do the same there."""
    rng = np.random.default_rng(0)
    n, l2 = 400, 0.3
    ids = rng.integers(0, [4, 9], (n, 2)).astype(np.int32)
    lengths = rng.integers(0, 4, n)
    tags, x = rng.integers(0, 5, lengths.sum()).astype(np.int32), rng.normal(size=(n, 2)).astype(np.float32)
    onehot = np.concatenate([np.eye(4)[ids[:, 0]], np.eye(9)[ids[:, 1]], np.zeros([n, 5])], axis=1)
    np.add.at(onehot, (np.repeat(np.arange(n), lengths), 13 + tags), 1)
    y = (rng.random(n) < 1 / (1 + np.exp(-onehot @ rng.normal(size=18) - x @ [1, -1] + 0.5))).astype(np.float32)

    categorical = (CategoricalFeature("a"), CategoricalFeature("b"), CategoricalFeature("c", multi_valued=True))
    tables = (Table("a", 1, 4), Table("b", 1, 9), Table("c", 1, 5, combiner="sum"))
    dense = (DenseFeature("x1"), DenseFeature("x2"))
    model = td.LogisticRegression(Schema(Label("y"), dense, categorical, tables))
    model.compile(keras.optimizers.SGD(1.0), td.SGD(1.0, l2=l2), metrics=[], steps_per_execution=100)
    features = {"ids": ids, "dense": x, "c": tf.RaggedTensor.from_row_lengths(tags, lengths)}
    batches = tf.data.Dataset.from_tensors((features, y)).repeat()
    model.fit(batches, steps_per_epoch=1500, verbose=0)

    scale = np.append(1 / np.sqrt(l2 * onehot.sum(0)), [1e3, 1e3])  # the numbers' weights are as good as free
    theirs = ScikitLearn(C=1, solver="newton-cholesky", tol=1e-10).fit(np.concatenate([onehot, x], axis=1) * scale, y)
    ours = np.concatenate([*(model.embeddings.tables[name] for name in "abc"), model.dense_weights.vectors])
    np.testing.assert_allclose(ours[:, 0], theirs.coef_[0] * scale, atol=1e-5)
    np.testing.assert_allclose(model.bias.bias, theirs.intercept_[0], atol=1e-5)
    assert np.abs(ours).max() > 0.5


@pytest.mark.parametrize("form", FORMS)
def test_first_predictions_are_near_the_share_of_ones(form):
    """With 2% of 1s, the log loss of a new model is close to that of always predicting them."""
    schema = SCHEMA.with_units({"label": (0.02, 1.0)})
    config = any_model(form.split()[0], **FORMS[form])
    model = config.build(config.schema(schema), seed=1)
    found = model(batch(schema)).numpy()
    np.testing.assert_array_less(np.abs(np.log(found / 0.02)), 1.2)
    again = type(model).from_config(model.get_config())
    np.testing.assert_allclose(again(batch(schema)), found, rtol=1e-5)
