"""The dense update of small tables, against the sparse one."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from cases import matrix
from fake_tpu import encoded_batch

from tfrs_dlrm.distribute.placement import Topology, place
from tfrs_dlrm.embeddings import FTRL, SGD, Adagrad, EmbeddingTables, LazyAdam, RowOptimizer, RowWiseAdagrad
from tfrs_dlrm.embeddings.gradients import DenseGradient, LookupGradient
from tfrs_dlrm.embeddings.tpu import TPUEmbeddingTables
from tfrs_dlrm.schema import CategoricalFeature, Label, Schema, Table

SCHEMA = Schema(
    label=Label("y"),
    categorical=(
        CategoricalFeature("a", table="shared"),
        CategoricalFeature("many", multi_valued=True, weights="w", table="shared"),
        CategoricalFeature("root", multi_valued=True),
        CategoricalFeature("sequence", multi_valued=True, sequence_length=3, weights="v"),
        CategoricalFeature("divided", multi_valued=True),
        CategoricalFeature("hashed", multi_valued=True),
        CategoricalFeature("small"),
    ),
    tables=(
        Table("shared", dim=4, vocabulary_size=30, scale=1.0),
        Table("root", dim=4, vocabulary_size=12, combiner="sqrtn", scale=1.0),
        Table("sequence", dim=4, vocabulary_size=9, scale=1.0),
        Table("divided", dim=4, vocabulary_size=40, remainders=5, combiner="sum"),
        Table("hashed", dim=4, vocabulary_size=100, stored_in="home"),
        Table("home", dim=2, vocabulary_size=20, scale=1.0),
        Table("small", dim=4, vocabulary_size=2, initializer="normal"),
    ),
)
BATCH = 16
SCHEDULE = keras.optimizers.schedules.ExponentialDecay(0.1, decay_steps=3, decay_rate=0.5)
OPTIMIZERS = {
    "sgd": lambda **k: SGD(SCHEDULE, **k),
    "adagrad": lambda **k: Adagrad(SCHEDULE, **k),
    "rowwise": lambda **k: RowWiseAdagrad(SCHEDULE, initial_accumulator=0.1, **k),
    "adam": lambda **k: LazyAdam(SCHEDULE, epsilon=1e-3, **k),
    "ftrl": lambda **k: FTRL(SCHEDULE, l1=0.1, **k),
}


def dense_tables(seed: int = 0) -> TPUEmbeddingTables:
    """All tables replicated, outside of any strategy: everything of a TPU but the TPU."""
    hotness = dict.fromkeys(["many", "root", "divided", "hashed"], 4)
    return TPUEmbeddingTables(SCHEMA, seed, place(SCHEMA, Topology("tpu", 1, chip="v5e")), BATCH, hotness)


@pytest.mark.parametrize(
    ("name", "regularization"),
    matrix(
        [(name, {}) for name in OPTIMIZERS]
        + [(name, {"l2": 0.5}) for name in OPTIMIZERS]
        + [(name, {"weight_decay": 0.7}) for name in OPTIMIZERS if name != "ftrl"],
        fast=[("ftrl", {}), ("rowwise", {"l2": 0.5}), ("adam", {"weight_decay": 0.7})],
    ),
)
def test_steps_equal_those_of_embedding_tables(name, regularization):
    """Compiled by XLA, as TPUs compile it; the same lookups, tables and slots as the sparse engine has."""
    engines, optimizers, steps = [EmbeddingTables(SCHEMA), dense_tables()], [], []
    for engine, compiled in zip(engines, [False, not regularization], strict=True):  # which takes seconds each time
        optimizer: RowOptimizer = OPTIMIZERS[name](**regularization)
        engine.compile(optimizer)

        def step(features, factors, engine=engine, optimizer=optimizer):
            ids = engine.prepare(features)
            vectors = engine.lookup(ids)
            engine.update(ids, [v * f for v, f in zip(vectors, factors, strict=True)], optimizer)
            return vectors

        optimizers.append(optimizer)
        steps.append(tf.function(step, jit_compile=compiled))

    rng = np.random.default_rng(0)
    for i in range(6):
        batch = encoded_batch(SCHEMA, BATCH, seed=i)
        factors = [tf.constant(rng.normal(size=v.shape) / BATCH, tf.float32) for v in engines[1].zeros(BATCH)]
        sparse, dense = steps[0](batch, factors), steps[1](engines[1].host_map(batch), factors)
        for a, b in zip(sparse, dense, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)
    assert int(optimizers[1].iterations) == 6
    expected, found = (e.logical_tables(o) for e, o in zip(engines, optimizers, strict=True))
    assert expected.keys() == found.keys()
    for key, stored in expected.items():
        (a,), (b,) = stored.shards, found[key].shards
        np.testing.assert_allclose(a.read(0, a.end), b.read(0, b.end), atol=1e-6, err_msg=key)
    moved = engines[0].tables["shared"].numpy() != EmbeddingTables(SCHEMA).tables["shared"].numpy()
    assert moved.any()


def test_rows_that_no_example_looks_up_stay_as_they_are():
    """Even where the formula would move them: decay, and moments that fade."""
    engine, optimizer = dense_tables(), LazyAdam(0.1, weight_decay=0.5)
    engine.compile(optimizer)
    before = engine.tables["shared"].numpy()
    batch = encoded_batch(SCHEMA, BATCH)
    batch["ids"] = tf.zeros_like(batch["ids"]) + [7, 1]
    batch["many"], batch["many_weights"] = batch["many"][:, :0], batch["many_weights"][:, :0]
    ids = engine.prepare(engine.host_map(batch))
    engine.update(ids, [tf.ones_like(v) for v in engine.lookup(ids)], optimizer)
    after = engine.tables["shared"].numpy()
    np.testing.assert_array_equal(np.flatnonzero((before != after).any(axis=1)), [7])
    np.testing.assert_array_equal(np.flatnonzero(optimizer.slots["shared"]["m"].numpy().any(axis=1)), [7])


def test_replicas_add_up():
    # TensorFlow's default for CPUs, collectives, get into each other's way when a process has had other strategies.
    sums = tf.distribute.ReductionToOneDevice()
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"], cross_device_ops=sums)

    @tf.function
    def gradient(rows, values):
        def of_replica(rows, values):
            whole = DenseGradient.of([LookupGradient(rows, values)], 5, tf.size(rows))
            return whole.values, whole.counts, whole.batch_size

        return strategy.run(of_replica, args=(rows, values))

    def per_replica(*values):
        return strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(values[context.replica_id_in_sync_group])
        )

    rows = per_replica([1, 4, 1], [1, -1, 0])
    found = gradient(rows, per_replica([[1.0], [2.0], [3.0]], [[10.0], [20.0], [30.0]]))
    for values, counts, size in zip(*(strategy.experimental_local_results(x) for x in found), strict=True):
        np.testing.assert_array_equal(values, [[30], [14], [0], [0], [2]])
        np.testing.assert_array_equal(counts, [1, 3, 0, 0, 1])
        assert float(size) == 6


def test_bfloat16_tables_are_rounded_and_only_where_looked_up():
    schema = Schema(Label("y"), categorical=(CategoricalFeature("a"),), tables=(Table("a", 2, 6, dtype="bfloat16"),))
    engine = TPUEmbeddingTables(schema, 0, place(schema, Topology("tpu", 1, chip="v5e")), 2)
    optimizer = SGD(1.0)
    engine.compile(optimizer)
    engine.tables["a"].assign(tf.ones([6, 2], tf.bfloat16))
    ids = engine.prepare(engine.host_map({"ids": tf.constant([[2], [2]])}))
    engine.update(ids, [tf.fill([2, 2], 2.0**-9)], optimizer)  # half a step of bfloat16 below 1, together
    after = tf.cast(engine.tables["a"], tf.float32).numpy()
    assert set(after[2]) <= {1.0, 1 - 2.0**-8}
    np.testing.assert_array_equal(np.delete(after, 2, axis=0), 1)
