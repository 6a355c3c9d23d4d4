"""`prepare(keep_order=True)`: the training rows in the order of pandas, whatever the files, and stopped in any pass."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from file_tree import assert_same_bytes

from tfrs_dlrm.data.preparing import job as prepare_job
from tfrs_dlrm.data.preparing.prepare import prepare
from tfrs_dlrm.data.raw import sources
from tfrs_dlrm.schema import CategoricalFeature, DenseFeature, Label, Schema

SCHEMA = Schema(
    Label("y"),
    dense=(DenseFeature("row"),),
    categorical=(CategoricalFeature("site"), CategoricalFeature("tags", separator="|")),
)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(sources, "BLOCK_BYTES", 2000)
    monkeypatch.setattr(sources, "BLOCK_ROWS", 70)
    monkeypatch.setattr(prepare_job, "BLOCKS_PER_SEGMENT", 2)


def write_logs(directory, rows=1200):
    """Writes three files whose rows are in no order, many of them at the same second; returns all rows, as read."""
    rng = np.random.default_rng(2)
    data = pd.DataFrame(
        {
            "y": rng.integers(0, 2, rows),
            "row": np.arange(rows),
            "site": [f"s{k}" for k in rng.integers(0, 30, rows)],
            "tags": ["|".join(f"t{k}" for k in range(n)) for n in rng.integers(0, 4, rows)],
            "ts": 1_790_000_000 + rng.integers(0, 400, rows),
        }
    )
    data[:500].to_csv(directory / "log-0.csv", index=False)
    data[500:900].to_parquet(directory / "log-1.parquet", row_group_size=150)
    data[900:].to_csv(directory / "log-2.csv.gz", index=False)
    return data


def test_the_order_of_pandas_whatever_stops(tmp_path):
    data = write_logs(tmp_path)
    inputs = [str(tmp_path / "log-*")]
    options = {"time": "ts", "keep_order": True, "eval_fraction": 0.2, "seed": 3}
    manifest = prepare(SCHEMA, inputs, str(tmp_path / "out"), **options)
    tables = {s: [pq.read_table(tmp_path / "out" / x.path) for x in manifest.shards(s)] for s in ("train", "eval")}
    assert [t.num_rows for t in tables["train"]] == [x.rows for x in manifest.train]
    assert set(t.num_rows for t in tables["train"][:-1]) == {140}
    train, evaluation = (pa.concat_tables(tables[s])["row"].to_numpy().astype(int) for s in ("train", "eval"))
    expected = data[~data.row.isin(evaluation)].sort_values("ts", kind="stable")
    assert train.tolist() == expected.row.tolist()
    assert (np.diff(evaluation) > 0).all()  # as in the log
    lists = pa.concat_tables(tables["train"])["tags"].to_pylist()
    assert [len(x) for x in lists] == [t.count("t") for t in expected.tags]
    assert manifest.split["by"] == "row" and manifest.split["order"] == "time"

    for stage, rows in (("encode", 300), ("encode", 800), ("ordered", 1), ("ordered", 500)):

        def stop(name, done, total, found, stage=stage, rows=rows):
            if name == stage and found >= rows:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            prepare(SCHEMA, inputs, str(tmp_path / "killed"), **options, progress=stop)
    prepare(SCHEMA, inputs, str(tmp_path / "killed"), **options)
    assert_same_bytes(tmp_path / "out", tmp_path / "killed")


def test_with_a_time_that_divides_and_dropped_negatives(tmp_path):
    data = write_logs(tmp_path)
    inputs = [str(tmp_path / f"log-{k}.{e}") for k, e in ((2, "csv.gz"), (0, "csv"), (1, "parquet"))]
    options = {"time": "ts", "keep_order": True, "eval_after": "2026-09-21T14:18:20", "keep_negatives": 0.5}
    manifest = prepare(SCHEMA, inputs, str(tmp_path / "out"), **options)
    rows = pa.concat_tables([pq.read_table(tmp_path / "out" / s.path) for s in manifest.train])["row"].to_numpy()
    read = data.loc[[*range(900, 1200), *range(900)]]
    expected = read[pd.to_datetime(read.ts, unit="s") < "2026-09-21T14:18:20"].sort_values("ts", kind="stable")
    assert 0 < len(expected) < len(data)
    assert rows.astype(int).tolist() == expected.row[expected.row.isin(rows)].tolist()
    assert set(expected.row[expected.y == 1]) <= set(rows)
    assert manifest.labels["log"]["label"].count == len(expected)
