"""Where tables go: every row once, bytes and lookups spread evenly, and always in the same way."""

import math
import random
from pathlib import Path

import pytest

from tfrs_dlrm.distribute.placement import STRATEGIES, PlacedShard, Topology, place, size_text
from tfrs_dlrm.embeddings.tables import EmbeddingTables
from tfrs_dlrm.schema import CategoricalFeature, Label, Schema, Table

ROOT = Path(__file__).parents[2]
TERABYTE = Schema.load(ROOT / "docs" / "plans" / "criteo_terabyte.json")


def schema_of(*tables, **features):
    """A schema of these tables; features of other than the default settings by name of the table."""
    homes = {t.stored_in for t in tables}
    used = [t.name for t in tables if t.name not in homes]
    return Schema(
        Label("y"), categorical=tuple(CategoricalFeature(n, **features.get(n, {})) for n in used), tables=tables
    )


def random_schema(rng):
    tables = [
        Table(
            f"t{i}",
            dim=rng.choice([1, 8, 16, 128]),
            vocabulary_size=int(10 ** rng.uniform(0.5, 7)),
            dtype=rng.choice(["float32", "bfloat16"]),
        )
        for i in range(rng.randint(1, 60))
    ]
    encodings = {t.name: {"encoding": rng.choice(["vocabulary", "hash"])} for t in tables}
    return schema_of(*tables, **encodings)


def bytes_on(placement):
    out = [0] * placement.topology.devices
    for table in placement.tables:
        for shard in table.shards:
            out[shard.device] += (shard.end - shard.begin) * table.bytes // table.rows
    return out


def lookups_on(placement):
    out = [0.0] * placement.topology.devices
    for shard in (s for t in placement.tables for s in t.shards):
        out[shard.device] += shard.lookups
    return out


def test_a_small_placement_by_hand():
    schema = schema_of(
        Table("small", dim=2, vocabulary_size=10),
        Table("wide", dim=2, vocabulary_size=100),
        Table("narrow", dim=2, vocabulary_size=100, dtype="bfloat16"),
        Table("least", dim=1, vocabulary_size=25),
    )
    placed = place(schema, Topology("mirrored", 2), replicate_below=100)
    # 80 of 100 bytes: copied. The others have 800, 400 and 100 bytes, 650 for each device, which may have 731.
    assert placed.table("small").kind == "replicated" and placed.table("small").shards == ()
    first = math.log(51) / math.log(101)  # of the lookups, under Zipf's law
    wide, narrow, least = (placed.table(n).shards for n in ("wide", "narrow", "least"))
    assert wide == (PlacedShard(0, 50, 0, pytest.approx(first)), PlacedShard(50, 100, 1, pytest.approx(1 - first)))
    assert [(s.begin, s.end, s.device) for s in narrow] == [(0, 50, 1), (50, 100, 0)]
    # 600 bytes and one lookup on each by now.
    assert least == (PlacedShard(0, 25, 0, pytest.approx(1)),)
    assert placed.table("wide").why == "rows over 2 devices: one has no room for all, at 650 B each"
    assert placed.table("least").why == "whole on one device"
    assert [t.name for t in placed.tables] == ["small", "wide", "narrow", "least"]


@pytest.mark.parametrize("strategy", ["mirrored", "parameter_server"])
def test_any_placement_holds_each_row_once_and_is_even(strategy):
    rng = random.Random(0)
    for _ in range(150):
        schema, devices = random_schema(rng), rng.choice([1, 2, 3, 8, 50])
        topology = Topology(strategy, devices)
        small = rng.choice([0, 1000, 10**6])
        placed = place(schema, topology, small)
        assert place(schema, topology, small) == placed
        shared = [t for t in placed.tables if t.kind == "sharded"]
        if strategy == "mirrored" and devices > 1:
            assert {t.name for t in placed.tables if t.kind == "replicated"} == {
                t.name for t in placed.tables if t.bytes < small
            }
        else:
            assert len(shared) == len(placed.tables)
        for table in shared:
            ends = [0, *(s.end for s in table.shards)]
            assert [s.begin for s in table.shards] == ends[:-1] and ends[-1] == table.rows
            assert all(s.begin < s.end for s in table.shards)
            assert len({s.device for s in table.shards}) == len(table.shards)
            assert sum(s.lookups for s in table.shards) == pytest.approx(table.lookups) == 1
        # What is whole has room, or is small; split tables are uneven by one row at most.
        fair = sum(t.bytes for t in shared) / devices
        uneven = sum(t.bytes / t.rows for t in shared if len(t.shards) > 1)
        few_rows = sum(t.bytes for t in shared if t.rows < devices)
        assert max(bytes_on(placed)) <= fair + max(fair / 8, small) + uneven + few_rows


@pytest.mark.parametrize("strategy", ["mirrored", "parameter_server"])
@pytest.mark.parametrize("devices", [2, 4, 8])
def test_the_lookups_of_frequency_sorted_vocabularies_are_spread(strategy, devices):
    placed = place(TERABYTE, Topology(strategy, devices))
    lookups, sizes = lookups_on(placed), bytes_on(placed)
    assert max(lookups) < sum(lookups) / devices + 0.8  # a table's first rows come in one piece, with nearly 1
    assert max(sizes) < 1.13 * sum(sizes) / devices
    # The first rows of each split table have most of its lookups: not all of them may be on one device.
    split = [t.shards for t in placed.tables if len(t.shards) == devices]
    assert all(shards[0].lookups > 0.85 for shards in split)
    assert len({shards[0].device for shards in split}) == min(devices, len(split))


def test_what_each_strategy_does():
    schema = schema_of(
        Table("big", dim=16, vocabulary_size=1_000_000),
        Table("half", dim=16, vocabulary_size=1_000_000, dtype="bfloat16"),
        Table("small", dim=16, vocabulary_size=100),
        Table("made", dim=16, vocabulary_size=1_000_000_000, remainders=10_000),
    )

    def kinds(*topology, **more):
        return {t.name: t.kind for t in place(schema, Topology(*topology, **more)).tables}

    names = ["big", "half", "small", "made__quotient", "made__remainder"]
    assert kinds("one_device") == kinds("mirrored") == kinds("parameter_server", 3) == dict.fromkeys(names, "sharded")
    assert kinds("multi_worker", 3) == kinds("tpu", 4, chip="v5e") == dict.fromkeys(names, "replicated")
    assert kinds("mirrored", 2) == dict.fromkeys(names, "sharded") | {
        "small": "replicated",
        "made__remainder": "replicated",
    }
    on_chips = place(schema, Topology("tpu", 4, chip="v4"))
    assert {t.name for t in on_chips.tables if t.kind == "tpu_embedding"} == {"big", "half"}
    assert on_chips.table("half").dtype == "float32" and "its memory holds no bfloat16" in on_chips.table("half").why
    assert "embedding hardware looks up no factors" in on_chips.table("made__quotient").why
    assert place(schema, Topology("mirrored", 2)).table("half").dtype == "bfloat16"


def test_the_variables_are_those_of_the_real_tables():
    schema = schema_of(
        Table("plain", dim=4, vocabulary_size=10),
        Table("made", dim=4, vocabulary_size=103, remainders=10, dtype="bfloat16"),
        Table("hashed", dim=7, vocabulary_size=1000, stored_in="store"),
        Table("store", dim=4, vocabulary_size=50),
        hashed={"multi_valued": True},
    )
    real = EmbeddingTables(schema).tables
    for strategy in STRATEGIES:
        chip = "v5e" if strategy == "tpu" else ""
        placed = place(schema, Topology(strategy, chip=chip))
        assert [(t.name, t.rows, t.dim, t.dtype) for t in placed.tables] == [
            (name, *v.shape, v.dtype.name) for name, v in real.items()
        ]
    # Ten values, as assumed, of two rows each.
    assert {t.name: t.lookups for t in placed.tables} == {
        "plain": 1,
        "made__quotient": 1,
        "made__remainder": 1,
        "store": 20,
    }


def test_mistakes_are_named():
    with pytest.raises(
        ValueError, match="strategy 'gpus' is unknown; choose one of one_device, mirrored, multi_worker"
    ):
        Topology("gpus")
    with pytest.raises(ValueError, match="devices=0, workers=1; at least 1 of each"):
        Topology("mirrored", 0)
    with pytest.raises(ValueError, match="devices=2 under strategy one_device; use mirrored"):
        Topology("one_device", 2)
    with pytest.raises(ValueError, match="TPU chip 'v7' is unknown; choose one of v2, v3, v4, v5e, v5p, v6e"):
        Topology("tpu", 4, chip="v7")
    with pytest.raises(ValueError, match="workers=3 belongs to strategy parameter_server, not mirrored"):
        Topology("mirrored", 2, workers=3)
    with pytest.raises(ValueError, match="memory=0 bytes; a positive number is needed"):
        Topology("mirrored", 2, memory=0)
    with pytest.raises(
        ValueError,
        match=r"table 'site' has no vocabulary_size yet; take the schema that `prepare` wrote, or `td.fit_encoder",
    ):
        place(schema_of(Table("site")), Topology("mirrored", 2))
    with pytest.raises(KeyError, match="no table 'x' in the placement"):
        place(TERABYTE, Topology("one_device")).table("x")


def test_sizes_for_people():
    sizes = (0, 999, 1000, 20_420_000_000, 999_600, 5.22e15)
    assert [size_text(n) for n in sizes] == ["0 B", "999 B", "1 kB", "20.4 GB", "1 MB", "5.22 PB"]
