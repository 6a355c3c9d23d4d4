"""Groups from a raw log to batches: every row in a batch with the other rows of its group, and what is refused."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

import tfrs_dlrm as td
from tfrs_dlrm.data.reading import whole_groups
from tfrs_dlrm.data.reading.record_dataset import record_dataset
from tfrs_dlrm.data.reading.records import write_records
from tfrs_dlrm.data.reading.row_groups import windows_of
from tfrs_dlrm.data.reading.row_sources import ReadRequest
from tfrs_dlrm.data.reading.service.worker_graph import decode_rows, encode_rows
from tfrs_dlrm.data.reading.whole_groups import batches_of_groups
from tfrs_dlrm.training.inputs import distributed_dataset, worker_dataset

SCHEMA = td.Schema(
    td.Label("clicked"),
    dense=(td.DenseFeature("number"),),
    categorical=(
        td.CategoricalFeature("item", encoding="ids", dtype="int64"),
        td.CategoricalFeature("tags", separator="|"),
    ),
    tables=(td.Table("item", 4, vocabulary_size=20), td.Table("tags", 4)),
    group="query",
)
QUERIES = 400


@pytest.fixture(scope="module")
def log():
    """Queries of 1 to 9 rows; the rows of two neighbours are mixed. The number of a row is its place."""
    rng = np.random.default_rng(3)
    sizes = rng.integers(1, 10, QUERIES)
    query = np.repeat(np.arange(QUERIES), sizes)
    for pair in range(0, QUERIES, 2):
        rows = np.flatnonzero(query // 2 == pair // 2)
        query[rows] = rng.permutation(query[rows])
    items, number = rng.integers(0, 20, len(query)), np.arange(len(query))
    columns = {"clicked": rng.integers(0, 2, len(query)), "number": number, "item": items}
    tags = [f"t{x}|u{y}" for x, y in zip(number % 7, items, strict=True)]
    return pd.DataFrame(columns | {"tags": tags, "query": [f"q {x}" for x in query]})


@pytest.fixture(scope="module")
def data(log, tmp_path_factory):
    home = tmp_path_factory.mktemp("queries")
    log.to_csv(home / "log.csv", index=False)
    td.prepare(SCHEMA, [str(home / "log.csv")], str(home / "data"), eval_fraction=0.25)
    return str(home / "data")


def rows_of(batches, log):
    """The places in the log of the rows that count, and where they were found: batch by batch."""
    found = []
    for features, labels, weights in batches:
        counts = weights.numpy() > 0
        places = features["dense"].numpy()[:, 0].astype(int)
        np.testing.assert_array_equal(labels, log["clicked"][places])
        np.testing.assert_array_equal(features["ids"][:, 0], log["item"][places])
        # Rows that fill up are copies of the last one.
        assert counts[0] and not np.any(counts[1:] & ~counts[:-1]) and set(places[~counts]) <= {places[counts][-1]}
        same = np.equal.outer(features["group"].numpy(), features["group"].numpy())
        np.testing.assert_array_equal(same, np.equal.outer(*2 * [log["query"][places].to_numpy()]))
        found.append(places[counts])
    return found


def assert_whole(found, log, size):
    queries = [log["query"][places] for places in found]
    for query in queries:
        assert len(query) <= size
        assert (query.value_counts() == log["query"].value_counts().reindex(query.value_counts().index)).all()
    assert sum(query.nunique() for query in queries) == pd.concat(queries).nunique()


def test_batches_have_whole_groups_and_fixed_shapes(data, log):
    batches = td.dataset(data, 64, seed=1)
    assert all(x.shape[0] == 64 for x in tf.nest.flatten(batches.element_spec) if isinstance(x, tf.TensorSpec))
    prepared = pq.read_table(Path(data) / "train")
    steps = prepared.num_rows // 64
    assert len(batches) == steps == td.steps_per_epoch(data, 64)
    epochs = [rows_of(batches, log), rows_of(batches, log)]
    for found in epochs:
        assert len(found) == steps
        assert_whole(found, log, 64)
        assert sum(map(len, found)) > 0.9 * prepared.num_rows
    assert sorted(map(tuple, epochs[0])) != sorted(map(tuple, epochs[1]))
    again = rows_of(td.dataset(data, 64, seed=1, start_step=steps + 3), log)
    for x, y in zip(again, epochs[1][3:], strict=True):
        np.testing.assert_array_equal(x, y)
    # No group is in both sets, and evaluation reads each row once, in the order of the log.
    evaluation = np.concatenate(rows_of(td.dataset(data, 64, split="eval"), log))
    assert (np.diff(evaluation) > 0).all() and len(evaluation) + prepared.num_rows == len(log)
    assert not set(log["query"][evaluation]) & {q for found in epochs[0] for q in log["query"][found]}


def test_replicas_and_pipelines_have_whole_groups(data, log):
    with td.make_strategy("mirrored", 2).scope():
        # Keras splits batches so.
        found = rows_of(distributed_dataset(data, 64, whole_groups=True).rebatch(32), log)
        with pytest.raises(ValueError, match="batch_size=63: batches of whole groups need a multiple of the 2 repl"):
            td.dataset(data, 63)
    assert_whole(found, log, 32)
    pipelines = [rows_of(td.dataset(data, 64, context=tf.distribute.InputContext(2, i, 2)), log) for i in range(2)]
    assert len(pipelines[0]) == len(pipelines[1])
    assert max(len(x) for found in pipelines for x in found) <= 32


def test_frames_input_workers_and_files_give_the_same_batches(data, log):
    train = pq.read_table(Path(data) / "train")["number"].to_numpy().astype(int)
    frame = td.dataset(log.iloc[train], 64, encoder=data, seed=1)
    for (x, *_), (y, *_) in zip(frame, td.dataset(data, 64, seed=1), strict=True):
        np.testing.assert_array_equal(x["dense"], y["dense"])
        np.testing.assert_array_equal(x["group"], y["group"])
    request = ReadRequest.from_json(ReadRequest.of(data, "train", 1, 1000, whole_groups=True).to_json())
    windows = windows_of(data, "train", 1, 1000, whole_groups=request.whole_groups)
    rows = decode_rows(encode_rows(windows.load(windows.of(0)[0])))
    batch = next(batches_of_groups(iter([rows]), 2, 64))
    expected, _, _ = next(iter(td.dataset(data, 64, seed=1, shuffle_rows=1000)))
    np.testing.assert_array_equal(batch.matrices[2], expected["group"])
    # Records of single rows have groups too, but scatter them.
    write_records(data)
    features, _, _ = next(iter(record_dataset(data, 64, split="eval")))
    np.testing.assert_array_equal(features["group"], next(iter(td.dataset(data, 64, split="eval")))[0]["group"])
    with pytest.raises(ValueError, match="a list loss needs batches of whole groups, and under the strategy one_dev"):
        worker_dataset(data, 64, "train", whole_groups=True)


def test_single_rows_can_be_shuffled(data, log):
    found = rows_of(td.dataset(data, 64, whole_groups=False), log)
    assert {len(x) for x in found} == {64}
    assert max(log["query"][x].value_counts().max() for x in found) < 6


def test_large_and_scattered_groups(data, log, monkeypatch):
    warnings = []

    def warn(level, text, n, *values):
        warnings.append(text % values)

    monkeypatch.setattr(whole_groups.logging, "log_first_n", warn)
    assert max(map(len, rows_of(td.dataset(data, 4, seed=1), log))) == 4
    assert warnings and all(x.startswith("a group has more than the 4 rows of a batch of a replica") for x in warnings)
    warnings.clear()
    rows_of(td.dataset(data, 16), log)
    assert not warnings
    rows_of(td.dataset(log.drop_duplicates("query"), 16, encoder=data), log)
    assert warnings[0].startswith("400 of 400 rows that are shuffled together are the only ones of their group")
    with pytest.raises(ValueError, match="whole_groups=True, shuffle=False, drop_remainder=False: batches of whole"):
        td.dataset(data, 64, shuffle=False, whole_groups=True)


def test_what_is_refused(log, tmp_path):
    with pytest.raises(ValueError, match="feature 'group': with a group, here 'query', this is the key of the groups"):
        dataclasses.replace(SCHEMA, categorical=(td.CategoricalFeature("group"),), tables=())
    with pytest.raises(ValueError, match="group='': name a column"):
        dataclasses.replace(SCHEMA, group="")
    plain = dataclasses.replace(SCHEMA, group=None)
    assert "group" not in plain.to_json() and td.Schema.from_json(SCHEMA.to_json()) == SCHEMA
    encoder = td.fit_encoder(plain, log)
    assert "group" not in next(iter(td.dataset(log, 64, encoder=encoder)))[0]
    with pytest.raises(ValueError, match="whole_groups=True: the schema has no group; give it the column"):
        td.dataset(log, 64, encoder=encoder, whole_groups=True)
    wrong = log.assign(query=log["query"].where(log.index != 7, None))
    with pytest.raises(ValueError, match=r"row 8, column 'query': the group is missing\. Correct it, or"):
        td.prepare(SCHEMA, wrong, str(tmp_path / "missing"))
    with pytest.raises(ValueError, match="column 'query' of the group: its values are lists; name a column of single"):
        td.prepare(SCHEMA, log.assign(query=[[q] for q in log["query"]]), str(tmp_path / "lists"))
