"""Every model in Keras' files: what is loaded goes on as if it had not been saved."""

import dataclasses
import json
import os
import zipfile

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from cases import matrix
from family import HISTORIES, ONE_EACH, PROJECTED, SCHEMA, batch, make

import tfrs_dlrm as td
from tfrs_dlrm.schema import Label, Schema, Table
from tfrs_dlrm.training.schedules import WarmupPolynomialDecay

SEVERAL = (("dlrm", "number"), ("dcn", "several"), ("mlp", "several"))
AFTER = (("mlp mmoe", "after another"), ("dlrm ple", "after another"))
LABELS = {
    "click": [Label("y")],
    "number": [Label("y", task="regression", mean=2.0, std=3.0)],
    "several": [Label("y"), Label("z", task="regression", loss_weight=0.5)],
    "after another": [Label("y"), Label("z", after="y")],
    "click, histories": [Label("y")],
}
FORMATS = (".keras", "")
# Tracing a SavedModel takes most of the time; tests/models/test_family.py saves each model as one.
AS_SAVED_MODEL_TOO = {
    ("dlrm", "number", "float32"),
    ("matrix_factorization", "click", "float32"),
    ("wide_and_deep", "click", "float32"),
    ("final_mlp", "click", "float32"),
    ("bst", "click, histories", "float32"),
    ("mlp mmoe", "after another", "float32"),
    ("deepfm", "click", "mixed_bfloat16"),
}
STEPS = 20


def schema_of(labels: str, dtype: str = "float32") -> Schema:
    first, *more = LABELS[labels]
    schema = HISTORIES if labels == "click, histories" else PROJECTED
    tables = tuple(dataclasses.replace(t, dtype=dtype) for t in schema.tables)
    return dataclasses.replace(schema, label=first, more_labels=tuple(more), tables=tables)


def data(schema: Schema, steps: int = STEPS, seed: int = 0) -> tf.data.Dataset:
    rng, features = np.random.default_rng(seed), batch(schema)
    labels = rng.integers(0, 2, (steps, 6, len(schema.labels))).astype(np.float32)
    batches = tf.data.Dataset.from_tensor_slices(labels if schema.more_labels else labels[:, :, 0])
    return batches.map(lambda y: (features, y))


def train(model: td.RankingModel, steps: int = STEPS, seed: int = 0) -> dict:
    return model.fit(data(model.schema, steps, seed), verbose=0).history


def compiled(model: td.RankingModel, optimizer: str = "rowwise", metrics=None) -> td.RankingModel:
    decay = WarmupPolynomialDecay(0.1, warmup_steps=4, decay_start_step=10, decay_steps=30)
    embedding = {
        "rowwise": lambda: td.RowWiseAdagrad(0.1, l2=0.01),
        "lazy_adam": lambda: td.LazyAdam(decay),
        "per_table": lambda: td.PerTableOptimizer(
            td.FTRL(0.1, l1=1e-3), {"user": td.LazyAdam(decay), "tags": td.SGD(0.1)}
        ),
    }[optimizer]()
    model.compile(keras.optimizers.Adam(keras.optimizers.schedules.ExponentialDecay(0.01, 5, 0.9)), embedding, metrics)
    return model


def everything(model: td.RankingModel) -> dict[str, np.ndarray]:
    found = {f"weights/{i}": w for i, w in enumerate(model.get_weights())}
    found |= {f"optimizer/{i}": v.numpy() for i, v in enumerate(model.optimizer.variables)}
    found["iterations"] = model.embedding_optimizer.iterations.numpy()
    for table, slots in model.embedding_optimizer.slots.items():
        found |= {f"slots/{table}/{slot}": v.numpy() for slot, v in slots.items()}
    return {name: np.asarray(value, np.float64) for name, value in found.items()}


def assert_equal(a: td.RankingModel, b: td.RankingModel, tolerance: float = 0) -> None:
    a, b = everything(a), everything(b)
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=tolerance, atol=tolerance, err_msg=name)


CASES = [
    *((form, "click", "float32", ("rowwise", "lazy_adam", "per_table")[i % 3]) for i, form in enumerate(ONE_EACH)),
    *((form, labels, "float32", "lazy_adam") for form, labels in (*SEVERAL, *AFTER)),
    *((form, "click, histories", "float32", "rowwise") for form in ("din", "bst", "deepfm")),
    *((form, "click", "mixed_bfloat16", "rowwise") for form in ("dcn of mlperf", "deepfm")),
]
FAST = [("deepfm", "click", "mixed_bfloat16", "rowwise")]


@pytest.mark.parametrize(("form", "labels", "policy", "optimizer"), matrix(CASES, FAST))
def test_a_loaded_model_goes_on_bit_by_bit(form, labels, policy, optimizer, tmp_path):
    schema = schema_of(labels, "bfloat16" if policy == "mixed_bfloat16" else "float32")
    model = type(made := make(form, schema)).from_config(made.get_config() | {"dtype": policy})
    train(compiled(model, optimizer), 3, seed=1)
    formats = FORMATS if (form, labels, policy) in AS_SAVED_MODEL_TOO else FORMATS[:1]
    for suffix in formats:
        model.save(f"{tmp_path}/model{suffix}")
    loaded = [keras.models.load_model(f"{tmp_path}/model{suffix}") for suffix in formats]
    for each in loaded:
        assert type(each) is type(model) and each.get_config() == model.get_config()
        assert_equal(each, model)
    histories = [train(each) for each in (model, *loaded)]
    for each, history in zip(loaded, histories[1:], strict=True):
        assert history == histories[0]
        assert_equal(each, model)


ALL_WEIGHTS = [("dlrm cat", name) for name in ("w.h5", "w.weights.h5", "w", "whole.keras", "saved_model")]
# HDF5 refuses two variables of one name.
OTHER_WEIGHTS = [("dcn of mlperf", "w.weights.h5"), *((form, "w.h5") for form in ("deepfm", "final_mlp", "mask_net"))]


@pytest.mark.parametrize(("form", "name"), matrix([*ALL_WEIGHTS, *OTHER_WEIGHTS], ALL_WEIGHTS))
def test_weights(form, name, tmp_path):
    schema = schema_of("click", "bfloat16")
    model, other = make(form, schema), make(form, schema)
    for v in other.variables:
        v.assign(tf.zeros_like(v))
    saved = f"{tmp_path}/{name}"
    model.save(saved) if name in ("whole.keras", "saved_model") else model.save_weights(saved)
    other.load_weights(saved)
    for a, b in zip(model.variables, other.variables, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=a.name)
    assert [f for f in os.listdir(tmp_path) if "unfinished" in f] == []


class Wide(td.RankingModel):
    """A user's model."""

    def __init__(self, schema, units=3, **kwargs):
        super().__init__(schema, **kwargs)
        self.hidden = [keras.layers.Dense(units, "relu"), keras.layers.Dense(1)]

    def compute_logits(self, dense, embeddings, training):
        return self.hidden[1](self.hidden[0](tf.concat(embeddings, axis=1)))

    def get_config(self):
        return super().get_config() | {"units": self.hidden[0].units}


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_model_of_ones_own_with_metrics_and_frozen_layers(suffix, tmp_path):
    model = Wide(SCHEMA, units=5)
    model.build()
    model.embeddings.trainable = model.hidden[0].trainable = False
    metrics = [keras.metrics.AUC(num_thresholds=50, name="area"), keras.metrics.F1Score(threshold=0.5)]
    model.compile("sgd", metrics=metrics, steps_per_execution=2)
    train(model, 3, seed=1)
    model.optimizer.learning_rate = 0.125
    model.save(f"{tmp_path}/m{suffix}")
    loaded = keras.models.load_model(f"{tmp_path}/m{suffix}", {"Wide": Wide})
    assert loaded.hidden[0].units == 5
    assert float(loaded.optimizer.learning_rate) == 0.125
    assert loaded.get_compile_config()["steps_per_execution"] == 2
    assert loaded.metrics_names == model.metrics_names and "area" in loaded.metrics_names
    assert len(loaded.trainable_variables) == 2
    train(model)
    train(loaded)
    assert_equal(loaded, model)


@pytest.mark.slow
def test_tables_that_are_sharded(tmp_path):
    def copy(strategy, path=""):
        with strategy.scope():
            if path:
                return keras.models.load_model(path)
            return compiled(td.DLRM(SCHEMA, (5, 4), (6, 1), replicate_below=30), "per_table")

    def on_two(model):
        batches = data(SCHEMA).unbatch().batch(6)
        model.fit(batches, verbose=0)

    mirrored, one = td.make_strategy("mirrored", 2), td.make_strategy("one_device")
    model = copy(mirrored)
    assert model._sharded() == ["user", "tags", "item"]
    on_two(model)
    model.save(f"{tmp_path}/m.keras")
    loaded, alone = copy(mirrored, f"{tmp_path}/m.keras"), copy(one, f"{tmp_path}/m.keras")
    assert_equal(loaded, model)
    assert_equal(alone, model)
    on_two(model)
    on_two(loaded)
    assert_equal(loaded, model, 1e-6)

    alone.set_weights(model.get_weights())
    loaded.set_weights(alone.get_weights())
    np.testing.assert_array_equal(loaded.predict(batch(), verbose=0), alone.predict(batch(), verbose=0))
    with pytest.raises(ValueError, match="weights of shapes"):
        loaded.set_weights(model.get_weights()[:-1])
    model.save_weights(f"{tmp_path}/w.weights.h5")
    for save in (model.save, model.save_weights):
        with pytest.raises(ValueError, match=r"are sharded over devices.*save as .keras or .weights.h5"):
            save(f"{tmp_path}/{save.__name__}")
    assert sorted(os.listdir(tmp_path)) == ["m.keras", "w.weights.h5"]


@pytest.mark.parametrize("name", ["w.h5", "w.weights.h5", "w", "m.keras", "m"])
def test_weights_of_another_schema_are_refused_before_anything_is_overwritten(name, tmp_path):
    saved = f"{tmp_path}/{name}"
    grown = dataclasses.replace(SCHEMA, tables=(Table("user", 3, 20), *SCHEMA.tables[1:]))
    other = compiled(Wide(grown))
    other.save(saved) if name[0] == "m" else other.save_weights(saved)
    model = compiled(Wide(SCHEMA))
    before = everything(model)
    with pytest.raises(ValueError, match=r"another schema: table 'user' has 20 rows of 3 in the file and 12 rows of 3"):
        model.load_weights(saved)
    for key, value in everything(model).items():
        np.testing.assert_array_equal(value, before[key])


@pytest.mark.parametrize("name", ["w.h5", "w.weights.h5", "m.keras"])
def test_a_save_that_fails_leaves_the_old_file(name, tmp_path, monkeypatch):
    model = compiled(Wide(SCHEMA))
    path = tmp_path / name
    save = model.save if name[0] == "m" else model.save_weights

    def full(*args, **kwargs):
        raise OSError("the disk is full")

    for before in (b"", b"as it was"):
        if before:
            path.write_bytes(before)
        with monkeypatch.context() as patched, pytest.raises(OSError, match="the disk is full"):
            patched.setattr("h5py.Group.create_dataset", full)
            save(str(path))
        assert [f.read_bytes() for f in tmp_path.iterdir()] == ([before] if before else [])
    save(str(path))
    assert path.stat().st_size > 1000


def test_slots_of_legacy_optimizers(tmp_path, caplog):
    model = Wide(SCHEMA)
    model.compile(keras.optimizers.legacy.Adam(0.01), td.RowWiseAdagrad(0.1))
    train(model, 3)
    model.save(f"{tmp_path}/m.keras")
    loaded = keras.models.load_model(f"{tmp_path}/m.keras")
    for each in (model, loaded):
        train(each, 3, seed=1)
    for ours, theirs in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    model.save(f"{tmp_path}/m")
    assert "a SavedModel does not keep the slots of keras.optimizers.legacy.Adam" in caplog.text


def test_other_row_optimizers_keep_their_slots(tmp_path, caplog):
    model, other = compiled(Wide(SCHEMA)), compiled(Wide(SCHEMA), "lazy_adam")
    train(model, 2)
    model.save_weights(f"{tmp_path}/w.weights.h5")
    other.load_weights(f"{tmp_path}/w.weights.h5")
    assert "saved with another row optimizer than LazyAdam" in caplog.text
    np.testing.assert_array_equal(other.embeddings.tables["user"], model.embeddings.tables["user"])
    assert other.embedding_optimizer.iterations == 0


def test_a_constructor_that_does_not_take_its_config(tmp_path):
    class Narrow(Wide):
        def __init__(self, schema):
            super().__init__(schema)

    Narrow(SCHEMA).save(f"{tmp_path}/m.keras")
    with pytest.raises(TypeError, match=r"Narrow could not be made from its config: .*\. Its constructor has to"):
        keras.models.load_model(f"{tmp_path}/m.keras", {"Narrow": Narrow})


def test_the_name_of_the_package_is_in_the_file(tmp_path):
    """Without `import tfrs_dlrm` it is what Keras says."""
    make("dlrm").save(f"{tmp_path}/m.keras")
    with zipfile.ZipFile(f"{tmp_path}/m.keras") as file:
        config = json.loads(file.read("config.json"))
    assert (config["module"], config["registered_name"]) == ("tfrs_dlrm.models.dlrm", "tfrs_dlrm>DLRM")
