import numpy as np
import pytest
import tensorflow as tf
from layer_checks import check_layer

from tfrs_dlrm.embeddings import SGD, EmbeddingTables, RowWiseAdagrad
from tfrs_dlrm.layers.hashing import hashed_rows
from tfrs_dlrm.schema import CategoricalFeature, Label, Schema, Table

FEATURES = (
    CategoricalFeature("a"),
    CategoricalFeature("words", multi_valued=True, weights="w", table="a"),
    CategoricalFeature("b"),
)


def quotient_remainder() -> Schema:
    return Schema(Label("y"), categorical=FEATURES, tables=(Table("a", 4, 10, remainders=3), Table("b", 4, 10)))


def hashed(dim: int = 4) -> Schema:
    tables = Table("a", dim, 10, "sqrtn", stored_in="all"), Table("b", 2, 10, stored_in="all"), Table("all", 2, 7)
    return Schema(Label("y"), categorical=FEATURES, tables=tables)


def batch() -> dict:
    words = tf.ragged.constant([[1, 9, 1], [], [4]], dtype=tf.int32)
    weights = words.with_values(tf.constant([1.0, 2.0, 0.5, 3.0]))
    return {"ids": tf.constant([[5, 0], [9, 1], [5, 9]]), "words": words, "words_weights": weights}


def whole_table(tables: EmbeddingTables, name: str) -> np.ndarray:
    """Every row of a compressed table, worked out in NumPy."""
    table = tables.schema.table(name)
    values = {n: v.numpy() for n, v in tables.tables.items()}
    if table.remainders:
        every = np.arange(table.vocabulary_size)
        return values[f"{name}__quotient"][every // 3] * values[f"{name}__remainder"][every % 3]
    pieces = [values["all"][hashed_rows(tf.range(10), 7, f"{name}/{i}")] for i in range(2)]
    return np.concatenate(pieces, axis=1)[:, : table.dim]


def test_parts_of_a_quotient_remainder_table():
    tables = EmbeddingTables(quotient_remainder())
    shapes = {n: tuple(v.shape) for n, v in tables.tables.items()}
    assert shapes == {"a__quotient": (4, 4), "a__remainder": (3, 4), "b": (10, 4)}
    rows = whole_table(tables, "a")
    assert len(np.unique(rows, axis=0)) == 10  # no two values share a vector
    assert 0.5 < rows.std() / (1 / np.sqrt(10) / np.sqrt(3)) < 2  # about the scale of a plain table


def test_hashed_tables_have_one_variable():
    assert {n: tuple(v.shape) for n, v in EmbeddingTables(hashed()).tables.items()} == {"all": (7, 2)}


@pytest.mark.parametrize("schema", [quotient_remainder(), hashed(), hashed(3)])
def test_lookup_equals_numpy(schema):
    tables = EmbeddingTables(schema)
    a, words, b = tables.lookup(batch())
    rows = whole_table(tables, "a")
    np.testing.assert_allclose(a, rows[[5, 9, 5]], rtol=1e-6)
    weights = np.array([1.5, 2.0])
    bag = weights @ rows[[1, 9]]
    scale = 3.5 if schema.table("a").combiner == "mean" else np.sqrt(1 + 4 + 0.25)
    expected = [bag / scale, 0 * bag, rows[4]]
    np.testing.assert_allclose(words, expected, rtol=1e-5)
    expected = tables.tables["b"].numpy() if schema.table("a").remainders else whole_table(tables, "b")
    np.testing.assert_allclose(b, expected[[0, 1, 9]], rtol=1e-6)


@pytest.mark.parametrize("schema", [quotient_remainder(), hashed(), hashed(3)])
def test_an_sgd_update_is_the_gradient_of_the_plain_layer(schema):
    rng = np.random.default_rng(0)
    tables = EmbeddingTables(schema)
    before = {name: v.numpy() for name, v in tables.tables.items()}
    factors = [tf.constant(rng.normal(size=v.shape), tf.float32) for v in tables.lookup(batch())]
    with tf.GradientTape() as tape:
        loss = sum(tf.reduce_sum(v * f) for v, f in zip(tables(batch()), factors, strict=True))
    gradients = tape.gradient(loss, dict(tables.tables))
    optimizer = SGD(1.0)
    optimizer.build(tables.tables)
    tf.function(tables.update)(batch(), factors, optimizer)
    for name, variable in tables.tables.items():
        np.testing.assert_allclose(before[name] - variable, tf.convert_to_tensor(gradients[name]), atol=2e-6)
        assert np.any(before[name] != variable.numpy())


def test_hashed_tables_touch_only_the_rows_they_hash_to():
    tables, optimizer = EmbeddingTables(hashed()), RowWiseAdagrad()
    optimizer.build(tables.tables)
    only_b = {"ids": tf.constant([[0, 3]]), "words": tf.ragged.constant([[]], tf.int32)}
    only_b["words_weights"] = tf.ragged.constant([[]], tf.float32)
    before = tables.tables["all"].numpy()
    tables.update(only_b, [None, None, tf.ones([1, 2])], optimizer)
    changed = np.flatnonzero((tables.tables["all"].numpy() != before).any(axis=1))
    np.testing.assert_array_equal(changed, hashed_rows(tf.constant([3]), 7, "b/0"))


def test_layer_checks(tmp_path):
    check_layer(EmbeddingTables(hashed()), batch(), tmp_path, tables=True)


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ((Table("a", 4, 10, remainders=10),), "remainders=10; at least 2 and less than vocabulary_size=10"),
        ((Table("a", 4, 10, remainders=3, stored_in="all"), Table("all", 2, 7)), "two ways to store it; choose one"),
        ((Table("a", 4, 10, stored_in="all"),), "stored_in='all' is not among the tables; add it, with its rows"),
        ((Table("a", 4, 10, stored_in="all"), Table("all", 2)), "table 'all': stores the rows of a; set its rows"),
        ((Table("a", 4, 10, stored_in="b"), Table("b", 4, 10)), "and of features .'b'.; keep them apart"),
        (
            (Table("a", 4, 10, dtype="bfloat16", stored_in="all"), Table("all", 2, 7)),
            "dtype belongs .* set it in 'all'",
        ),
        ((Table("a", 4, 10, scale=0.5, stored_in="all"), Table("all", 2, 7)), "scale belongs .* set it in 'all'"),
        ((Table("a", 4, 10, remainders=3), Table("a__remainder", 4, 10)), "the endings __quotient and __remainder"),
    ],
)
def test_refuses(tables, message):
    with pytest.raises(ValueError, match=message):
        Schema(Label("y"), categorical=FEATURES, tables=tables)
