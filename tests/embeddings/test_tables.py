import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from layer_checks import check_layer

from tfrs_dlrm.embeddings import SGD, Adagrad, EmbeddingTables, RowWiseAdagrad
from tfrs_dlrm.schema import CategoricalFeature, Label, Schema, Table

# `a` and `words` share the table `shared`; `words` has weights.
SCHEMA = Schema(
    label=Label("y"),
    categorical=(
        CategoricalFeature("a", table="shared"),
        CategoricalFeature("words", separator="|", weights="w", table="shared"),
        CategoricalFeature("b"),
    ),
    tables=(Table("shared", dim=2, vocabulary_size=4, combiner="sum"), Table("b", dim=3, vocabulary_size=5)),
)
SHARED = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]], np.float32)


def features() -> dict:
    return {
        "ids": tf.constant([[1, 0], [3, 4]]),
        "words": tf.ragged.constant([[1, 2, 1], []], dtype=tf.int32),
        "words_weights": tf.ragged.constant([[1.0, 2.0, 0.5], []]),
    }


def make_tables() -> EmbeddingTables:
    tables = EmbeddingTables(SCHEMA)
    tables.tables["shared"].assign(SHARED)
    return tables


def one_multi_valued(combiner: str, weighted: bool, dim: int = 3, rows: int = 6) -> Schema:
    feature = CategoricalFeature("f", multi_valued=True, weights="w" if weighted else None)
    return Schema(Label("y"), categorical=(feature,), tables=(Table("f", dim, rows, combiner),))


def test_lookup_by_hand():
    a, words, b = make_tables().lookup(features())
    np.testing.assert_allclose(a, [[3, 4], [7, 8]])
    np.testing.assert_allclose(words, [[1.5 * 3 + 2 * 5, 1.5 * 4 + 2 * 6], [0, 0]])
    assert b.shape == (2, 3)


def test_update_by_hand_combines_duplicates_and_features_of_one_table():
    """Row 1 gets the gradient of `a` in example 0, and 1 + 0.5 times that of `words`; row 2 twice that."""
    tables = make_tables()
    optimizer = Adagrad(learning_rate=1.0)
    optimizer.build(tables.tables)
    a, words = tf.constant([[1.0, 0.0], [0.0, -5.0]]), tf.constant([[2.0, 4.0], [9.0, 9.0]])
    tables.update(features(), [a, words, None], optimizer)
    # The first step of Adagrad is the sign of the combined gradient, and its slot the square.
    np.testing.assert_allclose(tables.tables["shared"], SHARED - [[0, 0], [1, 1], [1, 1], [0, -1]], rtol=1e-6)
    squares = optimizer.slots["shared"]["accumulator"]
    np.testing.assert_allclose(squares, [[0, 0], [16, 36], [16, 64], [0, 25]])
    np.testing.assert_array_equal(optimizer.slots["b"]["accumulator"], np.zeros([5, 3]))


@pytest.mark.parametrize("combiner", ["sum", "mean", "sqrtn"])
@pytest.mark.parametrize("weighted", [False, True])
def test_combiners_equal_numpy(combiner, weighted):
    rng = np.random.default_rng(0)
    lengths = [0, 3, 1, 0, 5, 0]  # empty bags at both ends
    ids, weights = rng.integers(0, 6, 9), rng.uniform(0.1, 2, 9).astype(np.float32)
    ragged = tf.RaggedTensor.from_row_lengths(ids.astype(np.int32), lengths)
    tables = EmbeddingTables(one_multi_valued(combiner, weighted))
    (vectors,) = tables.lookup({"f": ragged, "f_weights": ragged.with_values(tf.constant(weights))})

    table, used = tables.tables["f"].numpy(), weights if weighted else np.ones(9)
    for b, (start, length) in enumerate(zip(np.cumsum([0, *lengths]), lengths, strict=False)):
        w, rows = used[start : start + length], table[ids[start : start + length]]
        norm = {"sum": 1.0, "mean": w.sum(), "sqrtn": np.sqrt((w**2).sum())}[combiner]
        expected = (w[:, None] * rows).sum(0) / norm if length else np.zeros(3)
        np.testing.assert_allclose(vectors[b], expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("combiner", ["sum", "mean", "sqrtn"])
def test_a_batch_of_nothing_and_weights_of_zero_give_zeros_and_change_nothing(combiner):
    tables = EmbeddingTables(one_multi_valued(combiner, weighted=True))
    optimizer = RowWiseAdagrad()
    optimizer.build(tables.tables)
    before = tables.tables["f"].numpy()
    for ids, weights in [([[], []], [[], []]), ([[1, 2], [3]], [[0.0, 0.0], [0.0]])]:
        batch = {"f": tf.ragged.constant(ids, tf.int32, 1), "f_weights": tf.ragged.constant(weights, tf.float32, 1)}
        np.testing.assert_array_equal(tables.lookup(batch)[0], np.zeros([2, 3]))
        tables.update(batch, [tf.ones([2, 3])], optimizer)
    np.testing.assert_array_equal(tables.tables["f"], before)


@pytest.mark.parametrize("combiner", ["sum", "mean", "sqrtn"])
@pytest.mark.parametrize("weighted", [False, True])
def test_an_sgd_update_is_the_gradient_of_the_plain_layer(combiner, weighted):
    """`update` applies the gradients that TensorFlow computes through `call`, with duplicates."""
    rng = np.random.default_rng(1)
    schema = Schema(
        Label("y"),
        categorical=(
            CategoricalFeature("a", table="t"),
            CategoricalFeature("b"),
            CategoricalFeature("c", multi_valued=True, weights="w" if weighted else None, table="t"),
            CategoricalFeature("d", multi_valued=True, table="t"),
        ),
        tables=(Table("t", 4, 7, combiner), Table("b", 2, 3)),
    )
    c, d = (tf.RaggedTensor.from_row_lengths(rng.integers(0, 7, 30).astype("int32"), [2, 0, 8, 4, 1, 15]) for _ in "cd")
    batch = {"ids": tf.constant(rng.integers(0, 3, [6, 2]), tf.int32), "c": c, "d": d}
    batch["c_weights"] = c.with_values(tf.constant(rng.uniform(size=30), tf.float32))
    factors = [tf.constant(rng.normal(size=(6, dim)), tf.float32) for dim in (4, 2, 4, 4)]

    tables = EmbeddingTables(schema)
    before = {name: t.numpy() for name, t in tables.tables.items()}
    with tf.GradientTape() as tape:
        loss = sum(tf.reduce_sum(v * f) for v, f in zip(tables(batch), factors, strict=True))
    gradients = tape.gradient(loss, dict(tables.tables))
    optimizer = SGD(1.0)
    optimizer.build(tables.tables)
    tables.update(batch, factors, optimizer)
    for name, table in tables.tables.items():
        np.testing.assert_allclose(before[name] - table, tf.convert_to_tensor(gradients[name]), atol=2e-6)


@pytest.mark.slow
def test_no_op_reads_a_whole_table():
    """It would copy it, since tables are written by scatter ops; see `pool`."""
    tables, optimizer = make_tables(), RowWiseAdagrad(l2=0.1)
    optimizer.build(tables.tables)

    @tf.function
    def step(features):
        tables.update(features, tables.lookup(features), optimizer)

    graph = step.get_concrete_function(features()).graph
    variables = [*tables.tables.values(), optimizer.slots["b"]["accumulator"]]
    handles = {inner.name for v in variables for outer, inner in graph.captures if outer is v.handle}
    users = {op.type for op in graph.get_operations() for i in op.inputs if i.name in handles}
    assert len(handles) == 3
    assert users == {"ResourceGather", "ResourceScatterUpdate", "While"}
    # The loops over parts of a multi-valued feature's rows take the handles; inside them it is the same.
    bodies = [f for name, f in graph._functions.items() if "while_body" in str(name)]
    inside = {n.op for f in bodies for n in f.cached_definition.node_def if "Variable" in n.op or "Resource" in n.op}
    assert bodies and inside == {"ResourceGather", "ResourceScatterUpdate"}


def test_works_in_a_plain_keras_model():
    tables = EmbeddingTables(SCHEMA.with_dim(2))
    ids, words, weights = (
        keras.Input([2], dtype=tf.int32),
        keras.Input([None], dtype=tf.int32, ragged=True),
        keras.Input([None], ragged=True),
    )
    vectors = tables({"ids": ids, "words": words, "words_weights": weights})
    model = keras.Model([ids, words, weights], keras.layers.Dense(1)(keras.layers.Add()(vectors)))
    model.compile("adam", "mse")
    before = tables.tables["b"].numpy()
    batch = features()
    model.fit([batch["ids"], batch["words"], batch["words_weights"]], tf.constant([1.0, 2.0]), verbose=0)
    changed = (tables.tables["b"].numpy() != before).any(axis=1)
    np.testing.assert_array_equal(changed, [True, False, False, False, True])


def test_initial_values():
    def table(**kwargs):
        t = Table("t", dim=16, **kwargs)
        return EmbeddingTables(Schema(Label("y"), categorical=(CategoricalFeature("t"),), tables=(t,))).tables["t"]

    uniform = table(vocabulary_size=2500).numpy()
    assert np.abs(uniform).max() <= 0.02 and uniform.max() > 0.0199 and uniform.min() < -0.0199
    np.testing.assert_allclose(uniform.std(), 0.02 / np.sqrt(3), rtol=0.02)
    assert np.abs(table(vocabulary_size=2500, scale=0.5)).max() > 0.49
    normal = table(vocabulary_size=2500, initializer="normal", scale=3.0).numpy()
    np.testing.assert_allclose([normal.mean(), normal.std()], [0, 3], atol=0.05)
    np.testing.assert_array_equal(table(vocabulary_size=3, initializer="zeros"), np.zeros([3, 16]))


def test_initial_values_depend_on_seed_and_name_alone():
    def values(seed, *names):
        schema = Schema(
            Label("y"),
            categorical=tuple(CategoricalFeature(n) for n in names),
            tables=tuple(Table(n, 2, 3) for n in names),
        )
        return {name: t.numpy() for name, t in EmbeddingTables(schema, seed).tables.items()}

    one = values(5, "a", "b")
    np.testing.assert_array_equal(values(5, "b", "c", "a")["a"], one["a"])
    assert not np.array_equal(one["a"], one["b"])
    assert not np.array_equal(values(6, "a")["a"], one["a"])
    # Written down, so that another process, machine or version of this library must give the same.
    np.testing.assert_allclose(one["a"][0], [-0.2720403, -0.0398737], rtol=1e-5)


def test_refuses():
    with pytest.raises(
        ValueError,
        match=r"table 'f' has no vocabulary_size yet.*`prepare`.*`td.fit_encoder\(...\).schema`.*set vocabulary_size",
    ):
        EmbeddingTables(Schema(Label("y"), categorical=(CategoricalFeature("f"),)))
    tables = make_tables()
    with pytest.raises(ValueError, match=r"no 'words_weights', only \['ids', 'words'\]"):
        tables.lookup({k: v for k, v in features().items() if k != "words_weights"})
    with pytest.raises(
        ValueError, match=r"ids of shape \(2, 1\); \[B, 2\] is needed, one column each for \['a', 'b'\]"
    ):
        tables.lookup(features() | {"ids": tf.constant([[1], [2]])})
    with pytest.raises(ValueError, match=r"'ids' of type float32; ids must be int32 or int64"):
        tables.lookup(features() | {"ids": tf.constant([[1.0, 0.0], [0.0, 0.0]])})
    with pytest.raises(ValueError, match=r"'words': ids of shape \(2,\); \[B, None\] is needed, ragged, sparse or de"):
        tables.lookup(features() | {"words": tf.constant([1, 2])})
    with pytest.raises(ValueError, match=r"'words': ids and weights must both be ragged or sparse, or both dense"):
        tables.lookup(features() | {"words": tf.constant([[1, 2], [1, 2]])})
    with pytest.raises(ValueError, match=r"'words': a SparseTensor of shape \(2, 2, 2\); \[B, L\] is needed"):
        tables.lookup(features() | {"words": tf.sparse.from_dense(np.ones([2, 2, 2], np.int32))})
    with pytest.raises(ValueError, match=r"'words': lists of several lengths, .*give tf.ragged.constant"):
        tables.lookup(features() | {"words": [[1], [1, 2]]})


def test_layer_checks(tmp_path):
    check_layer(make_tables(), features(), tmp_path, tables=True)


@pytest.mark.parametrize("combiner", ["sum", "mean", "sqrtn"])
@pytest.mark.parametrize("weighted", [False, True])
def test_fixed_and_sparse_multi_hot_are_the_ragged_one(combiner, weighted):
    rng = np.random.default_rng(3)
    ids, weights = rng.integers(0, 6, [5, 4]), rng.uniform(0.1, 2, [5, 4]).astype(np.float32)
    forms = {
        "dense": (tf.constant(ids, tf.int64), tf.constant(weights)),
        "ragged": (tf.RaggedTensor.from_tensor(ids.astype(np.int32)), tf.RaggedTensor.from_tensor(weights)),
        "sparse": (tf.sparse.from_dense(ids + 1), tf.sparse.from_dense(weights)),
    }
    forms["sparse"] = (forms["sparse"][0].with_values(forms["sparse"][0].values - 1), forms["sparse"][1])
    gradient, results = tf.constant(rng.normal(size=(5, 3)), tf.float32), {}
    for form, (rows, row_weights) in forms.items():
        tables, optimizer = EmbeddingTables(one_multi_valued(combiner, weighted)), SGD(0.5)
        optimizer.build(tables.tables)
        batch = {"f": rows, "f_weights": row_weights}
        vectors = tables.lookup(batch)[0]
        tables.update(batch, [gradient], optimizer)
        results[form] = vectors.numpy(), tables.tables["f"].numpy()
    for form in ("dense", "sparse"):
        for a, b in zip(results[form], results["ragged"], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert not np.array_equal(results["dense"][1], EmbeddingTables(one_multi_valued(combiner, weighted)).tables["f"])


@pytest.mark.parametrize("combiner", ["sum", "mean", "sqrtn"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("graph", [False, True])
def test_any_sparse_tensor_is_looked_up_as_tensorflow_does(combiner, weighted, graph):
    """Rows that do not begin at column 0, in any order of indices, with empty rows in the middle and at the end."""
    tables = EmbeddingTables(one_multi_valued(combiner, weighted))
    indices = np.array([[0, 1], [1, 0], [3, 5], [3, 2], [1, 4], [0, 7]], np.int64)
    ids, weights = np.array([5, 2, 1, 3, 0, 4]), np.array([0.5, 2, 1.5, 3, 0.25, 1], np.float32)
    sparse, factors = (tf.SparseTensor(indices, values, [5, 8]) for values in (ids, weights))
    lookup = tf.function(tables.lookup) if graph else tables.lookup
    found = lookup({"f": sparse, "f_weights": factors})[0]
    ordered = tf.sparse.reorder(sparse), tf.sparse.reorder(factors) if weighted else None
    expected = tf.nn.safe_embedding_lookup_sparse(tables.tables["f"], *ordered, combiner=combiner)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert not found[2].numpy().any() and not found[4].numpy().any()


@pytest.mark.parametrize("combiner", ["sum", "mean", "sqrtn"])
@pytest.mark.parametrize("weighted", [False, True])
def test_padding_of_a_dense_batch_is_no_value(combiner, weighted):
    """-1 is masked: neither the mean nor row 0 knows of it, forward and in the update."""
    rows = [[3, 1], [], [0, 5, 2], [4]]
    ids = tf.ragged.constant(rows, tf.int32)
    weights = ids.with_values(tf.constant([0.5, 2, 1, 3, 0.25, 1.5]))
    dense = tf.constant([[3, -1, 1], [-1, -1, -1], [0, 5, 2], [-1, 4, -1]])
    dense_weights = tf.constant([[0.5, 9, 2], [9, 9, 9], [1, 3, 0.25], [9, 1.5, 9]])
    gradient, results = tf.constant(np.random.default_rng(0).normal(size=(4, 3)), tf.float32), []
    for batch in ({"f": ids, "f_weights": weights}, {"f": dense, "f_weights": dense_weights}):
        tables, optimizer = EmbeddingTables(one_multi_valued(combiner, weighted)), RowWiseAdagrad(0.5, l2=0.1)
        optimizer.build(tables.tables)
        prepared = tables.prepare(batch)
        assert not prepared.out_of_range.numpy().any()
        vectors = tables.lookup(prepared)[0]
        tables.update(prepared, [gradient], optimizer)
        results.append((vectors.numpy(), tables.tables["f"].numpy()))
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_padding_of_a_batch_of_unknown_width_and_of_sequences():
    feature = CategoricalFeature("f", multi_valued=True, sequence_length=2)
    tables = EmbeddingTables(Schema(Label("y"), categorical=(feature,), tables=(Table("f", 2, 4),)))
    tables.tables["f"].assign(SHARED)
    lookup = tf.function(tables.lookup, input_signature=[{"f": tf.TensorSpec([None, None], tf.int64)}])
    expected = tables.lookup({"f": tf.ragged.constant([[1, 2, 3], [2], []], tf.int32)})[0]
    found = lookup({"f": tf.constant([[1, 2, 3], [-1, 2, -1], [-1, -1, -1]], tf.int64)})[0]
    np.testing.assert_array_equal(found, expected)


def test_sequences_by_hand():
    """Two places for each of three bags: one too long, one too short, one empty."""
    feature = CategoricalFeature("f", multi_valued=True, sequence_length=2, weights="w")
    tables = EmbeddingTables(Schema(Label("y"), categorical=(feature,), tables=(Table("f", 2, 4),)))
    tables.tables["f"].assign(SHARED)
    batch = {"f": tf.ragged.constant([[1, 2, 3], [0], []], tf.int32)}
    batch["f_weights"] = batch["f"].with_values(tf.constant([1.0, 2.0, 5.0, 3.0]))
    expected = [[[3, 4], [10, 12]], [[3, 6], [0, 0]], [[0, 0], [0, 0]]]
    np.testing.assert_allclose(tables.lookup(batch)[0], expected)
    optimizer = SGD(1.0)
    optimizer.build(tables.tables)
    gradient = tf.constant(np.arange(12).reshape(3, 2, 2), tf.float32)
    tables.update(batch, [gradient], optimizer)
    # Row 1 in the first place, row 2 in the second with weight 2, row 0 in the next example with weight 3.
    np.testing.assert_allclose(SHARED - tables.tables["f"], [[12, 15], [0, 1], [4, 6], [0, 0]])
    with pytest.raises(ValueError, match="sequence_length=0; at least 1"):
        Schema(Label("y"), categorical=(CategoricalFeature("f", multi_valued=True, sequence_length=0),))
    with pytest.raises(ValueError, match="sequence_length needs a multi-valued feature"):
        Schema(Label("y"), categorical=(CategoricalFeature("f", sequence_length=3),))


@pytest.mark.parametrize("form", ["one_hot", "ragged", "dense"])
@pytest.mark.parametrize("dtype", [tf.int32, tf.int64])
def test_ids_out_of_range(form, dtype):
    """Policies by hand, on the batch [7, -3, 2] for tables of 4 rows; `hash` as the encoder hashes."""

    def tables(policy):
        feature = CategoricalFeature("f", "f", "ids", "int64", out_of_range=policy, multi_valued=form != "one_hot")
        out = EmbeddingTables(Schema(Label("y"), categorical=(feature,), tables=(Table("f", 2, 4),)))
        out.tables["f"].assign(SHARED)
        return out

    ids = tf.constant([[7], [-3], [2]], dtype)
    batch = {"ids": ids, "f": tf.RaggedTensor.from_tensor(ids) if form == "ragged" else ids}
    hashed = tf.strings.to_hash_bucket_fast(["7", "-3"], 4).numpy()
    for policy, rows in {"oov": [0, 0, 2], "clip": [3, 0, 2], "hash": [*hashed, 2]}.items():
        prepared = tables(policy).prepare(batch)
        np.testing.assert_array_equal(prepared.out_of_range, [2])
        np.testing.assert_allclose(tables(policy).lookup(batch)[0], SHARED[rows])
    message = "feature f: id 7 is outside the table of 4 rows; raise vocabulary_size or set out_of_range to oov"
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        tf.function(tables("error").lookup)(batch)
    good = {"ids": tf.constant([[3], [0]], dtype), "f": tf.constant([[3], [0]], dtype)}
    np.testing.assert_allclose(tables("error").lookup(good)[0], SHARED[[3, 0]])


@pytest.mark.parametrize("hint", ["right", "unsorted", "too short"])
def test_the_order_of_ids_is_a_hint_and_no_more(hint):
    rng = np.random.default_rng(5)
    a, b = CategoricalFeature("a", table="t"), CategoricalFeature("b", table="t", multi_valued=True)
    schema = Schema(Label("y"), categorical=(a, b), tables=(Table("t", 2, 9),))
    ragged = tf.RaggedTensor.from_row_lengths(rng.integers(0, 9, 12).astype("int32"), [4, 0, 8])
    batch = {"ids": tf.constant(rng.integers(0, 9, [3, 1]), tf.int32), "b": ragged}
    ids = np.concatenate([batch["ids"][:, 0], ragged.flat_values])
    order = {"right": np.argsort(ids), "unsorted": np.arange(15), "too short": np.argsort(ids)[:9]}[hint]
    gradients = [tf.constant(rng.normal(size=(3, 2)), tf.float32) for _ in "ab"]
    results = []
    for extra in ({}, {schema.table("t").order_key: tf.constant(order, tf.int32)}):
        tables, optimizer = EmbeddingTables(schema), Adagrad(0.5)
        optimizer.build(tables.tables)
        tf.function(tables.update)(batch | extra, gradients, optimizer)
        results.append(tables.tables["t"].numpy())
    np.testing.assert_allclose(results[0], results[1], rtol=1e-6)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("rows", [20, 4000])
def test_many_rows_are_updated_in_parts(monkeypatch, weighted, rows):
    """Parts of 3 rows, the last not full, change what one part does. 20 rows: mostly repeats; 4000: hardly any."""
    rng = np.random.default_rng(6)
    ids = tf.RaggedTensor.from_row_lengths(rng.integers(0, rows, 200).astype("int32"), [50, 0, 120, 30])
    assert (rows == 20) == (len(set(ids.flat_values.numpy())) < 50)
    weights = ids.with_values(tf.constant(rng.uniform(size=200), tf.float32))
    gradient, results = tf.constant(rng.normal(size=(4, 2)), tf.float32), []
    for numbers in (6, 1 << 19):
        monkeypatch.setattr("tfrs_dlrm.embeddings.chunked_gradient._NUMBERS_PER_CHUNK", numbers)
        schema = one_multi_valued("sqrtn", weighted, 2, rows)
        tables, optimizer = EmbeddingTables(schema), RowWiseAdagrad(0.5, l2=0.1)
        optimizer.build(tables.tables)
        before = tables.tables["f"].numpy()
        tf.function(tables.update)({"f": ids, "f_weights": weights}, [gradient], optimizer)
        results.append([tables.tables["f"].numpy(), optimizer.slots["f"]["accumulator"].numpy()])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    changed = (results[0][0] != before).any(axis=1)
    np.testing.assert_array_equal(np.flatnonzero(changed), np.unique(ids.flat_values))


def test_features_of_one_table_may_have_ids_of_different_types():
    results = []
    for dtype in (tf.int32, tf.int64):
        tables, optimizer = make_tables(), SGD(1.0)
        optimizer.build(tables.tables)
        batch = features() | {"ids": tf.cast(features()["ids"], dtype)}
        tables.update(batch, [tf.ones([2, 2]), tf.ones([2, 2]), tf.ones([2, 3])], optimizer)
        results.append(tables.tables["shared"].numpy())
    np.testing.assert_array_equal(*results)
    assert np.any(results[0] != SHARED)


@pytest.mark.parametrize(
    ("ids", "weights", "message"),
    [
        (tf.ragged.constant([[1, 2], [3]]), tf.ragged.constant([[1.0], [2.0, 3.0]]), "another shape than the ids"),
        (tf.constant([[1, 2], [3, 0]]), tf.ones([1, 4]), "another shape than the ids"),
        (tf.constant([[1, 2], [3, 0]], tf.int16), tf.ones([2, 2]), "of type int16; ids must be int32 or int64"),
        (
            tf.constant([[1, 2], [3, 0]]),
            tf.ones([2, 2], tf.int32),
            "'f_weights' of type int32; weights must be",
        ),
    ],
)
def test_ids_and_weights_that_do_not_fit(ids, weights, message):
    tables = EmbeddingTables(one_multi_valued("sum", weighted=True))
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError), match=message):
        tables.lookup({"f": ids, "f_weights": weights})


def test_batches_of_odd_forms():
    tables = EmbeddingTables(one_multi_valued("mean", weighted=True))
    vectors = tables.lookup({"f": np.zeros([3, 0], np.int32), "f_weights": np.zeros([3, 0], np.float32)})[0]
    np.testing.assert_array_equal(vectors, np.zeros([3, 3]))
    doubles = {"f": np.array([[1, 2]]), "f_weights": np.array([[1.0, 3.0]])}
    expected = (tables.tables["f"][1] + 3 * tables.tables["f"][2]) / 4
    np.testing.assert_allclose(tables.lookup(doubles)[0][0], expected, rtol=1e-6)
    sequence = CategoricalFeature("f", multi_valued=True, sequence_length=2)
    tables = EmbeddingTables(Schema(Label("y"), categorical=(sequence,), tables=(Table("f", 2, 4),)))
    ids = tf.RaggedTensor.from_row_splits([1, 2, 3], tf.constant([0, 1, 3], tf.int32))
    np.testing.assert_array_equal(tables.lookup({"f": ids})[0][0, 1], [0, 0])
    with pytest.raises(tf.errors.InvalidArgumentError, match="different numbers of examples"):
        make_tables().lookup(features() | {"ids": tf.constant([[1, 0]])})
