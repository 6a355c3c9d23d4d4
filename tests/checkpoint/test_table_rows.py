"""Tables and slots saved from any devices and cuts are, bit for bit, what is restored to any others."""

import os

import numpy as np
import pytest
import tensorflow as tf
from cases import matrix

from tfrs_dlrm.checkpoint import table_rows as rows
from tfrs_dlrm.checkpoint.table_rows import batches, read_rows, read_slice, slices, write_rows
from tfrs_dlrm.distribute.strategies import make_strategy
from tfrs_dlrm.embeddings.storage import LogicalTable, ShardedTable, TableShard, VariableShard

ROWS = 37
SHAPES = {"tables/a": (ROWS, 5), "tables/b": (ROWS, 3), "tables/one": (1, 4), "slots/a/accumulator": (ROWS,)}
DTYPES = {"tables/b": tf.bfloat16}
CUTS = {
    "one piece": [0, ROWS],
    "two pieces": [0, 20, ROWS],
    "three uneven pieces": [0, 1, 30, ROWS],
    "four pieces": [0, 10, 19, 28, ROWS],
}
TOPOLOGIES = ["whole", "mirrored", *CUTS]


def values(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    out = {}
    for name, shape in SHAPES.items():
        array = rng.normal(size=shape).astype(DTYPES.get(name, tf.float32).as_numpy_dtype)
        array.ravel()[:3] = [np.nan, -0.0, np.inf]
        out[name] = array
    return out


def variables(topology: str, initial: dict[str, np.ndarray]) -> dict:
    def make(name, array):
        if topology == "whole" or (topology in CUTS and len(array) == 1):
            return tf.Variable(array)
        if topology == "mirrored":
            with make_strategy("mirrored", 2).scope():
                return tf.Variable(array)
        parts = []
        for i, (a, b) in enumerate(zip(CUTS[topology], CUTS[topology][1:], strict=False)):
            with tf.device(f"CPU:{i}"):
                parts.append(tf.Variable(array[a:b]))
        return ShardedTable(name, parts)

    return {name: make(name, array) for name, array in initial.items()}


def stored(made: dict) -> dict[str, LogicalTable]:
    return {name: LogicalTable.of(v) for name, v in made.items()}


def bits(array) -> np.ndarray:
    return np.ascontiguousarray(array).view(np.uint8)


def save(directory, made) -> dict:
    return write_rows(batches(stored(made)), stored(made), str(directory / "rows"))


@pytest.fixture(params=[64 << 20, 60], ids=["one part", "parts of three rows"])
def part_bytes(request, monkeypatch):
    monkeypatch.setattr(rows, "PART_BYTES", request.param)


@pytest.mark.parametrize("saved", matrix(TOPOLOGIES, fast=["mirrored", "three uneven pieces"]))
def test_saved_on_one_restored_on_every_other(tmp_path, part_bytes, saved):
    original = values(0)
    entries = save(tmp_path, variables(saved, original))
    for restored in TOPOLOGIES:
        made = variables(restored, values(1))
        read_rows(str(tmp_path), entries, stored(made))
        for name, variable in made.items():
            for copy in getattr(variable, "values", [variable]) if restored == "mirrored" else [variable]:
                np.testing.assert_array_equal(bits(copy.numpy()), bits(original[name]), err_msg=f"{restored} {name}")


def test_plain_tensorflow_sees_whole_tables(tmp_path, part_bytes):
    original = values(0)
    save(tmp_path, variables("three uneven pieces", original))
    reader = tf.train.load_checkpoint(str(tmp_path / "rows"))
    assert reader.get_variable_to_shape_map() == {name: list(shape) for name, shape in SHAPES.items()}
    for name, array in original.items():
        np.testing.assert_array_equal(np.float32(reader.get_tensor(name)), np.float32(array))
    assert not (tmp_path / "rows-parts").exists()


def test_what_is_written_at_a_time_is_bounded(monkeypatch):
    made = variables("two pieces", values(0))
    monkeypatch.setattr(rows, "PART_BYTES", 100)
    (host,) = batches(stored(made))
    assert "CPU:0" in host  # of the machine, not of the logical device
    work = batches(stored(made))[host]
    sizes = [sum(part.bytes for part in batch.parts) for batch in work]
    total = sum(np.asarray(v).nbytes for v in values(0).values())
    assert max(sizes) <= 100 and sum(sizes) == total and len(sizes) < total / 60  # small ones go together
    covered = {name: np.zeros(SHAPES[name][0], int) for name in SHAPES}
    for part in (part for batch in work for part in batch.parts):
        covered[part.name][part.first : part.last] += 1
    assert all((counts == 1).all() for counts in covered.values())
    monkeypatch.setattr(rows, "_PARTS_OF_A_HOST", 4)
    assert len(batches(stored(made))[host]) <= 8  # two pieces, each with its own last part


def test_a_snapshot_stays_as_it_was(tmp_path):
    """A read that shared its memory with the variable would follow these writes."""
    for seed, topology in enumerate(TOPOLOGIES):
        original, directory = values(seed), tmp_path / str(seed)
        directory.mkdir()
        made = variables(topology, original)
        pieces = [(s, piece) for s in stored(made).values() for piece in s.shards]
        for s, piece in pieces:  # variables that scatters have written to are read in another way
            piece.write(piece.begin, tf.zeros([0, *s.shape[1:]], s.dtype))
        work = batches(stored(made))
        for batch in (batch for some in work.values() for batch in some):
            batch.snapshot()
        for s, piece in pieces:
            piece.write(piece.begin, tf.ones([piece.end - piece.begin, *s.shape[1:]], s.dtype))
        for variable in made.values():
            for v in variable.variables if isinstance(variable, ShardedTable) else [variable]:
                v.assign_add(tf.ones_like(v))
        entries = write_rows(work, stored(made), str(directory / "rows"))
        again = variables("whole", values(9))
        read_rows(str(directory), entries, stored(again))
        for name, variable in again.items():
            np.testing.assert_array_equal(bits(variable.numpy()), bits(original[name]))


class Deaf(VariableShard):
    """Keeps what it has, as a layer that was built before its weights were restored."""

    def write(self, first: int, values: tf.Tensor) -> None:
        pass


class Shifted(VariableShard):
    """Puts rows one place too far."""

    def write(self, first: int, values: tf.Tensor) -> None:
        super().write(first, tf.roll(values, 1, axis=0))


@pytest.mark.parametrize("kind", [Deaf, Shifted])
def test_rows_that_did_not_arrive_are_noticed(tmp_path, kind):
    entries = save(tmp_path, variables("whole", values(0)))
    made = stored(variables("whole", values(1)))
    made["tables/b"] = LogicalTable((ROWS, 3), tf.bfloat16, (kind(0, [tf.Variable(values(1)["tables/b"])]),))
    with pytest.raises(ValueError, match="the rows of tables/b are not those that were saved: their checksum is"):
        read_rows(str(tmp_path), entries, made)


def test_a_table_without_rows(tmp_path):
    made = stored({"tables/none": tf.Variable(tf.zeros([0, 4])), "tables/a": tf.Variable(tf.ones([2, 2]))})
    entries = write_rows(batches(made), made, str(tmp_path / "rows"))
    read_rows(str(tmp_path), entries, made)
    nothing = stored({"tables/none": tf.Variable(tf.zeros([0, 4]))})
    os.mkdir(tmp_path / "nothing")
    assert write_rows(batches(nothing), nothing, str(tmp_path / "nothing" / "rows"))["tables/none"].cuts == (0,)


def test_rows_from_any_slices(tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "PART_BYTES", 200)
    original = values(0)["tables/a"]
    entry = save(tmp_path, variables("two pieces", values(0)))["tables/a"]
    assert list(slices(entry)) == [(0, 10), (10, 20), (20, 30), (30, ROWS)]
    for first, last in ((0, ROWS), (7, 33), (12, 13), (36, 37)):
        np.testing.assert_array_equal(read_slice(str(tmp_path), entry, first, last), original[first:last])


def test_scatter_writes_rows_anywhere():
    class OnlyRuns(VariableShard):
        scatter = TableShard.scatter  # what pieces do that cannot write single rows

    table = variables("four pieces", values(0))["tables/a"]
    runs = tuple(OnlyRuns(a, [v]) for v, a in zip(table.variables, table.boundaries, strict=False))
    for whole in (LogicalTable.of(table), LogicalTable((ROWS, 5), tf.float32, runs)):
        expected = table.numpy()
        rows = np.array([0, 1, 2, 9, 10, 18, 19, 20, 36])
        new = np.random.default_rng(5).normal(size=(9, 5)).astype(np.float32)
        expected[rows] = new
        whole.scatter(rows, tf.constant(new))
        np.testing.assert_array_equal(table.numpy(), expected)
