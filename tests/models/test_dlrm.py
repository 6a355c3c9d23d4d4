import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from cases import matrix
from layer_checks import global_policy

from tfrs_dlrm.models import DLRM
from tfrs_dlrm.schema import CategoricalFeature, DenseFeature, Label, Schema, Table

DENSE = (DenseFeature("x1"), DenseFeature("x2", indicator=True))
CATEGORICAL = tuple(CategoricalFeature(name) for name in ("a", "b", "c"))
TABLES = tuple(Table(name, 4, 12) for name in ("a", "b", "c"))
SCHEMA = Schema(Label("y"), DENSE, CATEGORICAL, TABLES)


def batch(schema: Schema = SCHEMA, size: int = 6) -> dict[str, tf.Tensor]:
    rng = np.random.default_rng(0)
    features = {"ids": tf.constant(rng.integers(0, 12, [size, len(schema.one_hot)]), tf.int32)}
    if schema.dense:
        features["dense"] = tf.constant(rng.normal(size=(size, schema.dense_width)), tf.float32)
    return features


def numpy_mlp(x, mlp, final_relu):
    weights = mlp.get_weights()
    for i in range(0, len(weights), 2):
        x = x @ weights[i] + weights[i + 1]
        if final_relu or i < len(weights) - 2:
            x = np.maximum(x, 0)
    return x


@pytest.mark.parametrize("self_interaction", [False, True])
@pytest.mark.parametrize("dense", [(), DENSE])
def test_forward_equals_numpy(dense, self_interaction):
    schema = Schema(Label("y"), dense, CATEGORICAL, TABLES)
    model = DLRM(schema, bottom_mlp=(8, 4), top_mlp=(8, 5, 1), self_interaction=self_interaction)
    features = batch(schema)
    logits = model.logits(features)

    vectors = [model.embeddings.tables[c].numpy()[features["ids"][:, i]] for i, c in enumerate("abc")]
    bottom = [numpy_mlp(features["dense"].numpy(), model.bottom_mlp, final_relu=True)] if dense else []
    vectors = bottom + vectors
    count = len(vectors)
    pairs = [(i, j) for i in range(count) for j in range(i + self_interaction)]
    products = np.stack([(vectors[i] * vectors[j]).sum(1) for i, j in pairs], axis=1)
    expected = numpy_mlp(np.concatenate([*bottom, products], axis=1), model.top_mlp, final_relu=False)[:, 0]
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)
    assert logits.shape == (6,) and np.std(expected) > 1e-3


@pytest.mark.parametrize("dense", [(), DENSE])
def test_tables_of_other_dimensions_are_projected(dense, tmp_path):
    tables = (Table("a", 4, 12), Table("b", 2, 12), Table("c", 3, 12))
    features = (
        CategoricalFeature("a"),
        CategoricalFeature("b"),
        CategoricalFeature("c"),
        CategoricalFeature("b2", table="b"),
    )
    schema = Schema(Label("y"), dense, features, tables)
    model = DLRM(schema, (8, 4), (1,))
    rows = batch(schema)
    logits = model.logits(rows)
    assert set(model.projections) == {"b", "c"}

    vectors = []
    for i, (feature, table) in enumerate(zip("abcb", "abcb", strict=True)):
        vector = model.embeddings.tables[table].numpy()[rows["ids"][:, i]]
        vectors.append(vector if feature == "a" else vector @ model.projections[table].kernel.numpy())
    bottom = [numpy_mlp(rows["dense"].numpy(), model.bottom_mlp, final_relu=True)] if dense else []
    vectors = bottom + vectors
    products = np.stack([(vectors[i] * vectors[j]).sum(1) for i in range(len(vectors)) for j in range(i)], axis=1)
    expected = numpy_mlp(np.concatenate([*bottom, products], axis=1), model.top_mlp, final_relu=False)[:, 0]
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)

    before = model.projections["b"].kernel.numpy()
    model.compile("sgd", metrics=[])
    model.fit(rows, tf.ones([6]), verbose=0)
    assert not np.array_equal(before, model.projections["b"].kernel)
    assert DLRM.from_config(model.get_config()).get_config() == model.get_config()
    path = tf.train.Checkpoint(model=model).write(str(tmp_path / "c"))
    again = DLRM.from_config(model.get_config())
    again.build()
    tf.train.Checkpoint(model=again).read(path).assert_existing_objects_matched().expect_partial()
    np.testing.assert_array_equal(again(rows), model(rows))


def test_a_vector_and_numbers_interact_without_tables():
    schema = Schema(Label("y"), (DenseFeature("title", size=3, projected=True), DenseFeature("price")))
    model = DLRM(schema, (8, 4), (1,))
    dense = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    model.build()
    kernel, bias = (v.numpy() for v in model.vector_projections.projections["title"].variables)
    bottom = numpy_mlp(dense[:, 3:], model.bottom_mlp, final_relu=True)
    product = (bottom * (dense[:, :3] @ kernel + bias)).sum(1, keepdims=True)
    expected = numpy_mlp(np.concatenate([bottom, product], axis=1), model.top_mlp, final_relu=False)[:, 0]
    np.testing.assert_allclose(model.logits({"dense": dense}), expected, rtol=1e-5, atol=1e-6)
    assert kernel.shape == (3, 4) and DLRM.from_config(model.get_config()).dim == 4
    model.compile("sgd", metrics=[])
    model.fit({"dense": dense}, np.ones(6), verbose=0)
    assert not np.array_equal(kernel, model.vector_projections.projections["title"].kernel)


def test_weights_are_a_function_of_the_seed():
    def weights(seed):
        model = DLRM(SCHEMA, (4, 4), (4, 1), seed=seed)
        model.build()
        return model.get_weights()

    for a, b, c in zip(weights(1), weights(1), weights(2), strict=True):
        np.testing.assert_array_equal(a, b)
        assert not a.any() or not np.array_equal(a, c)  # the last bias begins at 0


@pytest.mark.parametrize("policy", matrix(["float32", "mixed_bfloat16"], fast=["mixed_bfloat16"]))
def test_learns_an_interaction(policy):
    """The label says whether `a` and `b` are both even or both odd: nothing that one feature alone tells."""
    features = batch(size=2000)
    labels = tf.cast(tf.reduce_sum(features["ids"][:, :2], axis=1) % 2 == 0, tf.float32)
    data = tf.data.Dataset.from_tensor_slices((features, labels)).batch(100)
    with global_policy(policy):
        model = DLRM(SCHEMA, (8, 4), (16, 1))
        model.compile(keras.optimizers.Adam(0.01))
        model.fit(data.repeat(8), verbose=0)
        assert model.evaluate(data, verbose=0, return_dict=True)["auc"] > 0.98


def test_config_round_trip():
    model = DLRM(SCHEMA, (8, 4), (8, 1), self_interaction=True, seed=3)
    again = DLRM.from_config(model.get_config())
    assert again.get_config() == model.get_config()
    np.testing.assert_array_equal(again(batch()), model(batch()))


def test_saved_models_take_encoded_batches(tmp_path):
    """Also when the model was first called by the train step, which looks up embeddings on its own."""
    model = DLRM(SCHEMA, (8, 4), (8, 1))
    model.compile(metrics=[])
    model.fit(batch(), tf.ones([6]), verbose=0)
    tf.saved_model.save(model, str(tmp_path))
    serve = tf.saved_model.load(str(tmp_path)).signatures["serving_default"]
    (probabilities,) = serve(**batch(size=3)).values()
    np.testing.assert_allclose(probabilities, model(batch(size=3)), rtol=1e-5)


def test_refuses():
    with pytest.raises(ValueError, match=r"bottom_mlp=\[8, 5\] must end in 4, the dimension of the tables"):
        DLRM(SCHEMA, (8, 5))
    with pytest.raises(ValueError, match=r"top_mlp=\[8\] must end in 1"):
        DLRM(SCHEMA, (8, 4), (8,))
    history = CategoricalFeature("a", multi_valued=True, sequence_length=3)
    with pytest.raises(ValueError, match=r"'a' is a sequence.*remove sequence_length"):
        DLRM(Schema(Label("y"), DENSE, (history, *CATEGORICAL[1:]), TABLES), (8, 4))
    with pytest.raises(ValueError, match="1 vector has nothing to interact with"):
        DLRM(Schema(Label("y"), DENSE))
