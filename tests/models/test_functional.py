"""The parts of a DLRM in models of a user's own: functional, and a subclass of `keras.Model`."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import tfrs_dlrm as td
from tfrs_dlrm.schema import CategoricalFeature, Label, Schema, Table

# People and movies, as in the DLRM tutorial of keras-rs: some ids, and numbers beside them.
SCHEMA = Schema(
    Label("liked"),
    categorical=(CategoricalFeature("user"), CategoricalFeature("movie"), CategoricalFeature("last", table="movie")),
    tables=(Table("user", 8, 40), Table("movie", 8, 30)),
)


def functional() -> keras.Model:
    numbers = keras.Input([2], name="numbers")
    ids = keras.Input([3], dtype=tf.int32, name="ids")
    vectors = td.EmbeddingTables(SCHEMA, seed=3)({"ids": ids})
    bottom = td.MLP([16, 8], final_activation="relu", seed=1, name="bottom")(numbers)
    products = td.DotInteraction()([bottom, *vectors])
    top = td.MLP([16, 1], final_activation="sigmoid", seed=2, dropout=0.2, name="top")
    return keras.Model({"numbers": numbers, "ids": ids}, top(tf.concat([bottom, products], axis=1)))


@keras.saving.register_keras_serializable("tests")
class Subclassed(keras.Model):
    """The same, with a way to be built before it is loaded, as Keras asks of models that take integers."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.tables = td.EmbeddingTables(SCHEMA, seed=3)
        self.bottom = td.MLP([16, 8], final_activation="relu", seed=1)
        self.interaction = td.DotInteraction()
        self.top = td.MLP([16, 1], final_activation="sigmoid", seed=2, dropout=0.2)

    def call(self, inputs, training=False):
        bottom = self.bottom(inputs["numbers"])
        products = self.interaction([bottom, *self.tables(inputs)])
        return self.top(tf.concat([bottom, products], axis=1), training=training)

    def build_from_config(self, config):
        self(data(1)[0])


def data(size: int = 96) -> tuple:
    rng = np.random.default_rng(0)
    ids, numbers = rng.integers(0, [40, 30, 30], [size, 3]), rng.normal(size=[size, 2])
    liked = ids[:, 0] % 2 + numbers[:, 0] > 0.5
    return {"numbers": numbers.astype(np.float32), "ids": ids.astype(np.int32)}, liked.astype(np.float32)


@pytest.mark.parametrize("make", [functional, Subclassed])
def test_trains_saves_loads_and_exports(make, tmp_path):
    model, (inputs, liked) = make(), data()
    batches = tf.data.Dataset.from_tensor_slices((inputs, liked)).batch(32)
    model.compile("adam", "binary_crossentropy", metrics=["AUC"])
    history = model.fit(batches, epochs=8, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]

    model.save(f"{tmp_path}/m.keras")
    model.save(f"{tmp_path}/m")
    model.save_weights(f"{tmp_path}/w.weights.h5")
    expected = model.predict(batches, verbose=0)
    loaded, from_directory = (keras.models.load_model(f"{tmp_path}/{name}") for name in ("m.keras", "m"))
    fresh = make()
    fresh(inputs)
    fresh.load_weights(f"{tmp_path}/w.weights.h5")
    for each in (loaded, from_directory, fresh):
        np.testing.assert_array_equal(each.predict(batches, verbose=0), expected)
    for each in (model, loaded):
        each.fit(batches, epochs=7, verbose=0)  # 21 steps
    for a, b in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)

    model.export(f"{tmp_path}/served")
    served = tf.saved_model.load(f"{tmp_path}/served")
    flat = [inputs["ids"], inputs["numbers"]]  # what Keras makes of the inputs of a functional model
    scores = served.serve(flat if make is functional else inputs)
    np.testing.assert_allclose(scores, model.predict(batches, verbose=0), atol=1e-6)
