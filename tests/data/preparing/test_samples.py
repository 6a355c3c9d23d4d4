"""Samples of a prepared set: the first rows of a split, in whatever order segments are finished."""

import numpy as np
import pyarrow as pa
import pytest

from tfrs_dlrm.data.preparing import samples
from tfrs_dlrm.data.preparing.samples import SampleTaker
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
    found = [row["x"] for name in sorted(kept) for row in kept[name]][:8]
    assert found == [0, 2, 4, 6, 8, 10, 12, 14]
    if processes == 1 and order == [0, 1, 2, 3]:  # later segments keep nothing
        assert [len(kept[name]) for name in sorted(kept)] == [5, 3, 0, 0]
