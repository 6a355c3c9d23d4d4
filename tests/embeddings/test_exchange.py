"""Several replicas take the step that one takes on all of their examples, however the rows are laid out."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from cases import matrix

from tfrs_dlrm.distribute.placement import RowsOnDevice
from tfrs_dlrm.distribute.strategies import make_strategy
from tfrs_dlrm.embeddings import FTRL, SGD, Adagrad, EmbeddingTables, LazyAdam, PerTableOptimizer, RowWiseAdagrad
from tfrs_dlrm.embeddings.gradients import CombinedGradient
from tfrs_dlrm.embeddings.row_access import add_to_rows, read_rows
from tfrs_dlrm.embeddings.storage import LogicalTable, ShardedTable
from tfrs_dlrm.schema import CategoricalFeature, Label, Schema, Table

# Every kind of feature and of table: shared, multi-valued with weights, a sequence, compressed in both ways.
SCHEMA = Schema(
    Label("y"),
    categorical=(
        CategoricalFeature("a", table="shared"),
        CategoricalFeature("words", multi_valued=True, weights="w", table="shared"),
        CategoricalFeature("history", multi_valued=True, sequence_length=3),
        CategoricalFeature("pairs", table="pairs"),
        CategoricalFeature("tiny", table="tiny"),
    ),
    tables=(
        Table("shared", 4, 50, combiner="sqrtn"),
        Table("history", 2, 30),
        Table("pairs", 4, 40, remainders=7),
        Table("pool", 2, 20),
        Table("tiny", 4, 9, stored_in="pool"),
    ),
)
CPUS = [f"/device:CPU:{i}" for i in range(4)]


def batch(size: int, seed: int) -> dict:
    rng = np.random.default_rng(seed)
    ragged = {}
    for name, rows in (("words", 50), ("history", 30)):
        lengths = rng.integers(0, 5, size)
        ids = rng.integers(0, rows, lengths.sum()).astype(np.int32)
        ragged[name] = tf.RaggedTensor.from_row_lengths(ids, lengths)
    weights = ragged["words"].with_values(tf.constant(rng.random(ragged["words"].flat_values.shape[0]), tf.float32))
    columns = [np.minimum(rng.zipf(1.5, size) - 1, rows - 1) for rows in (50, 40, 9)]
    return {"ids": tf.constant(np.stack(columns, 1), tf.int32), **ragged, "words_weights": weights}


def gradients(features: dict, seed: int) -> list:
    rng, size = np.random.default_rng(seed), features["ids"].shape[0]
    shapes = [[size, 4], [size, 4], [size, 3, 2], [size, 4], [size, 4]]
    return [tf.constant(rng.normal(size=shape), tf.float32) for shape in shapes]


def rows_of(tables, optimizer) -> dict:
    stored = {name: LogicalTable.of(t) for name, t in tables.tables.items()}
    stored |= {f"{n}/{s}": LogicalTable.of(v) for n, slots in optimizer.slots.items() for s, v in slots.items()}
    return {k: np.concatenate([p.read(p.begin, p.end).numpy() for p in s.shards]) for k, s in stored.items()}


def places(devices: int) -> dict:
    """Ranges of odd sizes, in another order of devices for each; `pairs__remainder` and `history` stay as they are."""
    cuts = {"shared": 50, "pairs__quotient": 6, "pool": 20}
    out = {}
    for turn, (name, rows) in enumerate(cuts.items()):
        ends = [0, *sorted({max(1, rows * (i + 1) // devices - i % 2) for i in range(devices - 1)}), rows]
        pairs = itertools.pairwise(ends)
        out[name] = [RowsOnDevice(b, e, CPUS[(i + turn) % devices]) for i, (b, e) in enumerate(pairs)]
    return out


OPTIMIZERS = {
    "sgd": lambda: SGD(0.1, l2=0.3, weight_decay=0.1),
    "adagrad": lambda: Adagrad(0.1, initial_accumulator=0.1),
    "rowwise": lambda: RowWiseAdagrad(0.1, initial_accumulator=0.1, l2=0.3),
    "adam": lambda: LazyAdam(0.1, epsilon=1e-3, l2=0.3),
    "ftrl": lambda: FTRL(0.1, l1=0.01, initial_accumulator=0.1),
    "per table": lambda: PerTableOptimizer(
        SGD(0.1), {"shared": LazyAdam(0.1, epsilon=1e-3), "pairs": Adagrad(0.1, 0.1)}
    ),
}


def steps_on_one_device(make_optimizer, batches) -> dict:
    tables, optimizer = EmbeddingTables(SCHEMA), make_optimizer()
    optimizer.build(tables.tables)
    for parts in batches:
        features = {key: tf.concat([p[0][key] for p in parts], axis=0) for key in parts[0][0]}
        optimizer_gradients = [tf.concat(g, axis=0) for g in zip(*(p[1] for p in parts), strict=True)]
        tables.update(features, optimizer_gradients, optimizer)
    return rows_of(tables, optimizer)


@pytest.mark.parametrize(
    ("name", "devices"),
    matrix([*((name, 4) for name in OPTIMIZERS), ("rowwise", 2)], fast=[("rowwise", 2), ("per table", 4)]),
)
def test_replicas_take_the_step_of_one_device(name, devices):
    """Two steps, with parts of the batch of different sizes, one of them empty."""
    sizes = [7, 0, 12, 5][:devices]
    batches = []
    for step in range(2):
        parts = [batch(size, 10 * step + i) for i, size in enumerate(sizes)]
        batches.append([(features, gradients(features, i)) for i, features in enumerate(parts)])
    expected = steps_on_one_device(OPTIMIZERS[name], batches)

    strategy = make_strategy("mirrored", devices)
    with strategy.scope():
        tables, optimizer = EmbeddingTables(SCHEMA, places=places(devices)), OPTIMIZERS[name]()
        optimizer.build(tables.tables)
    assert isinstance(tables.tables["shared"], ShardedTable) and len(tables.tables["shared"].variables) == devices

    @tf.function(reduce_retracing=True)
    def step(features, gradients):
        def of_replica(features, gradients):
            vectors = tables.lookup(features)
            tables.update(features, gradients, optimizer)
            return vectors

        return strategy.run(of_replica, args=(features, gradients))

    whole = EmbeddingTables(SCHEMA)
    for number, parts in enumerate(batches):
        features, upstream = (
            strategy.experimental_distribute_values_from_function(lambda c, j=j: parts[c.replica_id_in_sync_group][j])  # noqa: B023
            for j in range(2)
        )
        vectors = step(features, upstream)
        if number == 0:  # before any update
            for i, part in enumerate(parts):
                found = [strategy.experimental_local_results(v)[i] for v in vectors]
                for a, b in zip(found, whole.lookup(part[0]), strict=True):
                    np.testing.assert_array_equal(a, b)
    found = rows_of(tables, optimizer)
    assert found.keys() == expected.keys() and optimizer.iterations == 2
    for key, values in expected.items():
        np.testing.assert_allclose(found[key], values, atol=1e-5, err_msg=key)
    for copied in (tables.tables["history"], tables.tables["pairs__remainder"]):
        first, *others = (v.numpy() for v in copied.values)
        assert all(np.array_equal(first, other) for other in others)


def test_bfloat16_copies_are_rounded_alike():
    strategy = make_strategy("mirrored", 2)
    schema = Schema(Label("y"), categorical=(CategoricalFeature("a"),), tables=(Table("a", 4, 50, dtype="bfloat16"),))
    with strategy.scope():
        tables, optimizer = EmbeddingTables(schema), SGD(0.01)
        optimizer.build(tables.tables)
    before = rows_of(tables, optimizer)["a"].astype(np.float32)
    ids, g = tf.range(50)[:, None], tf.ones([50, 4])
    strategy.run(lambda: tables.update({"ids": ids}, [g], optimizer))
    first, second = (v.numpy() for v in tables.tables["a"].values)
    np.testing.assert_array_equal(first, second)
    # 0.02 is a fraction of the steps of bfloat16 at most of these values: rounding makes it right on average only.
    np.testing.assert_allclose((before - first.astype(np.float32)).mean(), 0.02, rtol=0.02)


def test_updates_that_others_interrupt_add_up():
    """A worker of an asynchronous cluster may write to rows that changed since it read them."""
    tables, optimizer = EmbeddingTables(SCHEMA, places=places(2)), Adagrad(0.1, initial_accumulator=0.1)
    optimizer.build(tables.tables)
    shard, slot = tables.tables["shared"].variables[0], optimizer.slots["shared"]["accumulator"].variables[0]
    before, g = shard.numpy(), np.full([2, 4], 0.5, np.float32)
    gradient = CombinedGradient(tf.constant([3, 1]), tf.constant(g), tf.ones([2]), tf.constant(2))
    optimizer.step("shared", shard, {"accumulator": slot}, gradient, others_write=True)
    expected = before.copy()
    expected[[3, 1]] -= 0.1 * 0.5 / np.sqrt(0.1 + 0.25)
    np.testing.assert_allclose(shard, expected, atol=1e-6)
    np.testing.assert_allclose(slot.numpy()[[3, 1, 2], 0], [0.35, 0.35, 0.1], atol=1e-6)
    old = read_rows(shard, tf.constant([3]))
    shard.scatter_add(tf.IndexedSlices(tf.ones([1, 4]), tf.constant([3])))  # by another worker
    add_to_rows(shard, tf.constant([3]), old, old + 2.0)
    np.testing.assert_allclose(shard.numpy()[3], expected[3] + 3.0, atol=1e-6)


def test_the_plain_layer_trains_under_replicas_with_a_keras_optimizer():
    """Without places it is a layer as any other: copied, and synchronized by the optimizer."""

    def fit(strategy):
        schema = Schema(Label("y"), categorical=(CategoricalFeature("a"),), tables=(Table("a", 1, 5),))
        with strategy.scope():
            layer = EmbeddingTables(schema)
            inputs = keras.Input([1], dtype=tf.int32)
            model = keras.Model(inputs, layer({"ids": inputs})[0])
            model.compile(keras.optimizers.SGD(1.0), "mse")
        ids = np.arange(8)[:, None] % 5
        model.fit(ids, np.ones([8, 1]), batch_size=8, epochs=3, verbose=0)
        return layer.tables["a"].numpy()

    replicas = fit(make_strategy("mirrored", 2))
    np.testing.assert_allclose(replicas, fit(tf.distribute.OneDeviceStrategy("CPU:0")), atol=1e-6)


def test_an_update_outside_of_the_replicas_is_refused():
    strategy = make_strategy("mirrored", 2)
    with strategy.scope():
        tables, optimizer = EmbeddingTables(SCHEMA), SGD(0.1)
        optimizer.build(tables.tables)
        features = batch(2, 0)
        with pytest.raises(ValueError, match=r"2 replicas: call `update` in strategy.run"):
            tables.update(features, gradients(features, 0), optimizer)
