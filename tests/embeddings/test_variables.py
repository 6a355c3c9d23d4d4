import numpy as np
import pytest
import tensorflow as tf

from tfrs_dlrm.embeddings import SGD, EmbeddingTables, LazyAdam
from tfrs_dlrm.embeddings.row_access import round_stochastically
from tfrs_dlrm.embeddings.variables import all_finite, initial_values, make_variables
from tfrs_dlrm.schema import CategoricalFeature, Label, Schema, Table


def test_stochastic_rounding_is_right_on_average():
    """1 + 2^-10 lies at an eighth of the way from 1 to the next bfloat16, 1 + 2^-7."""
    values = tf.fill([100_000], 1 + 2.0**-10)
    rounded = round_stochastically(values, tf.constant([1, 2])).numpy().astype(np.float64)
    assert set(np.unique(rounded)) == {1.0, 1 + 2.0**-7}
    np.testing.assert_allclose((rounded > 1).mean(), 1 / 8, atol=0.005)
    again = round_stochastically(values, tf.constant([1, 3])).numpy()
    assert not np.array_equal(rounded, again.astype(np.float64))


def test_stochastic_rounding_keeps_what_bfloat16_can_hold():
    values = tf.constant([0.0, -0.0, 1.5, -3.25, 2.0**-120, np.inf, -np.inf, np.nan, 3.3895314e38])
    rounded = tf.cast(round_stochastically(values, tf.constant([5, 6])), tf.float32)
    np.testing.assert_array_equal(rounded, values)


def bfloat16_tables(**kwargs) -> EmbeddingTables:
    table = Table("f", 4, 30, dtype="bfloat16", **kwargs)
    return EmbeddingTables(Schema(Label("y"), categorical=(CategoricalFeature("f"),), tables=(table,)))


def test_bfloat16_rows_take_half_the_memory_and_still_learn_small_steps():
    """A step of 1e-3 is lost on 1.0 when it is rounded to nearest. A hundred of them must come to 0.1."""
    tables, optimizer = bfloat16_tables(), SGD(1.0)
    assert tables.tables["f"].dtype == tf.bfloat16
    assert tables.lookup({"ids": tf.constant([[1]])})[0].dtype == tf.float32
    tables.tables["f"].assign(tf.ones([30, 4], tf.bfloat16))
    optimizer.build(tables.tables)
    batch, gradient = {"ids": tf.range(30)[:, tf.newaxis]}, tf.fill([30, 4], 1e-3)
    step = tf.function(lambda: tables.update(batch, [gradient], optimizer))
    for _ in range(100):
        step()
    moved = 1 - tables.tables["f"].numpy().astype(np.float64)
    np.testing.assert_allclose(moved.mean(), 0.1, atol=0.01)
    assert moved.std() > 0


def test_bfloat16_slots_are_float32_and_runs_repeat():
    results = []
    for _ in range(2):
        tables, optimizer = bfloat16_tables(), LazyAdam(0.01)
        optimizer.build(tables.tables)
        assert {v.dtype for v in optimizer.slots["f"].values()} == {tf.float32}
        for i in range(5):
            tables.update({"ids": tf.constant([[i], [3]])}, [tf.fill([2, 4], 0.1 * i)], optimizer)
        results.append(tables.tables["f"].numpy().astype(np.float32))
    np.testing.assert_array_equal(*results)


def test_large_tables_are_drawn_in_parts(monkeypatch):
    monkeypatch.setattr("tfrs_dlrm.embeddings.variables._NUMBERS_AT_A_TIME", 4000)
    for initializer, spread in (("uniform", 0.5 / np.sqrt(3)), ("normal", 0.5)):
        (variable,) = make_variables(Table("t", 4, 10_500, initializer=initializer, scale=0.5), seed=1).values()
        values = variable.numpy()
        np.testing.assert_allclose([values.mean(), values.std()], [0, spread], atol=0.01)
        assert len(np.unique(values[:, 0])) > 10_000  # no part repeats another
        assert all_finite(variable)
        some = np.array([0, 1, 999, 1000, 10_499])  # of parts apart from each other
        table = Table("t", 4, 10_500, initializer=initializer, scale=0.5)
        np.testing.assert_array_equal(initial_values(table, 1, some), values[some])
        variable.scatter_update(tf.IndexedSlices(tf.constant([[0.0, np.nan, 0.0, 0.0]]), tf.constant([10_499])))
        assert not all_finite(variable)
    (zeros,) = make_variables(Table("t", 4, 10_500, initializer="zeros"), seed=1).values()
    assert not np.any(zeros)


def test_refuses():
    feature = CategoricalFeature("f")
    with pytest.raises(ValueError, match="table 'f': dtype='float16' is not one of float32, bfloat16"):
        Schema(Label("y"), categorical=(feature,), tables=(Table("f", 4, 30, dtype="float16"),))
