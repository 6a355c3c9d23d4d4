import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from tfrs_dlrm.embeddings import SGD, EmbeddingTables, LazyAdam, PerTableOptimizer, RowWiseAdagrad
from tfrs_dlrm.embeddings.keras_optimizers import as_row_optimizer
from tfrs_dlrm.embeddings.optimizers import ROW_OPTIMIZERS
from tfrs_dlrm.schema import CategoricalFeature, Label, Schema, Table

SCHEMA = Schema(Label("y"), (), (CategoricalFeature("f"),), (Table("f", 3, 5),))
DECAY = keras.optimizers.schedules.ExponentialDecay(0.3, 2, 0.5)
legacy = keras.optimizers.legacy
TRANSLATED = {
    "sgd": lambda: keras.optimizers.SGD(0.3, nesterov=True),
    "sgd, schedule": lambda: keras.optimizers.SGD(DECAY),
    "sgd, legacy": lambda: legacy.SGD(0.3),
    "adagrad": lambda: keras.optimizers.Adagrad(0.3),
    "adagrad from 0": lambda: keras.optimizers.Adagrad(0.3, initial_accumulator_value=0.0, epsilon=1e-3),
    "adagrad, schedule": lambda: keras.optimizers.Adagrad(DECAY),
    "adagrad, legacy": lambda: legacy.Adagrad(0.3, initial_accumulator_value=0.5),
    "adagrad, legacy schedule": lambda: legacy.Adagrad(DECAY),
    "ftrl": lambda: keras.optimizers.Ftrl(0.3, l1_regularization_strength=0.02),
    "ftrl, legacy": lambda: legacy.Ftrl(0.3, l1_regularization_strength=0.02),
}


def gradients(tables, ids, targets):
    """The table's, and that of the looked-up rows, of a loss that is not linear in them."""
    with tf.GradientTape(persistent=True) as tape:
        vectors = tables.lookup({"ids": ids})
        loss = tf.reduce_mean(tf.square(tf.tanh(vectors[0]) - targets))
    return tf.convert_to_tensor(tape.gradient(loss, tables.tables["f"])), tape.gradient(loss, vectors)


@pytest.mark.parametrize("name", TRANSLATED)
def test_trains_as_the_keras_optimizer_does_on_the_whole_table(name):
    rng = np.random.default_rng(0)
    plain, ours = EmbeddingTables(SCHEMA), EmbeddingTables(SCHEMA)
    optimizer, rows = TRANSLATED[name](), as_row_optimizer(TRANSLATED[name]())
    rows.build(ours.tables)
    for step in range(8):
        ids = [[0], [1], [2], [3], [4], [1]] if step == 0 else rng.integers(0, 5, [4, 1])  # Ftrl zeroes other rows
        ids, targets = tf.constant(ids), tf.constant(rng.normal(size=[len(ids), 3]), tf.float32)
        optimizer.apply_gradients([(gradients(plain, ids, targets)[0], plain.tables["f"])])
        ours.update({"ids": ids}, gradients(ours, ids, targets)[1], rows)
        np.testing.assert_allclose(ours.tables["f"], plain.tables["f"], atol=1e-6)


def test_names_are_those_of_recipes():
    for name, cls in ROW_OPTIMIZERS.items():
        assert type(as_row_optimizer(name)) is cls
    one = PerTableOptimizer("rowwise_adagrad", {"f": "lazy_adam", "g": keras.optimizers.SGD(0.5)})
    assert [type(rule) for rule in one.rules] == [RowWiseAdagrad, LazyAdam, SGD] and one.rule("g").learning_rate == 0.5


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (
            "adam",
            "embedding_optimizer='adam' is not a row optimizer; did you mean 'lazy_adam'.* choose one of 'rowwise_",
        ),
        ("Adagrad", "did you mean 'adagrad'"),
        (0.1, r"embedding_optimizer=0.1 is not a row optimizer; give td.RowWiseAdagrad\(rate\)"),
        (
            keras.optimizers.Adam(),
            r"=Adam\(...\): no row optimizer has the formula .* Write td.LazyAdam\(rate\), whose",
        ),
        (legacy.Adam(), r"=Adam\(...\): no row optimizer has the formula"),
        (keras.optimizers.RMSprop(), r"=RMSprop\(...\): no row optimizer .* Write td.RowWiseAdagrad\(rate\)"),
        (keras.optimizers.SGD(momentum=0.9), r"=SGD\(momentum=0.9\): row optimizers have no momentum .* leave it out"),
        (legacy.SGD(momentum=0.9), r"=SGD\(momentum=0.9\)"),
        (legacy.SGD(decay=0.1), r"=SGD\(decay=0.1\): .*schedules.InverseTimeDecay"),
        (legacy.Adagrad(clipnorm=1.0), r"=Adagrad\(clipnorm=1.0\)"),
        (keras.optimizers.Adagrad(clipvalue=1.0), r"=Adagrad\(clipvalue=1.0\)"),
        (keras.optimizers.Adagrad(global_clipnorm=1.0), r"=Adagrad\(global_clipnorm=1.0\)"),
        (keras.optimizers.Adagrad(use_ema=True), r"=Adagrad\(use_ema=True\)"),
        (keras.optimizers.Adagrad(weight_decay=0.1), r"=Adagrad\(weight_decay=0.1\): .* decays looked-up rows only"),
        (keras.optimizers.Ftrl(l2_regularization_strength=0.1), r"=Ftrl\(l2_regularization_strength=0.1\): .* an l2"),
        (keras.optimizers.Ftrl(l2_shrinkage_regularization_strength=0.1), r"=Ftrl\(l2_shrinkage"),
        (keras.optimizers.Ftrl(beta=0.1), r"=Ftrl\(beta=0.1\)"),
        (keras.optimizers.Ftrl(learning_rate_power=-0.3), r"=Ftrl\(learning_rate_power=-0.3\)"),
        (keras.optimizers.Ftrl(DECAY), r"=Ftrl\(learning_rate=ExponentialDecay\): .* write td.FTRL\(schedule\)"),
    ],
)
def test_refuses(given, text):
    with pytest.raises(ValueError, match=text):
        as_row_optimizer(given)
