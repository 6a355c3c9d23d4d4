import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import tfrs_dlrm as td
from tfrs_dlrm.embeddings.optimizers import ROW_OPTIMIZERS
from tfrs_dlrm.schema import CategoricalFeature, Label, Schema, Table

SCHEMA = Schema(
    Label("y"), (), (CategoricalFeature("a"), CategoricalFeature("b")), (Table("a", 1, 4), Table("b", 1, 4))
)
BATCH = {"ids": tf.constant([[0, 1], [2, 3]])}, tf.constant([1.0, 0.0])


def compiled(dense, rows):
    model = td.LogisticRegression(SCHEMA)
    model.compile(dense, rows, metrics=[])
    return model


def steps(model) -> list[float]:
    """The lengths of the steps of tables a and b; under SGD from the same place they are proportional to the rate."""
    before = [v.numpy() for v in model.embeddings.tables.values()]
    weights = model.get_weights()
    model.train_on_batch(*BATCH)
    lengths = [np.abs(v.numpy() - b).max() for v, b in zip(model.embeddings.tables.values(), before, strict=True)]
    model.set_weights(weights)
    return lengths


def ratios(model, change) -> list[float]:
    """The factors by which `change` changes the steps of the two tables."""
    before = steps(model)
    change(model)
    return [after / b for after, b in zip(steps(model), before, strict=True)]


def set_dense(rate):
    return lambda model: setattr(model.optimizer, "learning_rate", rate)


def test_a_rate_that_is_set_takes_effect_without_a_new_trace():
    model = compiled(keras.optimizers.SGD(0.1), td.SGD(0.2))
    traces = []
    compute = model.compute_logits
    model.compute_logits = lambda *args: traces.append(1) or compute(*args)
    assert ratios(model, lambda m: setattr(m.embedding_optimizer, "learning_rate", 0.05)) == pytest.approx([0.25] * 2)
    assert model.embedding_optimizer.learning_rate == 0.05 and len(traces) == 1


@pytest.mark.parametrize("dense", [keras.optimizers.SGD, keras.optimizers.legacy.SGD])
def test_rates_follow_the_dense_one_from_where_they_were_set(dense):
    model = compiled(dense(0.1), td.SGD(0.2))
    optimizer = model.embedding_optimizer
    assert optimizer.learning_rate == 0.2
    assert ratios(model, set_dense(0.05)) == pytest.approx([0.5] * 2, rel=1e-5)
    assert optimizer.learning_rate == pytest.approx(0.1)
    optimizer.learning_rate = 0.3  # is the rate from now on
    assert optimizer.learning_rate == 0.3 and td.SGD.from_config(optimizer.get_config()).learning_rate == 0.3
    assert ratios(model, set_dense(0.0)) == [0, 0]
    model.optimizer.learning_rate = 0.1
    assert optimizer.learning_rate == pytest.approx(0.6)
    model.compile(dense(7.0), optimizer, metrics=[])  # compiled again, with another reference
    assert optimizer.learning_rate == pytest.approx(0.6)


def test_each_rule_of_a_mapping_has_its_rate_and_schedules_follow_nothing():
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([100], [0.1, 0.01])
    model = compiled(keras.optimizers.SGD(0.1), td.PerTableOptimizer(td.SGD(0.2), {"b": td.SGD(schedule)}))
    assert ratios(model, set_dense(0.05)) == pytest.approx([0.5, 1], rel=1e-5)
    change = ratios(model, lambda m: setattr(m.embedding_optimizer.default, "learning_rate", 0.4))
    assert change == pytest.approx([4, 1], rel=1e-5)
    with pytest.raises(TypeError, match=r"optimizer.per_table\[NAME\].learning_rate for 'b'"):
        model.embedding_optimizer.learning_rate = 0.1
    with pytest.raises(TypeError, match="SGD: a schedule cannot be set or replaced"):
        model.embedding_optimizer.rule("b").learning_rate = 0.1
    with pytest.raises(ValueError, match="learning_rate=-1 is negative"):
        model.embedding_optimizer.default.learning_rate = -1
    model = compiled(keras.optimizers.SGD(schedule), td.SGD(0.2))  # nothing to follow
    assert model.embedding_optimizer.learning_rate == 0.2 and float(model.embedding_optimizer.followed_rate) == 0


@pytest.mark.parametrize("name", ROW_OPTIMIZERS)
def test_every_rule_reads_the_rate(name):
    model = compiled(keras.optimizers.SGD(0.1), name)
    model.embedding_optimizer.learning_rate = 0.0
    assert steps(model) == [0, 0] or name == "ftrl"
    model.embedding_optimizer.learning_rate = 0.1
    assert min(steps(model)) > 0


@pytest.mark.parametrize("strategy", ["one_device", "mirrored"])
def test_callbacks_change_both_and_a_checkpoint_resumes_with_both(strategy, tmp_path):
    def made():
        with td.make_strategy(strategy).scope():
            return compiled(keras.optimizers.Adagrad(0.1), {"b": "sgd"})

    def fit(model, rates, epochs=1):
        schedule = keras.callbacks.LearningRateScheduler(lambda epoch: rates[epoch])
        data = tf.data.Dataset.from_tensors(BATCH).unbatch().batch(2)
        model.fit(data, epochs=epochs, callbacks=[schedule], verbose=0)

    model = made()
    fit(model, [0.1, 0.03], epochs=2)
    rules = model.embedding_optimizer.rules
    assert [rule.learning_rate for rule in rules] == pytest.approx([0.01 * 0.3] * 2)
    rules[0].learning_rate = 0.02
    td.save_checkpoint(model, str(tmp_path / "c"))
    fit(model, [0.01])
    again = made()
    td.restore_checkpoint(again, str(tmp_path / "c"))
    assert [rule.learning_rate for rule in again.embedding_optimizer.rules] == pytest.approx([0.02, 0.003])
    fit(again, [0.01])
    for a, b in zip(model.variables, again.variables, strict=True):
        np.testing.assert_array_equal(a, b)
