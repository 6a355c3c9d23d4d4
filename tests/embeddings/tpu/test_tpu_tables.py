"""Updates of rows on embedding hardware, with hardware that is imitated in NumPy."""

import numpy as np
import pytest
import tensorflow as tf
from fake_tpu import KINDS, encoded_batch, fake_tpu, make_tables

from tfrs_dlrm.embeddings import FTRL, SGD, Adagrad, EmbeddingTables, LazyAdam, PerTableOptimizer
from tfrs_dlrm.schema import CategoricalFeature, Label, Schema, Table

# Two features of a table, pieces of rows that are cut, a sequence, and a copied table, whose values may be pooled.
SCHEMA = Schema(
    Label("y"),
    categorical=(
        CategoricalFeature("a"),
        CategoricalFeature("again", table="a"),
        CategoricalFeature("hashed"),
        CategoricalFeature("recent", multi_valued=True, sequence_length=3),
        CategoricalFeature("copied", multi_valued=True, weights="w"),
    ),
    tables=(
        Table("a", 4, 30),
        Table("hashed", 5, 99, stored_in="home"),
        Table("recent", 4, 20),
        Table("copied", 2, 5),
        Table("home", 4, 25),
    ),
)
REPLICAS, BATCH = 2, 8


class Hardware:
    """Tables on the hardware: vectors of bags by `sum`, and gradients added up over replicas before one step."""

    def __init__(self, rows):
        self.rows, self.gradients = rows, {name: np.zeros_like(values) for name, values in rows.items()}
        self.counts = {name: np.zeros(len(values)) for name, values in rows.items()}
        self.tables = {}

    def bags(self, ids):
        return ids.to_list() if isinstance(ids, tf.RaggedTensor) else [[i] for i in ids.numpy()]

    def look_up(self, ids, weights, call):
        del call
        assert not any(w is not None for w in weights.values())
        found = {}
        for key, values in ids.items():
            rows = self.rows[self.table_of[key]]
            found[key] = tf.constant(np.stack([rows[bag].sum(axis=0) for bag in self.bags(values)]))
        return found, ids

    def update(self, gradients, token):
        for key, gradient in gradients.items():
            for bag, g in zip(self.bags(token[key]), gradient.numpy(), strict=True):
                np.add.at(self.gradients[self.table_of[key]], bag, g)
                np.add.at(self.counts[self.table_of[key]], bag, 1)


def halves(batch):
    return [{k: v[i * BATCH : (i + 1) * BATCH] for k, v in batch.items()} for i in range(REPLICAS)]


OPTIMIZERS = {
    "sgd": lambda **l2: SGD(0.5, **l2),
    "adagrad": lambda **l2: Adagrad(0.1, **l2),
    "lazy_adam": lambda **l2: LazyAdam(0.1, **l2),
    "ftrl": lambda **l2: FTRL(0.1, initial_accumulator=0.1, **l2),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_l2_is_that_of_the_row_optimizers(name):
    make = OPTIMIZERS[name]
    ours, optimizer = EmbeddingTables(SCHEMA, seed=3), make(l2=0.7)
    optimizer.build(ours.tables)
    batch = encoded_batch(SCHEMA, REPLICAS * BATCH)
    rng = np.random.default_rng(1)
    gradients = [tf.constant(rng.normal(size=v.shape) / 16, tf.float32) for v in ours.lookup(batch)]
    start = {n: v.numpy() for n, v in ours.tables.items()}
    ours.update(batch, gradients, optimizer)

    with fake_tpu("V1", REPLICAS) as strategy, strategy.scope():
        tables, rule = make_tables("V1", SCHEMA, replicate_below=100, batch_size=BATCH, seed=3), make(l2=0.7)
        tables.compile(rule)
        assert set(tables.on_hardware) == {"a", "recent", "home"}
        hardware = Hardware({n: start[n].copy() for n in tables.on_hardware})
        hardware.table_of = {x.key: x.table for x in tables._lookups}
        tables._state.hardware = hardware
        for i, half in enumerate(halves(batch)):
            ids = tables.prepare(tables.host_map(half))
            for found, expected in zip(tables.lookup(ids), ours_before(start, half), strict=True):
                np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)
            # Of the features on the hardware; the copied table has a test of its own.
            part = [g[i * BATCH : (i + 1) * BATCH] for g in gradients[:4]]
            tables.update(ids, [*part, None], rule)
    for n in tables.on_hardware:
        # One step of the formula, without l2, on the rows that were looked up.
        plain = make()
        slots = {s: tf.fill(start[n].shape, t.initial) for s, t in plain.slot_types().items()}
        rate, step = tf.constant(plain.learning_rate), tf.constant(1.0)
        new, _ = plain.row_step(tf.constant(start[n]), tf.constant(hardware.gradients[n]), slots, rate, step)
        looked_up = hardware.counts[n][:, None] > 0
        assert 0 < looked_up.sum() < looked_up.size
        np.testing.assert_allclose(np.where(looked_up, new, start[n]), ours.tables[n], atol=1e-6)


def ours_before(start, batch):
    tables = EmbeddingTables(SCHEMA, seed=3)
    for name, v in tables.tables.items():
        np.testing.assert_array_equal(v, start[name])
    return tables.lookup(batch)


POOLED = Schema(
    Label("y"),
    categorical=(
        CategoricalFeature("one"),
        CategoricalFeature("bag", multi_valued=True),
        CategoricalFeature("steps", multi_valued=True, sequence_length=2, weights="w"),
    ),
    tables=(Table("one", 4, 50), Table("bag", 4, 50, "sum"), Table("steps", 4, 50, "sum")),
)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind])
def test_l2_of_rows_that_the_hardware_pools_is_refused_by_name(kind):
    with fake_tpu(kind) as strategy, strategy.scope():
        with pytest.raises(
            ValueError, match=r"'bag' is on TPU .* of feature 'bag' .* no l2=0.1 .* by embedding_optimizer="
        ):
            make_tables(kind, POOLED).compile(Adagrad(l2=0.1))
        without = {"bag": Adagrad()}
        with pytest.raises(ValueError, match="table 'steps' is on TPU embedding hardware, which pools or weights"):
            make_tables(kind, POOLED).compile(PerTableOptimizer(Adagrad(l2=0.1), without))
        make_tables(kind, POOLED).compile(PerTableOptimizer(Adagrad(l2=0.1), without | {"steps": Adagrad()}))
        make_tables(kind, POOLED, replicate_below=10_000).compile(Adagrad(l2=0.1))
