"""Batches from Parquet: every row once an epoch, an order that seed, epoch and step decide, and starts at any step.

The shards are written here by hand. Everything in row r is a function of r, so a row that is torn apart is noticed.
"""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from cases import matrix

from tfrs_dlrm.data.preparing.manifest import PreparedManifest, PreparedShard, encoded_schema
from tfrs_dlrm.data.reading.columns import sorted_tables
from tfrs_dlrm.data.reading.dataset import dataset, steps_per_epoch
from tfrs_dlrm.data.reading.row_groups import RowGroup, reading_order
from tfrs_dlrm.schema import CategoricalFeature, DenseFeature, Label, Schema, Table

SCHEMA = Schema(
    Label("y"),
    dense=(DenseFeature("row"), DenseFeature("half", indicator=True)),
    categorical=(
        CategoricalFeature("mod", table="t"),
        CategoricalFeature("many", multi_valued=True, weights="v", table="t"),
        CategoricalFeature("other", table="t"),
        CategoricalFeature("plain", multi_valued=True, table="t"),
    ),
    tables=(Table("t", vocabulary_size=1000),),
    weight="w",
)
GROUPS = {"train": [[40, 40, 17], [1], [40, 40, 3], [25, 40]], "eval": [[30, 20], [13]]}


def columns_of(rows):
    many = [[int(r + k) % 1000 for k in range(r % 4)] for r in rows]
    return {
        "label": [float(r % 2) for r in rows],
        "weight": [float(r % 5) for r in rows],
        "row": [float(r) for r in rows],
        "half": [r / 2 for r in rows],
        "half_missing": [float(r % 3 == 0) for r in rows],
        "mod": [r % 1000 for r in rows],
        "other": [r // 1000 for r in rows],
        "many": many,
        "many_weights": [[x / 4 for x in m] for m in many],
        "plain": [[r % 7] * (r % 3) for r in rows],
    }


def write_prepared(directory, schema, groups):
    """A prepared directory whose shards have row groups of these sizes; train and eval number their rows from 0."""
    shards = {"train": [], "eval": []}
    for split, files in groups.items():
        row = 0
        for i, sizes in enumerate(files):
            path = f"{split}/part-{i:05d}-00000.parquet"
            (directory / split).mkdir(parents=True, exist_ok=True)
            kind = encoded_schema(schema)
            with pq.ParquetWriter(directory / path, kind, write_page_checksum=True) as writer:
                for size in sizes:
                    columns = columns_of(range(row, row + size))
                    writer.write_table(pa.table({n: columns[n] for n in kind.names}, schema=kind))
                    row += size
            shards[split].append(PreparedShard(path, sum(sizes)))
    schema.save(directory / "schema.json")
    PreparedManifest(tuple(shards["train"]), tuple(shards["eval"]), 0, {}, {}).save(str(directory))
    return str(directory)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return write_prepared(tmp_path_factory.mktemp("prepared"), SCHEMA, GROUPS)


TRAIN_ROWS = sum(sum(s) for s in GROUPS["train"])


def rows_in(data, check=True):
    """The row numbers of each batch; checks that all of each row is there."""
    batches = []
    for features, label, weight in data:
        rows = features["dense"].numpy()[:, 0].astype(int)
        batches.append(rows.tolist())
        if check:
            expected = columns_of(rows.tolist())
            np.testing.assert_array_equal(label, expected["label"])
            np.testing.assert_array_equal(weight, expected["weight"])
            np.testing.assert_array_equal(features["dense"][:, 1], expected["half"])
            np.testing.assert_array_equal(features["dense"][:, 2], expected["half_missing"])
            np.testing.assert_array_equal(features["ids"], np.stack([expected["mod"], expected["other"]], axis=1))
            for name in ("many", "many_weights", "plain"):
                assert features[name].to_list() == expected[name]
            assert features["many"].row_splits.numpy().tolist() == features["many_weights"].row_splits.numpy().tolist()
    return batches


def flat(batches):
    return [row for batch in batches for row in batch]


@pytest.mark.parametrize("shuffle_rows", [1, 100, 10_000])
@pytest.mark.parametrize("batch_size", matrix([1, 32, 246], fast=[32]))
def test_every_row_exactly_once_an_epoch(directory, batch_size, shuffle_rows):
    data = dataset(directory, batch_size, shuffle_rows=shuffle_rows, drop_remainder=False)
    for _ in range(2):
        batches = rows_in(data, check=batch_size > 1)
        assert sorted(flat(batches)) == list(range(TRAIN_ROWS))
        assert [len(b) for b in batches[:-1]] == [batch_size] * (
            TRAIN_ROWS // batch_size - (TRAIN_ROWS % batch_size == 0)
        )
        assert len(data) == len(batches)


def test_the_last_smaller_batch_is_left_out_in_training(directory):
    data = dataset(directory, 32, shuffle_rows=100)
    batches = rows_in(data)
    assert [len(b) for b in batches] == [32] * (TRAIN_ROWS // 32) and len(data) == len(batches)
    assert steps_per_epoch(directory, 32) == len(batches)
    left_out = [set(range(TRAIN_ROWS)) - set(flat(b)) for b in (batches, rows_in(data))]
    assert left_out[0] != left_out[1]  # not the same rows in each epoch
    features, label, weight = data.element_spec
    assert features["dense"].shape == (32, 3) and features["ids"].shape == (32, 2)
    assert features["many"].shape == (32, None) and label.shape == weight.shape == (32,)
    assert (features["ids"].dtype, features["many"].dtype, label.dtype) == (tf.int32, tf.int32, tf.float32)


def test_evaluation_is_in_the_order_of_the_files(directory):
    data = dataset(directory, 25, split="eval")
    assert rows_in(data) == [list(range(25)), list(range(25, 50)), list(range(50, 63))] == rows_in(data)
    assert steps_per_epoch(directory, 25, "eval") == len(data) == 3
    assert flat(rows_in(dataset(directory, 1, split="eval"))) == list(range(63))


def test_the_order_is_a_function_of_seed_and_epoch(directory, tmp_path):
    def epochs(seed):
        data = dataset(directory, 20, seed=seed, shuffle_rows=100)
        return [rows_in(data, check=False) for _ in range(3)]

    first = epochs(5)
    assert first == epochs(5)
    orders = [str(e) for e in [*first, *epochs(6), rows_in(dataset(directory, 20, shuffle=False), check=False)]]
    assert len(set(orders)) == len(orders)
    one_group = dataset(write_prepared(tmp_path, SCHEMA, {"train": [[30]]}), 30)
    assert rows_in(one_group) != rows_in(one_group), "the rows of a group are not shuffled anew"
    by_group = dataset(directory, 1, shuffle_rows=1)
    groups = [
        [row for row in flat(rows_in(by_group, check=False)) if row in (0, 40, 80, 97, 98, 138)] for _ in range(2)
    ]
    assert groups[0] != groups[1], "the groups are not shuffled anew"
    endless = dataset(directory, 20, seed=5, shuffle_rows=100, repeat=True)
    assert rows_in(endless.take(3 * len(first[0])), check=False) == [b for epoch in first for b in epoch]
    assert endless.cardinality() == tf.data.INFINITE_CARDINALITY


# 246 rows are 12 batches of 20, and 13 with the smaller one.
@pytest.mark.parametrize("drop_remainder", [True, False])
@pytest.mark.parametrize("start_step", matrix([0, 1, 11, 12, 13, 30], fast=[1, 13]))
def test_start_step_is_skipping(directory, start_step, drop_remainder):
    options = {"seed": 1, "shuffle_rows": 70, "drop_remainder": drop_remainder}
    per_epoch = 12 if drop_remainder else 13
    whole = rows_in(dataset(directory, 20, repeat=True, **options).take(60), check=False)
    later = rows_in(dataset(directory, 20, repeat=True, start_step=start_step, **options).take(25))
    assert later == whole[start_step : start_step + 25]
    one_epoch = dataset(directory, 20, start_step=start_step, **options)
    end = (start_step // per_epoch + 1) * per_epoch
    assert rows_in(one_epoch, check=False) == whole[start_step:end]
    assert rows_in(one_epoch, check=False) == whole[end : end + per_epoch]  # the next epoch is a whole one


def test_what_lies_before_start_step_is_not_read(directory, monkeypatch):
    read = []
    original = RowGroup.read

    def counting(group, schema):
        read.append((group.path, group.index))
        return original(group, schema)

    monkeypatch.setattr(RowGroup, "read", counting)
    rows = flat(rows_in(dataset(directory, 20, shuffle=False, shuffle_rows=40, start_step=10)))
    assert rows == list(range(200, TRAIN_ROWS))
    # The windows are groups of 40 | 40 | 17, 1, 40 | 40 | 3, 25, 40 rows; row 200 is in the last one.
    assert [(path[-19:], index) for path, index in read] == [
        ("00002-00000.parquet", 2),
        ("00003-00000.parquet", 0),
        ("00003-00000.parquet", 1),
    ]
    read.clear()
    rows_in(dataset(directory, 20, shuffle_rows=40, start_step=10**6 * 12 + 11), check=False)
    assert len(read) <= 3  # of the nine row groups, for the last batch of the epoch 1,000,000


@pytest.mark.parametrize("pipelines", [2, 3])
@pytest.mark.parametrize("split", ["train", "eval"])
def test_input_pipelines_share_the_rows(directory, pipelines, split):
    def batches(i, **kwargs):
        context = tf.distribute.InputContext(pipelines, i, num_replicas_in_sync=pipelines)
        return rows_in(dataset(directory, 6 * pipelines, split=split, context=context, shuffle_rows=50, **kwargs))

    parts = [batches(i) for i in range(pipelines)]
    assert len(parts[0]) == steps_per_epoch(directory, 6 * pipelines, split, pipelines)
    assert {len(b) for p in parts for b in p[:-1]} == {6}
    rows = [row for p in parts for row in flat(p)]
    assert len(rows) == len(set(rows)), "a row in two pipelines"
    if split == "eval":
        whole = flat(rows_in(dataset(directory, 100, split="eval")))
        assert sorted(rows) == sorted(whole), "a row in none"
        assert rows == np.array(whole)[reading_order(directory, split, pipelines)].tolist()
    else:
        assert len({len(p) for p in parts}) == 1, "replicas would wait for each other"
        assert len(rows) > 0.8 * TRAIN_ROWS
        assert batches(1, start_step=4)[0] == parts[1][4]


def test_two_replicas_of_one_pipeline_get_half_a_batch_each(directory):
    context = tf.distribute.InputContext(1, 0, num_replicas_in_sync=2)
    batches = rows_in(dataset(directory, 40, context=context))
    assert [len(b) for b in batches] == [20] * 12


def test_shuffled_rows_come_from_all_parts_of_the_window(tmp_path):
    """As if drawn at random: from the row groups evenly, and with no trace of where in its group a row stood."""
    schema = Schema(Label("y"), dense=(DenseFeature("row"),))
    path = write_prepared(tmp_path, schema, {"train": [[500] * 8, [500] * 8]})

    def epoch(**kwargs):
        data = dataset(path, 200, **kwargs)
        return np.array([features["dense"].numpy()[:, 0] for features, _ in data])

    whole = epoch()  # one window
    counts = np.stack([np.bincount((batch // 500).astype(int), minlength=16) for batch in whole])
    # Every batch has about 200 / 16 rows of each group; chi-square per batch has mean 15 and deviation 5.5.
    chi_square = ((counts - 12.5) ** 2 / 12.5).sum(axis=1)
    assert 12 < chi_square.mean() < 18 and chi_square.max() < 45
    assert abs(np.corrcoef(whole.ravel(), np.arange(8000))[0, 1]) < 0.05
    windows = epoch(shuffle_rows=2000)  # four windows of four groups
    groups = [set((w // 500).astype(int).ravel()) for w in windows.reshape(4, 2000)]
    assert [len(g) for g in groups] == [4] * 4 and set.union(*groups) == set(range(16))
    assert not all(g == set(range(min(g), min(g) + 4)) for g in groups)  # neighbours of the log are parted


def test_a_schema_without_some_kinds_of_feature(tmp_path):
    schema = Schema(Label("y"), categorical=(CategoricalFeature("plain", multi_valued=True),))
    path = write_prepared(tmp_path, schema, {"train": [[5, 5]]})
    ((features, label),) = list(dataset(path, 10, shuffle=False))
    assert set(features) == {"plain"} and label.shape == (10,)
    assert features["plain"].to_list() == columns_of(range(10))["plain"]


def test_no_thread_tunes_the_pipeline(directory):
    # It sleeps for longer and longer; the destruction of an iterator, at the end of an epoch, waits until it wakes.
    assert dataset(directory, 32).options().autotune.enabled is False


def test_fit_takes_an_epoch_from_each_iterator(directory):
    """What the docstring promises of `model.fit`: the second epoch is shuffled anew."""
    import tf_keras as keras

    seen = []

    class Model(keras.Model):
        def train_step(self, data):
            tf.py_function(lambda rows: seen.append(rows.numpy().tolist()), [data[0]["dense"][:, 0]], [])
            return {}

    model = Model()
    model.compile()
    model.fit(dataset(directory, 20, seed=2, shuffle_rows=100), epochs=2, verbose=0)
    expected = dataset(directory, 20, seed=2, shuffle_rows=100, repeat=True).take(24)
    assert [[int(r) for r in b] for b in seen] == rows_in(expected, check=False)


def test_messages(directory, tmp_path):
    with pytest.raises(ValueError, match="batch_size=0 and start_step=0: give at least 1 and 0"):
        dataset(directory, 0)
    with pytest.raises(ValueError, match="246 train rows are too few for a batch of 247"):
        dataset(directory, 247)
    with pytest.raises(ValueError, match="split='test' is unknown; give 'train' or 'eval'"):
        dataset(directory, 1, split="test")
    context = tf.distribute.InputContext(10, 0, num_replicas_in_sync=10)
    only_train = write_prepared(tmp_path, SCHEMA, {"train": [[5]]})
    with pytest.raises(ValueError, match="5 train rows cannot be shared by 10 input pipelines"):
        dataset(only_train, 10, context=context)
    with pytest.raises(
        ValueError, match="the eval set is empty; prepare the data with eval inputs or an eval fraction"
    ):
        dataset(only_train, 1, split="eval")
    assert json.loads((tmp_path / "prepared.json").read_text())["eval"] == []


def test_sorted_ids(directory):
    """`order/t` sorts, stably, the ids of all features of the table `t`, and is there only where it is wanted."""
    plain = list(dataset(directory, 30, shuffle=False))
    assert not any(key.startswith("order/") for key in plain[0][0])
    for (features, *_), (without, *_) in zip(dataset(directory, 30, shuffle=False, sort_ids=True), plain, strict=True):
        assert [key for key in features if key.startswith("order/")] == [SCHEMA.table("t").order_key]
        one_hot, many, plain_values = without["ids"].numpy(), without["many"].flat_values, without["plain"].flat_values
        ids = np.concatenate([one_hot[:, 0], many, one_hot[:, 1], plain_values])
        np.testing.assert_array_equal(features["order/t"], np.argsort(ids, kind="stable"))


def test_tables_whose_ids_are_not_sorted():
    """Those without multi-valued features, with sequences, and compressed ones, whose rows are not the ids."""
    schema = Schema(
        Label("y"),
        categorical=(
            CategoricalFeature("a"),
            CategoricalFeature("b", multi_valued=True, sequence_length=2),
            CategoricalFeature("c", multi_valued=True),
            CategoricalFeature("d", multi_valued=True),
        ),
        tables=(Table("c", vocabulary_size=9, remainders=3), Table("d", vocabulary_size=9)),
    )
    assert sorted_tables(schema) == ["d"]
