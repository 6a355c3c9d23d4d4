"""Models train the same with the kernels as without, and without them where they do not apply."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import tfrs_dlrm as td
from tfrs_dlrm.embeddings import kernels
from tfrs_dlrm.embeddings.kernels.kernel_step import KernelStep
from tfrs_dlrm.embeddings.table_step import TableStep
from tfrs_dlrm.layers.candidate_rows import concatenate, stack
from tfrs_dlrm.layers.side_by_side import split, whole_parts

DIM, BATCH = 8, 33


def mixed_schema(**of_first):
    """Features that the kernels treat, two of one table, and two that they leave: one with weights, one compressed."""
    return td.Schema(
        label=td.Label("y"),
        dense=(td.DenseFeature("a"),),
        categorical=(
            td.CategoricalFeature("c1"),
            td.CategoricalFeature("weighted", multi_valued=True, weights="weights"),
            td.CategoricalFeature("c2", table="t"),
            td.CategoricalFeature("m1", table="t", multi_valued=True),
            td.CategoricalFeature("compressed"),
            td.CategoricalFeature("m2", multi_valued=True),
        ),
        tables=(
            td.Table("c1", DIM, 10, **of_first),
            td.Table("weighted", DIM, 9),
            td.Table("t", DIM, 50, combiner="mean"),
            td.Table("compressed", DIM, 40, remainders=5),
            td.Table("m2", DIM, 30, combiner="sqrtn"),
        ),
    )


def batches(schema, count, examples=BATCH):
    rng = np.random.default_rng(0)

    def bags(size):
        lengths = rng.integers(0, 5, examples)
        lengths[-1:] = 0
        return tf.RaggedTensor.from_row_lengths(tf.constant(rng.integers(0, size, lengths.sum())), lengths)

    for _ in range(count):
        weighted = bags(9)
        ones = [rng.integers(0, size, examples) for size in (10, 50, 40)]
        features = {
            "dense": tf.constant(rng.normal(size=[examples, 1]), tf.float32),
            "ids": tf.constant(np.stack(ones, axis=1)),
            "weighted": weighted,
            schema.multi_hot[0].weights_name: tf.cast(weighted, tf.float32) * 0.1,
            "m1": bags(50),
            "m2": bags(30),
        }
        yield features, tf.constant(rng.integers(0, 2, examples), tf.float32)


def trained(make, optimizer, given):
    """Returns the model after a step on each batch, and the last loss."""
    model = make()
    model.compile("sgd", optimizer, metrics=[])
    step = tf.function(model.train_step)
    for batch in given:
        loss = step(batch)["loss"]
    return model, float(loss)


def state(model):
    slots = [s for of_table in model.embedding_optimizer.slots.values() for s in of_table.values()]
    return [v.numpy() for v in [*model.embeddings.tables.values(), *slots, *model.dense_variables]]


MODELS = {
    "dlrm": lambda s: td.DLRM(s, (16, DIM), (16, 1), seed=3),
    "dcn": lambda s: td.DCN(s, top_mlp=(16, 1), seed=3),
    "deep_fm": lambda s: td.DeepFM(s, top_mlp=(16, 1), seed=3),
}


@pytest.mark.parametrize("optimizer", [td.SGD, td.Adagrad, td.RowWiseAdagrad])
@pytest.mark.parametrize("name", list(MODELS))
def test_models_train_the_same(built, monkeypatch, name, optimizer):
    schema = mixed_schema()
    given = list(batches(schema, 3))
    monkeypatch.setenv(kernels.SWITCH, "0")
    plain, loss = trained(lambda: MODELS[name](schema), optimizer(0.1), given)
    monkeypatch.setenv(kernels.SWITCH, "1")
    model, same = trained(lambda: MODELS[name](schema), optimizer(0.1), given)
    assert type(plain._table_step) is TableStep and type(model._table_step) is KernelStep
    np.testing.assert_allclose(same, loss, rtol=1e-6)
    for ours, theirs in zip(state(model), state(plain), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_fit_in_bfloat16_with_two_steps_per_call_and_a_frozen_table(built, monkeypatch):
    schema = mixed_schema(trainable=False)
    found = []
    for switch in "01":
        monkeypatch.setenv(kernels.SWITCH, switch)
        keras.mixed_precision.set_global_policy("mixed_bfloat16")
        try:
            model = MODELS["dlrm"](schema)
        finally:
            keras.mixed_precision.set_global_policy("float32")
        frozen = model.embeddings.tables["c1"].numpy()
        model.compile("sgd", td.SGD(0.1), metrics=[], steps_per_execution=2)
        data = tf.data.Dataset.from_generator(
            lambda: batches(schema, 4), output_signature=tf.nest.map_structure(spec, next(batches(schema, 1)))
        )
        model.fit(data, steps_per_epoch=4, verbose=0)
        np.testing.assert_array_equal(model.embeddings.tables["c1"], frozen)
        found.append(state(model))
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-2, atol=1e-4)


def spec(value):
    if isinstance(value, tf.RaggedTensor):
        return tf.RaggedTensorSpec([None, None], value.dtype)
    return tf.TensorSpec([None, *value.shape[1:]], value.dtype)


def test_one_operation_looks_up_and_one_updates_and_predictions_need_neither(built):
    schema = mixed_schema()
    model, _ = trained(lambda: MODELS["dlrm"](schema), td.SGD(0.1), list(batches(schema, 1, examples=1)))
    batch = next(batches(schema, 1))

    def ours(function, *args):
        graph = tf.function(function).get_concrete_function(*args).graph
        return [op.type for op in graph.get_operations() if op.type.startswith("TfrsDlrm")]

    assert ours(model.train_step, batch) == ["TfrsDlrmLookup", "TfrsDlrmStep"]
    assert not ours(lambda x: model(x), batch[0]) and not ours(model.test_step, batch)


@pytest.mark.parametrize(
    "optimizer",
    [lambda: td.LazyAdam(), lambda: td.SGD(l2=0.1), lambda: td.Adagrad(weight_decay=0.1), lambda: {"t": "sgd"}],
)
def test_other_rules_are_left_to_tensorflow(built, optimizer):
    model = MODELS["dlrm"](mixed_schema())
    model.compile("sgd", optimizer())
    assert type(model._table_step) is TableStep


def test_several_devices_are_left_to_tensorflow(built):
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        model = MODELS["dlrm"](mixed_schema())
        model.compile("sgd", "sgd")
    assert type(model._table_step) is TableStep


def test_parts_of_a_split_are_taken_together_without_a_copy():
    @tf.function
    def joined(x, other):
        parts = split(x, [2, 2, 2])
        assert whole_parts([other, *parts, other])[1] is x and len(whole_parts([other, *parts, other])) == 3
        assert len(whole_parts(parts[:2])) == 2 and len(whole_parts(parts[::-1])) == 3
        rows = tf.split(x, 2, axis=0)
        assert len(whole_parts(rows)) == 2  # along another axis
        return stack([other, *parts]), concatenate([*parts, other]), concatenate(rows), tf.gradients(stack(parts), x)[0]

    x, other = np.arange(24, dtype=np.float32).reshape(4, 6), np.full([4, 2], -1, np.float32)
    stacked, beside, of_rows, gradient = joined(x, other)
    np.testing.assert_array_equal(stacked, np.stack([other, x[:, :2], x[:, 2:4], x[:, 4:]], axis=1))
    np.testing.assert_array_equal(beside, np.concatenate([x, other], axis=1))
    np.testing.assert_array_equal(of_rows, np.concatenate([x[:2], x[2:]], axis=1))
    np.testing.assert_array_equal(gradient, np.ones([4, 6]))
    parts = split(tf.constant(x), [2, 4])
    assert whole_parts(parts) is not parts and len(whole_parts(parts)) == 2  # eager tensors have no operation
