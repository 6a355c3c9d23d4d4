"""Samples of a prepared set: the first rows of a split, in whatever order segments are finished."""

import numpy as np
import pyarrow as pa
import pytest

from tfrs_dlrm.data.preparing import samples
from tfrs_dlrm.data.preparing.samples import SampleTaker, first_samples
from tfrs_dlrm.data.raw.typed_rows import TypedRows
from tfrs_dlrm.schema import DenseFeature, Label, Schema

SCHEMA = Schema(Label("y"), dense=(DenseFeature("x"),))


def rows(first, count):
    x = np.arange(first, first + count, dtype=np.float32)
    return TypedRows(x.astype(np.int64), x, None, {"x": pa.array(x)}, [], {})


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 1, 0, 2], [2, 3, 1, 0]])
@pytest.mark.parametrize("processes", [1, 2])
def test_the_first_rows_in_any_order_of_segments(monkeypatch, order, processes):
    monkeypatch.setattr(samples, "SAMPLES", 8)
    takers = [SampleTaker(SCHEMA) for _ in range(processes)]
    kept = {}
    for position, segment in enumerate(order):
        taker, name = takers[position % processes], f"part-{segment}"
        block = rows(10 * segment, 10)
        taken = taker.take(block, block.label % 2 == 0, "train", name)  # 5 of 10 rows are for training
        kept[name] = taker.finish("train", name, taken)
    found = [row["x"] for row in first_samples(sample for name in sorted(kept) for sample in kept[name])]
    assert found == [0, 2, 4, 6, 8, 10, 12, 14]
    if processes == 1 and order == [0, 1, 2, 3]:  # later segments keep nothing
        assert [len(kept[name]) for name in sorted(kept)] == [5, 3, 0, 0]


@pytest.mark.parametrize("processes", [1, 3])
def test_the_earliest_rows_in_any_order_of_segments(monkeypatch, processes):
    monkeypatch.setattr(samples, "SAMPLES", 40)
    rng = np.random.default_rng(processes)
    times, keep = rng.integers(0, 50, 1000), rng.random(1000) < 0.7
    takers, kept = [SampleTaker(SCHEMA) for _ in range(processes)], {}
    for position, segment in enumerate(rng.permutation(10)):
        taker, name = takers[position % processes], f"part-{segment}"
        taken = []
        for begin in range(100 * segment, 100 * segment + 100, 25):  # four blocks
            at = slice(begin, begin + 25)
            taken += taker.take(rows(begin, 25), keep[at], "train", name, times[at])
        kept[name] = taker.finish("train", name, taken)
    found = [row["x"] for row in first_samples(sample for name in sorted(kept) for sample in kept[name])]
    in_train = np.flatnonzero(keep)
    assert found == in_train[np.argsort(times[in_train], kind="stable")][:40].tolist()
    assert sum(map(len, kept.values())) < (150 if processes == 1 else 300)  # of 400: most segments keep few
