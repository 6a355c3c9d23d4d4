import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from layer_checks import global_policy

from tfrs_dlrm.distribute.strategies import make_strategy
from tfrs_dlrm.embeddings import SGD, LazyAdam, RowWiseAdagrad
from tfrs_dlrm.models import RankingModel
from tfrs_dlrm.schema import CategoricalFeature, DenseFeature, Label, Schema, Table

SCHEMA = Schema(
    Label("y"),
    dense=(DenseFeature("x1"), DenseFeature("x2")),
    categorical=(
        CategoricalFeature("a"),
        CategoricalFeature("b", table="a"),
        CategoricalFeature("tags", multi_valued=True),
    ),
    tables=(Table("a", 3, 20), Table("tags", 3, 10)),
)


class Tower(RankingModel):
    """A hidden layer over everything side by side."""

    def __init__(self, schema, **kwargs):
        super().__init__(schema, **kwargs)
        initializers = {"kernel_initializer": keras.initializers.GlorotUniform(7)}
        self.hidden = keras.layers.Dense(8, "tanh", **initializers)
        self.logit = keras.layers.Dense(1, **initializers)

    def compute_logits(self, dense, embeddings, training):
        return self.logit(self.hidden(tf.concat([tf.cast(dense, embeddings[0].dtype), *embeddings], axis=1)))


class LogisticRegression(RankingModel):
    def compute_logits(self, dense, embeddings, training):
        return tf.add_n(embeddings)


ONE_FEATURE = Schema(
    Label("y"), categorical=(CategoricalFeature("c"),), tables=(Table("c", 1, 3, initializer="zeros"),)
)


def logistic_regression(*args, **kwargs) -> LogisticRegression:
    model = LogisticRegression(ONE_FEATURE)
    model.compile(*args, **kwargs)
    model.embeddings.tables["c"].assign([[0.0], [1.0], [-2.0]])
    return model


def dataset(batches: int, batch_size: int = 16, seed: int = 0) -> tf.data.Dataset:
    rng = np.random.default_rng(seed)
    n = batches * batch_size
    features = {
        "dense": tf.constant(rng.normal(size=(n, 2)), tf.float32),
        "ids": tf.constant(20 * rng.random((n, 2)) ** 2, tf.int32),
        "tags": tf.RaggedTensor.from_row_lengths(rng.integers(0, 10, 2 * n).astype("int32"), [1, 3] * (n // 2)),
    }
    labels = (features["dense"][:, 0] + tf.cast(features["ids"][:, 0], tf.float32) / 5 > 1).numpy()
    data = (features, tf.constant(labels, tf.float32), tf.constant(rng.uniform(0.5, 2, n), tf.float32))
    return tf.data.Dataset.from_tensor_slices(data).batch(batch_size)


def state(model: RankingModel) -> list[np.ndarray]:
    slots = [v for table in model.embedding_optimizer.slots.values() for v in table.values()]
    return [v.numpy() for v in [*model.variables, *slots, *model.optimizer.variables]]


def test_a_step_by_hand():
    """Logits 0 and 1 of labels 1 and 0: gradients (sigmoid - label) / 2 on rows 0 and 1."""
    model = logistic_regression(embedding_optimizer=SGD(1.0), metrics=[])
    sigmoid = 1 / (1 + np.exp(-1))
    logs = model.train_on_batch({"ids": np.array([[0], [1]])}, np.array([1.0, 0.0]), return_dict=True)
    np.testing.assert_allclose(logs["loss"], (np.log(2) - np.log(1 - sigmoid)) / 2, rtol=1e-6)
    np.testing.assert_allclose(model.embeddings.tables["c"][:, 0], [0.25, 1 - sigmoid / 2, -2], rtol=1e-6)


def test_weights_multiply_losses_and_the_loss_of_an_epoch_is_the_mean_over_its_examples():
    model = logistic_regression(metrics=[keras.metrics.BinaryCrossentropy(name="mean", from_logits=True)])
    ids, labels, weights = np.array([[0], [1], [2]]), np.array([1.0, 1.0, 0.0]), np.array([2.0, 0.5, 3.0])
    losses = weights * np.log1p(np.exp(-np.array([0.0, 1.0, 2.0])))
    data = tf.data.Dataset.from_tensor_slices(({"ids": ids}, labels, weights)).batch(2)  # the second has one example
    logs = model.evaluate(data, verbose=0, return_dict=True)
    np.testing.assert_allclose(logs["loss"], losses.sum() / 3, rtol=1e-6)
    np.testing.assert_allclose(logs["mean"], losses.sum() / weights.sum(), rtol=1e-6)


def test_trains_as_plain_keras_does():
    """The two verbs against one gradient with respect to all variables, both by SGD."""
    ours, plain = Tower(SCHEMA), Tower(SCHEMA)
    ours.compile(keras.optimizers.SGD(0.5), SGD(0.5))
    plain.build()
    optimizer = keras.optimizers.SGD(0.5)
    for features, labels, weights in dataset(5):
        with tf.GradientTape() as tape:
            losses = tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=plain.logits(features))
            loss = tf.reduce_mean(weights * losses)
        gradients = tape.gradient(loss, plain.trainable_variables)
        optimizer.apply_gradients(zip(gradients, plain.trainable_variables, strict=True))
    ours.fit(dataset(5), verbose=0)
    assert len(ours.trainable_variables) == 6
    for a, b in zip(ours.trainable_variables, plain.trainable_variables, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_steps_per_execution_changes_nothing():
    one, four = Tower(SCHEMA), Tower(SCHEMA)
    one.compile()
    four.compile(steps_per_execution=4)
    logs = [m.fit(dataset(8), epochs=2, verbose=0).history for m in (one, four)]
    assert logs[0] == logs[1]
    assert logs[0]["loss"][1] < logs[0]["loss"][0]
    assert {"loss", "auc", "log_loss"} <= set(logs[0])
    for a, b in zip(state(one), state(four), strict=True):
        np.testing.assert_array_equal(a, b)


def test_mixed_bfloat16():
    with global_policy("mixed_bfloat16"):
        model = Tower(SCHEMA)
        model.compile(metrics=[])
        half = model.fit(dataset(8), epochs=3, verbose=0).history["loss"]
        assert model.predict(dataset(1), verbose=0).dtype == np.float32
        assert {v.dtype for v in model.variables} == {tf.float32}
        assert model.embeddings.lookup(next(iter(dataset(1)))[0])[0].dtype == tf.bfloat16
    model = Tower(SCHEMA)
    model.compile(metrics=[])
    np.testing.assert_allclose(half, model.fit(dataset(8), epochs=3, verbose=0).history["loss"], rtol=0.01)


def test_batch_of_one():
    model = Tower(SCHEMA)
    model.compile()
    assert model.predict(dataset(2), verbose=0).shape == (32,)
    model.fit(dataset(2, batch_size=2).unbatch().batch(1), verbose=0)
    one, both = (model.predict(dataset(2, batch_size=2).unbatch().batch(n), verbose=0) for n in (1, 4))
    np.testing.assert_allclose(one, both, rtol=1e-5)


def test_a_nan_shows_in_the_loss():
    model = logistic_regression()
    model.embeddings.tables["c"].assign([[np.nan], [0.0], [0.0]])
    logs = model.fit({"ids": np.array([[0], [1]])}, np.array([1.0, 0.0]), batch_size=1, shuffle=False, verbose=0)
    assert np.isnan(logs.history["loss"][0])


def test_regularization_is_part_of_the_loss():
    class Regularized(LogisticRegression):
        def __init__(self, schema):
            super().__init__(schema)
            self.bias = keras.layers.Dense(1, use_bias=False, kernel_regularizer=lambda w: 10.0 * tf.reduce_sum(w))

        def compute_logits(self, dense, embeddings, training):
            return self.bias(embeddings[0])

    model = Regularized(ONE_FEATURE)
    model.compile(keras.optimizers.SGD(0.1), metrics=[])
    model.set_weights([*model.embeddings.get_weights(), np.array([[2.0]])])
    logs = model.train_on_batch({"ids": np.array([[0]])}, np.array([1.0]), return_dict=True)
    np.testing.assert_allclose(logs["loss"], np.log(2) + 20, rtol=1e-6)
    np.testing.assert_allclose(model.bias.kernel, [[1.0]])


def test_frozen_tables_stay():
    model = Tower(SCHEMA)
    model.embeddings.trainable = False
    model.compile()
    before = model.embeddings.get_weights()
    model.fit(dataset(2), verbose=0)
    for a, b in zip(before, model.embeddings.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_shares_of_the_replicas_add_up_to_the_loss_of_the_global_batch():
    """And a replica without examples has no share in it."""
    strategy = make_strategy("mirrored", 2)
    with strategy.scope():
        model = logistic_regression()
    both = {"ids": tf.constant([[0], [1]])}, tf.constant([1.0, 0.0]), tf.constant([3.0, 1.0])

    def share(kept):
        parts = [tf.nest.map_structure(lambda x, i=i: x[i:][: kept[i]], both) for i in range(2)]
        inputs = strategy.experimental_distribute_values_from_function(
            lambda context: parts[context.replica_id_in_sync_group]
        )
        shares = strategy.run(tf.function(model.compute_loss), args=(inputs,))
        return strategy.reduce("SUM", shares, axis=None)

    losses = 3 * np.log(2), np.log1p(np.e)
    np.testing.assert_allclose(share([1, 1]), np.sum(losses) / 2, rtol=1e-6)
    np.testing.assert_allclose(share([1, 0]), losses[0], rtol=1e-6)


def test_checkpoint_names(tmp_path):
    model = Tower(SCHEMA)
    model.compile()
    path = tf.train.Checkpoint(model=model).write(str(tmp_path / "c"))
    names = {name.removesuffix("/.ATTRIBUTES/VARIABLE_VALUE") for name, _ in tf.train.list_variables(path)}
    optimizer = {n for n in names if n.startswith("model/optimizer/")}
    assert names - optimizer - {"_CHECKPOINTABLE_OBJECT_GRAPH"} == {
        "model/embedding_optimizer/followed_rate",
        "model/embedding_optimizer/iterations",
        "model/embedding_optimizer/rate",
        "model/embedding_optimizer/slots/a/accumulator",
        "model/embedding_optimizer/slots/tags/accumulator",
        "model/embeddings/tables/a",
        "model/embeddings/tables/tags",
        "model/hidden/bias",
        "model/hidden/kernel",
        "model/logit/bias",
        "model/logit/kernel",
    }
    assert len(optimizer) == 2 + 2 * 4  # Adam: iterations and the rate, moments of the dense weights only


def test_a_restored_run_goes_on_bit_by_bit(tmp_path):
    def compiled():
        model = Tower(SCHEMA)
        rate = keras.optimizers.schedules.ExponentialDecay(0.05, 4, 0.5)
        model.compile(keras.optimizers.Adam(rate), LazyAdam(rate, l2=0.1), metrics=[])
        return model

    model = compiled()
    model.fit(dataset(10), verbose=0)
    path = tf.train.Checkpoint(model=model).write(str(tmp_path / "c"))
    model.fit(dataset(10, seed=1), verbose=0)
    again = compiled()
    tf.train.Checkpoint(model=again).read(path).assert_consumed()
    again.fit(dataset(10, seed=1), verbose=0)
    for a, b in zip(state(model), state(again), strict=True):
        np.testing.assert_array_equal(a, b)


def test_weights_restore_into_a_model_that_is_not_compiled(tmp_path):
    model = Tower(SCHEMA)
    model.compile()
    model.fit(dataset(2), verbose=0)
    path = tf.train.Checkpoint(model=model).write(str(tmp_path / "c"))
    again = Tower(SCHEMA)
    again.build()
    tf.train.Checkpoint(model=again).read(path).assert_existing_objects_matched().expect_partial()
    np.testing.assert_array_equal(again.predict(dataset(2), verbose=0), model.predict(dataset(2), verbose=0))


def test_refuses():
    with pytest.raises(NotImplementedError, match="RankingModel does not implement compute_logits"):
        RankingModel(SCHEMA).compile()
    features = next(iter(dataset(1)))[0]
    with pytest.raises(ValueError, match=r"\[B, 2\] is needed for this schema; found shape \(16, 1\)"):
        Tower(SCHEMA)(features | {"dense": features["dense"][:, :1]})
    with pytest.raises(ValueError, match="found nothing"):
        Tower(SCHEMA)({"ids": features["ids"], "tags": features["tags"]})
    with global_policy("mixed_float16"), pytest.raises(ValueError, match="use mixed_bfloat16"):
        Tower(SCHEMA).compile()

    class TwoLogits(LogisticRegression):
        def compute_logits(self, dense, embeddings, training):
            return tf.ones([4, 2])

    with pytest.raises(ValueError, match=r"TwoLogits.compute_logits returned shape \(4, 2\)"):
        TwoLogits(ONE_FEATURE).compile()


def test_a_shared_embedding_optimizer_is_refused():
    optimizer = RowWiseAdagrad()
    Tower(SCHEMA).compile(embedding_optimizer=optimizer)
    with pytest.raises(ValueError, match="make a new optimizer for each model"):
        logistic_regression(embedding_optimizer=optimizer)


def test_what_is_no_row_optimizer_is_refused():
    with pytest.raises(ValueError, match="embedding_optimizer='adam' is not a row optimizer"):
        Tower(SCHEMA).compile(embedding_optimizer="adam")
    with pytest.raises(ValueError, match=r"PerTableOptimizer: 'a'=Adam\(...\): no row optimizer has the formula"):
        Tower(SCHEMA).compile(embedding_optimizer={"a": keras.optimizers.Adam()})


def test_each_table_by_its_own_optimizer_from_a_mapping():
    model = Tower(SCHEMA)
    model.compile(embedding_optimizer={"a": LazyAdam()})
    assert {n: sorted(s) for n, s in model.embedding_optimizer.slots.items()} == {
        "a": ["m", "v"],
        "tags": ["accumulator"],
    }
