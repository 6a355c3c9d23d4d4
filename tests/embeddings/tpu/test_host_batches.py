"""Batches for TPUs, as the input pipeline makes them."""

import numpy as np
import pytest
import tensorflow as tf
from fake_tpu import fake_tpu, make_tables

from tfrs_dlrm.distribute.placement import Topology, place
from tfrs_dlrm.embeddings import SGD, Adagrad, PerTableOptimizer, RowWiseAdagrad
from tfrs_dlrm.embeddings.tpu import TPUEmbeddingTables
from tfrs_dlrm.embeddings.tpu.host_batches import OUT_OF_RANGE, HostMap
from tfrs_dlrm.layers.hashing import hashed_rows
from tfrs_dlrm.schema import CategoricalFeature, DenseFeature, Label, Schema, Table

SCHEMA = Schema(
    label=Label("y"),
    dense=(DenseFeature("x"),),
    categorical=(
        CategoricalFeature("a"),
        CategoricalFeature("b", dtype="int64", encoding="ids", out_of_range="clip"),
        CategoricalFeature("bag", multi_valued=True, weights="w", table="a"),
        CategoricalFeature("c"),
        CategoricalFeature("kept", multi_valued=True, weights="v", table="c"),
        CategoricalFeature("hashed"),
        CategoricalFeature("sequence", multi_valued=True, sequence_length=2, table="a"),
    ),
    tables=(
        Table("a", 4, 10),
        Table("b", 4, 5),
        Table("c", 4, 6),
        Table("hashed", 4, 99, stored_in="home"),
        Table("home", 2, 7),
    ),
)


def ragged(values, dtype=tf.int32):
    return tf.ragged.constant(values, dtype=dtype)


def batch(**changes):
    return {
        "dense": tf.constant([[0.5], [1.5]]),
        "ids": tf.constant([[3, -2, 1, 8], [4, 9, 2, 50]]),
        "bag": ragged([[1, 20], []]),
        "bag_weights": ragged([[0.5, 2.0], []], tf.float32),
        "kept": ragged([[5], [0, 6, -1]]),
        "kept_weights": ragged([[1.0], [2.0, 3.0, 4.0]], tf.float32),
        "sequence": ragged([[7], [1, 2, 3]]),
    } | changes


def test_forms_by_hand():
    mapped = HostMap(SCHEMA, {"a", "home"}, {"kept": 3})(batch())
    assert sorted(mapped) == [
        "a",
        "bag",
        "bag_weights",
        "dense",
        "hashed/0",
        "hashed/1",
        "ids",
        OUT_OF_RANGE,
        "kept",
        "kept_weights",
        "sequence",
    ]
    np.testing.assert_array_equal(mapped["a"], [3, 4])
    np.testing.assert_array_equal(mapped["ids"], [[0, 1], [4, 2]])  # b, clipped, and c
    assert mapped["bag"].to_list() == [[1, 0], []]  # row 20 of 10
    assert mapped["bag_weights"].to_list() == [[0.5, 2.0], []]
    np.testing.assert_array_equal(mapped["kept"], [[5, -1, -1], [0, 0, 0]])
    np.testing.assert_array_equal(mapped["kept_weights"], [[1, 0, 0], [2, 3, 4]])
    assert mapped["sequence"].to_list() == [[7], [], [1], [2]]
    for i in range(2):
        np.testing.assert_array_equal(mapped[f"hashed/{i}"], hashed_rows(tf.constant([8, 50]), 7, f"hashed/{i}"))
    np.testing.assert_array_equal(tf.reduce_sum(mapped[OUT_OF_RANGE], axis=0), [0, 2, 1, 0, 2, 0, 0])
    assert {v.dtype for k, v in mapped.items() if "weights" not in k and k != "dense"} == {tf.int32}
    assert {mapped[k].row_splits.dtype for k in ("bag", "bag_weights", "sequence")} == {tf.int32}


def test_shapes_are_static_in_a_pipeline_and_counts_survive_a_split():
    spec = {
        k: tf.type_spec_from_value(v) if isinstance(v, tf.Tensor) else tf.RaggedTensorSpec([2, None], v.dtype)
        for k, v in batch().items()
    }
    data = tf.data.Dataset.from_generator(lambda: iter([batch()]), output_signature=spec)
    data = data.map(HostMap(SCHEMA, {"a", "home"}, {"kept": 3}))
    assert all(s.shape.is_fully_defined() for s in data.element_spec.values() if isinstance(s, tf.TensorSpec))
    (mapped,) = data
    counts = mapped[OUT_OF_RANGE]
    np.testing.assert_array_equal(counts[:1] + counts[1:], [[0, 2, 1, 0, 2, 0, 0]])


def test_ids_are_refused_in_the_pipeline():
    """Hashes and refuses ids on the host, because TPUs have neither strings nor assertions."""
    schema = Schema(
        Label("y"),
        categorical=(CategoricalFeature("a", out_of_range="error"), CategoricalFeature("h", out_of_range="hash")),
        tables=(Table("a", 4, 10), Table("h", 4, 10)),
    )
    mapped = HostMap(schema, {"a", "h"}, {})({"ids": tf.constant([[9, 10], [0, 99]])})
    assert int(tf.reduce_min(mapped["h"])) >= 0 and int(tf.reduce_max(mapped["h"])) < 10
    data = tf.data.Dataset.from_tensors({"ids": tf.constant([[10, 1]])}).map(HostMap(schema, {"a", "h"}, {}))
    with pytest.raises(tf.errors.InvalidArgumentError, match="feature a: id 10 is outside the table of 10 rows"):
        list(data)


def test_more_values_than_the_hotness_are_an_error():
    with pytest.raises(
        tf.errors.InvalidArgumentError, match="feature kept: an example has more values than its hotness of 2"
    ):
        HostMap(SCHEMA, {"a"}, {"kept": 2})(batch())
    with pytest.raises(ValueError, match=r"feature 'kept' has any number of values .* hotness=\{'kept': \.\.\.\}"):
        HostMap(SCHEMA, {"a"}, {})(batch())
    with pytest.raises(ValueError, match="hotness of 'a': 3; at least 1 of a multi-valued feature is needed"):
        HostMap(SCHEMA, {"a"}, {"a": 3})
    dense = batch(kept=tf.constant([[1, 2], [3, 4]]), kept_weights=tf.ones([2, 2]))
    np.testing.assert_array_equal(HostMap(SCHEMA, {"a"}, {})(dense)["kept"], dense["kept"])


def test_sparse_and_padded_batches_are_the_ragged_one():
    expected = HostMap(SCHEMA, {"a", "home"}, {"kept": 3})(
        batch(kept=ragged([[5], [0, 4]]), kept_weights=ragged([[1.0], [2.0, 3.0]], tf.float32))
    )
    indices = [[1, 3], [0, 2], [1, 1]]
    sparse = [tf.SparseTensor(indices, values, [2, 4]) for values in ([4, 5, 0], [3.0, 1.0, 2.0])]
    padded = tf.constant([[-1, 5, -1], [0, -1, 4]]), tf.constant([[9, 1.0, 9], [2, 9, 3]])
    for rows, weights in (sparse, padded):
        found = HostMap(SCHEMA, {"a", "home"}, {"kept": 3})(batch(kept=rows, kept_weights=weights))
        for key, values in expected.items():
            left, right = (v.to_list() if isinstance(v, tf.RaggedTensor) else v.numpy() for v in (found[key], values))
            np.testing.assert_equal(left, right, key)
    # Without a hotness the width of the dense batch is that of the replicated one.
    np.testing.assert_array_equal(
        HostMap(SCHEMA, {"a", "home"}, {})(batch(kept=padded[0], kept_weights=padded[1]))["kept"], expected["kept"]
    )
    hardware = HostMap(SCHEMA, {"a", "c", "home"}, {})(batch(kept=padded[0], kept_weights=padded[1]))
    assert hardware["kept"].to_list() == [[5], [0, 4]] and hardware["kept_weights"].to_list() == [[1.0], [2.0, 3.0]]


def test_what_does_not_go_onto_embedding_hardware_is_refused_by_name():
    features = (CategoricalFeature("f", multi_valued=True), CategoricalFeature("g", multi_valued=True))
    stored = dict(stored_in="home")
    two_ways = Schema(
        Label("y"),
        categorical=features,
        tables=(Table("f", 4, 9, "sum", **stored), Table("g", 4, 9, "mean", **stored), Table("home", 4, 50)),
    )
    with fake_tpu("V1") as strategy, strategy.scope():
        with pytest.raises(ValueError, match=r"table 'home' is on TPU embedding hardware.*features need mean, sum"):
            make_tables("V1", two_ways).compile(SGD())
        with pytest.raises(ValueError, match="table 'a' is on TPU embedding hardware, which has no RowWiseAdagrad"):
            make_tables("V1", SCHEMA).compile(RowWiseAdagrad())
        with pytest.raises(ValueError, match="PerTableOptimizer names table 'z', which stores no rows; name one of "):
            make_tables("V1", SCHEMA).compile(PerTableOptimizer(SGD(), {"z": Adagrad()}))
        make_tables("V1", SCHEMA, replicate_below=500).compile(PerTableOptimizer(RowWiseAdagrad(), {"home": Adagrad()}))
    on_hardware = place(SCHEMA, Topology("tpu", 2, chip="v4"), 0)
    with pytest.raises(
        ValueError, match="tables a, b, c, home are placed on embedding hardware, and the devices in scope"
    ):
        TPUEmbeddingTables(SCHEMA, 0, on_hardware, 8)


def test_tables_that_do_not_fit_every_chip_are_refused():
    schema = Schema(Label("y"), categorical=(CategoricalFeature("f"),), tables=(Table("f", 16, 1000),))
    # 64,000 bytes of the table, as much for Adagrad's slot, and twice that for gradient and new rows.
    for memory, fits in ((256_000, True), (255_999, False)):
        tables = TPUEmbeddingTables(schema, 0, place(schema, Topology("tpu", 2, memory, "v5e")), 8)
        if fits:
            tables.compile(Adagrad())
        else:
            with pytest.raises(ValueError, match=r"need 256 kB .* a chip has 256 kB. The largest is 'f', 1,000 x 16"):
                tables.compile(Adagrad())


def test_histories_have_their_last_events_and_lengths():
    clicked = CategoricalFeature("clicked", sequence_length=2, history_of="a")
    schema = Schema(Label("y"), categorical=(CategoricalFeature("a"), clicked), tables=(Table("a", 4, 10),))
    given = {"ids": tf.constant([[3], [4], [5]]), "clicked": ragged([[7], [], [1, 2, 3]])}
    copied, on_hardware = (HostMap(schema, hardware, {})(given) for hardware in ((), ("a",)))
    np.testing.assert_array_equal(copied["clicked"], [[7, -1], [-1, -1], [2, 3]])
    assert on_hardware["clicked"].to_list() == [[7], [], [], [], [2], [3]]  # two places for each example
    for mapped in (copied, on_hardware):
        np.testing.assert_array_equal(mapped["clicked/length"], [1, 0, 2])
