"""Counts of values, segment by segment, against a plain counter."""

import collections

import numpy as np
import pyarrow as pa
import pytest

from tfrs_dlrm.data.preparing.duckdb_rows import connect
from tfrs_dlrm.data.preparing.value_counts import ValueCounts, summed
from tfrs_dlrm.data.preparing.workspace import Workspace


@pytest.mark.parametrize("ranked", [True, False])
def test_sums_and_their_order(tmp_path, ranked):
    workspace, expected = Workspace(str(tmp_path / "it's [1]")), collections.Counter()
    values = ["b", "a", "é", "z\n", "\rz", "", "a b", "B"]
    for segment, counts in enumerate(([3, 2, 2, 9, 9, 1, 5, 2], [1, 2, 2, 9, 9, 1, 5, 2])):
        found = ValueCounts()
        found.add("t", pa.array(values), np.array(counts))
        found.write(workspace, f"part-{segment}")
        expected.update(dict(zip(values, counts, strict=True)))
    with connect(str(tmp_path)) as connection:
        batches = list(summed(connection, workspace.counts, "t", ranked))
    rows = [(v, n) for b in batches for v, n in zip(b.column(0).to_pylist(), b.column(1).to_pylist(), strict=True)]
    kept = {v: n for v, n in expected.items() if not set("\r\n") & set(v)}
    assert dict(rows) == kept and len(rows) == len(kept)
    if ranked:
        assert rows == sorted(kept.items(), key=lambda row: (-row[1], row[0].encode()))
