"""What Keras' documentation says of `compile`, `fit`, `evaluate`, `predict` and its callbacks, asked of a model."""

import csv

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import tfrs_dlrm as td
from tfrs_dlrm.schema import CategoricalFeature, DenseFeature, Label, Schema, Table

SCHEMA = Schema(
    Label("y"),
    (DenseFeature("x"),),
    (CategoricalFeature("a"), CategoricalFeature("tags", multi_valued=True)),
    (Table("a", 4, 9), Table("tags", 4, 7)),
)
SIZE, BATCH = 64, 16


def arrays(seed=0, size=SIZE):
    """Features and labels; each example has two tags, so that arrays are rectangular."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 9, (size, 1)).astype(np.int32)
    tags = rng.integers(0, 7, (size, 2)).astype(np.int32)
    features = {"dense": rng.normal(size=(size, 1)).astype(np.float32), "ids": ids, "tags": tags}
    return features, ((ids[:, 0] + tags[:, 0]) % 2).astype(np.float32)


def dataset(*columns):
    return tf.data.Dataset.from_tensor_slices(columns).batch(BATCH)


def make(optimizer=None, embedding_optimizer="adagrad", metrics=(), **options):
    model = td.DLRM(SCHEMA, (8, 4), (8, 1), seed=1)
    optimizer = keras.optimizers.Adam(0.01) if optimizer is None else optimizer
    model.compile(optimizer, embedding_optimizer, metrics=list(metrics), **options)
    return model


def fit(model, *data, **options):
    options = {"batch_size": BATCH, "shuffle": False, "verbose": 0} | options
    return model.fit(*(data or arrays()), **options).history


def assert_same_weights(one, other, atol=0.0):
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=atol)


# ---- callbacks -------------------------------------------------------------------------------------------------------


def test_early_stopping_restores_the_best_weights():
    """On validation labels that are the opposite of the training labels, the first epoch is the best one."""
    features, labels = arrays()
    stopping = keras.callbacks.EarlyStopping("val_loss", patience=2, restore_best_weights=True)
    model = make(embedding_optimizer=td.RowWiseAdagrad(0.1))
    history = fit(model, epochs=9, validation_data=(features, 1 - labels), callbacks=[stopping])
    assert len(history["val_loss"]) == 3 and np.argmin(history["val_loss"]) == 0
    first = make(embedding_optimizer=td.RowWiseAdagrad(0.1))
    fit(first, epochs=1)
    assert_same_weights(model, first)


@pytest.mark.parametrize("name", ["tensorflow-{epoch}", "{epoch}.h5", "{epoch}.weights.h5", "{epoch}.keras"])
def test_model_checkpoint_saves_what_can_be_loaded_and_trained_on(name, tmp_path):
    path, whole = str(tmp_path / name), name.endswith(".keras")
    model = make(metrics=["auc", "accuracy", keras.metrics.mean_absolute_error])
    fit(model, epochs=2, callbacks=[keras.callbacks.ModelCheckpoint(path, save_weights_only=not whole)])
    model.optimizer.learning_rate = 0.005  # not saved yet
    fit(
        model,
        callbacks=[keras.callbacks.ModelCheckpoint(path.format(epoch="{epoch}-slow"), save_weights_only=not whole)],
    )
    found = path.format(epoch="1-slow")
    again = keras.models.load_model(found) if whole else make()
    if not whole:
        again.load_weights(found)
    assert_same_weights(model, again)
    if name == "{epoch}.weights.h5":  # has slots, but no learning rates
        again.optimizer.learning_rate = 0.005
    if name != "{epoch}.h5":  # has no optimizers
        assert again.embedding_optimizer.learning_rate == pytest.approx(0.005)
        for m in (model, again):
            fit(m, epochs=2)
            m.optimizer.learning_rate = 0.004
            fit(m)
        assert_same_weights(model, again)
    expected = model.evaluate(*arrays(), verbose=0, return_dict=True).keys() if whole else {"loss", "out_of_range"}
    assert again.evaluate(*arrays(), verbose=0, return_dict=True).keys() == expected


def test_backup_and_restore_resumes_where_a_fit_was_interrupted(tmp_path):
    def interrupt(epoch, logs):
        if epoch == 2:
            raise KeyboardInterrupt

    def backup():
        return keras.callbacks.BackupAndRestore(str(tmp_path))

    with pytest.raises(KeyboardInterrupt):
        fit(make(), epochs=4, callbacks=[backup(), keras.callbacks.LambdaCallback(on_epoch_begin=interrupt)])
    resumed, whole = make(), make()
    assert len(fit(resumed, epochs=4, callbacks=[backup()])["loss"]) == 2
    fit(whole, epochs=4)
    assert_same_weights(resumed, whole)


def test_learning_rates_change_in_step():
    plateau = keras.callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=1, min_delta=100)
    model = make(keras.optimizers.Adam(0.01), td.RowWiseAdagrad(0.04))
    fit(model, epochs=3, callbacks=[plateau])
    assert float(model.optimizer.learning_rate) == pytest.approx(0.0025)
    assert model.embedding_optimizer.learning_rate == pytest.approx(0.01)
    schedule = keras.callbacks.LearningRateScheduler(lambda epoch, rate: 2 * rate)
    assert fit(model, epochs=2, callbacks=[schedule])["lr"] == pytest.approx([0.005, 0.01])
    assert model.embedding_optimizer.learning_rate == pytest.approx(0.04)


def test_tensorboard_and_csv_logger_write_what_the_history_has(tmp_path):
    callbacks = [
        keras.callbacks.TensorBoard(str(tmp_path / "board"), histogram_freq=1),
        keras.callbacks.CSVLogger(str(tmp_path / "log.csv")),
    ]
    history = fit(make(metrics=["auc", "accuracy"]), epochs=2, validation_data=arrays(1), callbacks=callbacks)
    assert history.keys() == {f"{v}{n}" for v in ("", "val_") for n in ("loss", "auc", "accuracy", "out_of_range")}
    with open(tmp_path / "log.csv", newline="") as f:
        rows = list(csv.DictReader(f))
    for name, values in history.items():
        assert [float(row[name]) for row in rows] == pytest.approx(values, rel=1e-6)
    found = {}
    for file in (tmp_path / "board" / "train").iterdir():
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            for value in event.summary.value:
                found.setdefault(value.tag, []).append(value)
    assert [float(tf.make_ndarray(v.tensor)) for v in found["epoch_loss"]] == pytest.approx(history["loss"], rel=1e-6)
    assert any("tables" in tag for tag in found)  # histograms


def test_terminate_on_nan():
    model = make()
    model.set_weights([np.full_like(w, np.nan) for w in model.get_weights()])
    batches = []
    count = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: batches.append(batch))
    fit(model, epochs=3, callbacks=[keras.callbacks.TerminateOnNaN(), count])
    assert batches == [0]


# ---- fit, evaluate, predict ------------------------------------------------------------------------------------------


def test_class_weight_is_a_sample_weight():
    features, labels = arrays()
    by_class, by_example, unweighted = make(), make(), make()
    weights = np.where(labels == 1, 3.0, 0.5)
    by_class_loss = fit(by_class, class_weight={0: 0.5, 1: 3.0})["loss"]
    assert by_class_loss == pytest.approx(fit(by_example, features, labels, sample_weight=weights)["loss"])
    assert_same_weights(by_class, by_example, atol=1e-6)
    assert fit(unweighted)["loss"][0] != pytest.approx(by_class_loss[0], rel=0.01)
    both, product = make(), make()
    fit(both, features, labels, sample_weight=weights, class_weight={0: 2.0, 1: 1.0})
    fit(product, features, labels, sample_weight=np.where(labels == 1, weights, 2 * weights))
    assert_same_weights(both, product, atol=1e-6)
    several = Schema(Label("y"), SCHEMA.dense, SCHEMA.categorical, SCHEMA.tables, more_labels=(Label("z"),))
    with pytest.raises(ValueError, match=r"class_weight={0: 2.0}: an example has 2 labels, .* give sample_weight, a"):
        td.DLRM(several, (8, 4), (8, 1)).fit(features, np.stack([labels, labels], axis=1), class_weight={0: 2.0})


def test_validation_data_is_an_evaluation_and_validation_split_the_last_examples():
    features, labels = arrays()
    split = fit(make(), validation_split=0.25, validation_batch_size=8)
    part = [{name: v[s] for name, v in features.items()} for s in (slice(48), slice(48, None))]
    model = make()
    given = fit(model, part[0], labels[:48], validation_data=dataset(part[1], labels[48:]), validation_freq=1)
    assert split == pytest.approx({name: pytest.approx(values) for name, values in given.items()})
    found = model.evaluate(part[1], labels[48:], verbose=0, return_dict=True)
    assert found["loss"] == pytest.approx(given["val_loss"][0], rel=1e-5)
    assert model.evaluate(part[1], labels[48:], verbose=0) == pytest.approx(list(found.values()))


def test_predictions_are_probabilities_of_dicts_datasets_and_generators():
    features, labels = arrays()
    model = make()
    fit(model, epochs=2)
    batches = list(dataset(features, labels))
    expected = tf.sigmoid(model.logits(features)).numpy()
    for data in (features, dataset(features), dataset(features, labels), (x for x, _ in batches), (b for b in batches)):
        found = model.predict(data, batch_size=BATCH if isinstance(data, dict) else None, verbose=0)
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(model.predict_on_batch(features), expected, rtol=1e-5)
    np.testing.assert_allclose(model(features), expected, rtol=1e-5)
    assert expected.dtype == np.float32 and 0 < expected.min() < expected.max() < 1


@pytest.fixture(scope="module")
def whole():
    """A model after two epochs of a plain fit, and its losses."""
    model = make()
    return model, fit(model, epochs=2)["loss"]


@pytest.mark.parametrize("how", ["generator", "train_on_batch", "run_eagerly", "steps_per_execution", "jit_compile"])
def test_every_way_to_train_is_the_same(how, whole):
    features, labels = arrays()
    options = {"run_eagerly": True, "jit_compile": True, "steps_per_execution": 4}
    other = make(**{how: options[how]} if how in options else {})
    batches = list(dataset(features, labels))
    if how == "generator":
        found = fit(other, iter(batches * 2), batch_size=None, epochs=2, steps_per_epoch=4)["loss"]
    elif how == "train_on_batch":
        found = []
        for _ in range(2):
            other.reset_metrics()
            found.append([other.train_on_batch(*b, reset_metrics=False)[0] for b in batches][-1])
    else:
        found = fit(other, epochs=2)["loss"]
    assert found == pytest.approx(whole[1], rel=1e-5)
    exact = how in ("generator", "steps_per_execution")
    assert_same_weights(whole[0], other, atol=0.0 if exact else 1e-6)
    evaluations = (m.evaluate(features, labels, verbose=0, return_dict=True) for m in (other, whole[0]))
    assert next(evaluations) == pytest.approx(next(evaluations), rel=1e-4)


# ---- compile and summary ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_the_loss_may_be_named(task):
    schema = Schema(Label("y", task=task), SCHEMA.dense, SCHEMA.categorical, SCHEMA.tables)
    losses = {
        "classification": [
            "binary_crossentropy",
            "BinaryCrossentropy",
            keras.losses.binary_crossentropy,
            keras.losses.BinaryCrossentropy(),
            keras.losses.BinaryCrossentropy(from_logits=True),
        ],
        "regression": ["mse", "mean_squared_error", keras.losses.MeanSquaredError()],
    }
    model = td.DLRM(schema, (8, 4), (8, 1))
    for loss in losses.pop(task):
        model.compile(loss=loss, loss_weights=None, weighted_metrics=None, metrics=[])
    smoothed = keras.losses.BinaryCrossentropy(label_smoothing=0.1)
    for loss in (*next(iter(losses.values())), smoothed, keras.losses.MeanSquaredError("sum"), "hinge", "no such loss"):
        with pytest.raises(ValueError, match=rf"is not supported: the schema's labels set the losses.* 'y' \({task}\)"):
            model.compile(loss=loss)
    if task == "classification":
        with pytest.raises(
            ValueError, match=r"with label_smoothing=0.1\) .*'y' .* without label_smoothing; leave loss"
        ):
            model.compile(loss=smoothed)
    for argument in ("loss_weights", "weighted_metrics"):
        with pytest.raises(ValueError, match=rf"compile\({argument}=...\) is not supported"):
            model.compile(**{argument: ["accuracy"]})


def test_summary_counts_tables_that_are_shared_out():
    def summary(model):
        lines = []
        model.summary(print_fn=lines.append)
        return "\n".join(lines)

    plain = td.DLRM(SCHEMA, (8, 4), (8, 1))
    assert "embeddings (Embedding" in summary(plain) and "shared out" not in summary(plain)
    strategy = td.make_strategy("mirrored")
    with strategy.scope():
        model = td.DLRM(SCHEMA, (8, 4), (8, 1), replicate_below=120)  # bytes: a has 144, tags 112
    text = summary(model)
    assert "  a: 9 rows x 4, float32, 36 parameters" in text and "tags:" not in text
    assert f"Total params with these tables: {plain.count_params():,}" in text
    with pytest.raises(ValueError, match=r"jit_compile=True.* strategy mirrored"):
        model.compile(jit_compile=True)
