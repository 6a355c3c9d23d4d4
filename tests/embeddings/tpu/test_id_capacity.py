"""The capacity that ids need on SparseCores."""

import collections
import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from fake_tpu import CORES_PER_CHIP, encoded_batch, fake_tpu, make_tables

from tfrs_dlrm.embeddings import Adagrad
from tfrs_dlrm.embeddings.tpu.hardware_storage import CoreLayout
from tfrs_dlrm.embeddings.tpu.host_batches import HardwareLookup
from tfrs_dlrm.embeddings.tpu.id_capacity import IdCapacity, StackedTable, measure_capacity, with_margin
from tfrs_dlrm.schema import CategoricalFeature, Label, Schema, Table

SCHEMA = Schema(
    label=Label("y"),
    categorical=(
        CategoricalFeature("a"),
        CategoricalFeature("b"),
        CategoricalFeature("bag", multi_valued=True, table="a"),
        CategoricalFeature("c", multi_valued=True, weights="w"),
    ),
    tables=(Table("a", 8, 1000), Table("b", 8, 300), Table("c", 16, 5000)),
)
BATCH = 64


def test_counts_by_hand():
    """Two cores on one chip, a table that begins on core 1: even rows are on core 1."""
    feature = CategoricalFeature("f", multi_valued=True)
    lookup = HardwareLookup("f", feature, "t")
    ids = tf.ragged.constant([[0, 2, 2], [4], [1], [0, 3, 0]], dtype=tf.int32, row_splits_dtype=tf.int32)
    tables = {"t": StackedTable("stack", CoreLayout(rows=6, dim=8, cores=2, core_rows=8, offset=0, rotation=1))}
    capacity = measure_capacity([{"f": ids}], [lookup], tables, cores_per_chip=2)
    # Core 0 has examples 0 and 1, and sends rows 0, 2 and 4 to core 1; core 1 sends row 0 there, and 1 and 3 to core 0.
    # Twice the same row in an example is sent once.
    assert (capacity.ids, capacity.unique_ids) == ({"stack": 3}, {"stack": 3})
    # Each of three lists takes 8 places, for 4 examples.
    assert capacity.ids_per_sample == 6.0


def slow_count(batches, lookups, places):
    """Example by example, as the op that converts a batch goes through it."""
    most, most_unique = collections.Counter(), collections.Counter()
    for batch in batches:
        pairs, singles = collections.defaultdict(set), collections.defaultdict(set)
        for x in lookups:
            stack, layout = places[x.table]
            rows = (
                batch[x.key].to_list()
                if isinstance(batch[x.key], tf.RaggedTensor)
                else [[r] for r in batch[x.key].numpy()]
            )
            for example, ids in enumerate(rows):
                sender = example // (len(rows) // CORES_PER_CHIP)
                for row in ids:
                    to = (stack, sender, (row + layout.rotation) % layout.cores)
                    pairs[to].add((x.key, example, row))
                    singles[to].add((x.table, row))
        for to in pairs:
            most[to[0]] = max(most[to[0]], len(pairs[to]))
            most_unique[to[0]] = max(most_unique[to[0]], len(singles[to]))
    return dict(most), dict(most_unique)


def skewed(seed, schema=SCHEMA):
    """Few rows get most lookups, as in real data."""
    batch = encoded_batch(schema, BATCH, seed, most=6)
    batch["ids"] = batch["ids"] * batch["ids"] % 7 * batch["ids"] % [1000, 300]
    batch["bag"] = batch["bag"].with_flat_values(batch["bag"].flat_values // 100 * 8)
    return batch


def test_counts_equal_those_of_a_slow_way():
    with fake_tpu("SparseCore") as strategy, strategy.scope():
        tables = make_tables("SparseCore", SCHEMA, batch_size=BATCH)
        tables.compile(Adagrad())
        hardware = tables.hardware
        batches = [tables.host_map(skewed(i)) for i in range(5)]
        capacity = measure_capacity(batches, hardware.lookups, hardware.stacked, CORES_PER_CHIP)
    assert len(capacity.ids) == 2  # one stack for each dimension
    most, most_unique = slow_count(batches, hardware.lookups, hardware.stacked)
    assert (capacity.ids, capacity.unique_ids) == (most, most_unique)
    assert capacity.ids["a_b"] > capacity.unique_ids["a_b"]  # the ids repeat


def test_counts_equal_those_of_tensorflow():
    """Needs a TensorFlow built for TPUs, but no TPU. TensorFlow 2.20 fails on features that share a table."""
    api = tf.tpu.experimental.embedding
    apart = tuple(dataclasses.replace(f, table=f.name) for f in SCHEMA.categorical)
    schema = dataclasses.replace(SCHEMA, categorical=apart, tables=(*SCHEMA.tables, Table("bag", 8, 1000)))
    with fake_tpu("SparseCore") as strategy, strategy.scope():
        tables = make_tables("SparseCore", schema, batch_size=BATCH)
        tables.compile(Adagrad(0.1))
        hardware = tables.hardware
        batches = [tables.host_map(skewed(i, schema)) for i in range(5)]
        configs = {
            n: api.TableConfig(
                t.table.vocabulary_size, t.table.dim, combiner=t.combiner, name=n, optimizer=t.optimizer.optimizer
            )
            for n, t in hardware.tables.items()
        }
        features = {
            x.key: api.FeatureConfig(configs[x.table], output_shape=[BATCH], name=x.key) for x in hardware.lookups
        }
    for batch in batches:
        measured = measure_capacity([batch], hardware.lookups, hardware.stacked, CORES_PER_CHIP)
        try:
            found = api.TPUEmbeddingV2.compute_sparse_core_stats(
                {x.key: batch[x.key] for x in hardware.lookups}, features, num_tpu_chips=2
            )
        except tf.errors.NotFoundError:
            pytest.skip("this TensorFlow is not built for TPUs")
        ids, unique_ids = ({stack: int(n) for stack, n in part.items()} for part in found)
        assert (measured.ids, measured.unique_ids) == (ids, unique_ids)


def test_configuration_has_a_margin_and_drops_nothing():
    config = IdCapacity({"s": 100, "t": 0}, {"s": 25, "t": 0}, ids_per_sample=90.0).config()
    assert config.max_ids_per_table == {"s": 160, "t": 8}  # 100 + 6 * 10, 0
    assert config.max_unique_ids_per_table == {"s": 56, "t": 8}  # 25 + 6 * 5 = 55
    assert config.max_ids_per_chip_per_sample == 120  # a quarter more than 90 is 113
    assert not config.allow_id_dropping
    assert IdCapacity({}, {}, 3.0).config().max_ids_per_chip_per_sample == 64
    # What other batches of the same data need, fits.
    rng = np.random.default_rng(0)
    seen = rng.poisson(200, 20).max()
    assert rng.poisson(200, 100_000).max() <= with_margin(seen)


def test_samples_are_needed_and_have_the_size_of_batches():
    with fake_tpu("SparseCore") as strategy, strategy.scope():
        tables = make_tables("SparseCore", SCHEMA, batch_size=BATCH)
        tables._state.samples = (encoded_batch(SCHEMA, 32),)
        with pytest.raises(ValueError, match="has 32 examples; those of a replica have batch_size=64"):
            tables.compile(Adagrad())
        with pytest.raises(ValueError, match="batch_size=6 of a replica; the 4 SparseCores of a chip need"):
            make_tables("SparseCore", SCHEMA, batch_size=6).compile(Adagrad())
        with pytest.raises(ValueError, match="give samples, about 20 encoded batches"):
            type(tables)(SCHEMA, 0, tables.placement, BATCH)
