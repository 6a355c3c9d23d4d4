"""Frames of four libraries as blocks of rows: equal values give equal blocks, and odd columns say what is wrong."""

import datetime

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from tfrs_dlrm.data.raw import sources
from tfrs_dlrm.data.raw.frames import Frame, expand_inputs
from tfrs_dlrm.data.raw.infer import infer_schema
from tfrs_dlrm.data.raw.typed_rows import parse
from tfrs_dlrm.schema import CategoricalFeature, DenseFeature, Label, Schema

SCHEMA = Schema(
    Label("y"),
    dense=(DenseFeature("price"),),
    categorical=(CategoricalFeature("site"), CategoricalFeature("slot", dtype="int64")),
)
LOG = pd.DataFrame({"y": [0, 1, 1], "price": [1.5, None, 3.0], "site": ["a", None, "ä"], "slot": [7, 8, 9]})


def read(frame, schema=SCHEMA):
    (block,) = sources.blocks(Frame(frame, "inputs"), schema)
    return parse(block, schema)


def test_libraries_agree_on_blocks_and_content(monkeypatch):
    monkeypatch.setattr(sources, "BLOCK_ROWS", 4)
    polars = pytest.importorskip("polars")
    log = pd.concat([LOG] * 4, ignore_index=True).astype({"site": "category", "slot": "Int64"})
    log["tags"] = [["x", "y"], None, []] * 4
    schema = Schema(SCHEMA.label, SCHEMA.dense, (*SCHEMA.categorical, CategoricalFeature("tags", multi_valued=True)))
    table = pa.Table.from_pandas(log)
    libraries = {
        "pandas": log,
        "polars": polars.from_pandas(log),
        "pyarrow": pa.Table.from_batches(table.to_batches(max_chunksize=5)),
        "duckdb": duckdb.from_arrow(table),
    }
    contents = {name: sources.frame_content(Frame(data), schema) for name, data in libraries.items()}
    assert {c.sha256 for c in contents.values()} == {contents["pandas"].sha256} and contents["pandas"].rows == 12
    changed = log.assign(price=log["price"].replace(3.0, np.nextafter(3.0, 4)))
    assert sources.frame_content(Frame(changed), schema).sha256 != contents["pandas"].sha256
    for name, data in libraries.items():
        positions = []
        blocks = list(sources.blocks(Frame(data), schema, positions.append))
        assert [(b.index, b.first_row, b.rows) for b in blocks] == [(0, 1, 4), (1, 5, 4), (2, 9, 4)], name
        rows = [parse(b, schema) for b in blocks]
        assert [v for r in rows for v in r.inputs["site"].to_pylist()] == ["a", "", "ä"] * 4, name
        assert [v or [] for r in rows for v in r.inputs["tags"].to_pylist()] == [["x", "y"], [], []] * 4, name
        assert positions == sorted(positions) and positions[-1] == contents[name].size


def test_columns_of_pandas_that_have_an_obvious_meaning():
    log = LOG.assign(
        y=pd.array([False, True, True], "boolean"),
        price=pd.array([1, pd.NA, 3], "Int64"),
        site=pd.Series(["b", pd.NA, 3], dtype=object).astype("string").astype("category"),
        slot=pd.Series([7, pd.NA, np.nan], dtype=object),
    )
    rows = read(log)
    assert rows.label.tolist() == [0, 1, 1] and rows.bad == []
    np.testing.assert_array_equal(rows.inputs["price"], [1, np.nan, 3])
    assert rows.inputs["site"].to_pylist() == ["b", "", "3"]
    assert rows.inputs["slot"].to_pylist() == [7, -1, -1]


def test_a_named_index_is_a_column_and_an_unnamed_one_is_not():
    shuffled = LOG.sample(frac=1, random_state=1)
    assert Frame(shuffled).columns == ("y", "price", "site", "slot")
    assert read(shuffled).label.tolist() == shuffled["y"].tolist()
    assert read(LOG.set_index("site")).inputs["site"].to_pylist() == ["a", "", "ä"]
    assert read(LOG.set_index(["site", "slot"])).inputs["slot"].to_pylist() == [7, 8, 9]


def test_moments_with_a_time_zone_are_text_and_no_numbers():
    moments = pd.date_range("2026-03-01 12:00", periods=3, tz="Europe/Berlin", unit="us")
    rows = read(LOG.assign(site=moments))
    assert rows.inputs["site"].to_pylist()[0].startswith("2026-03-01 12:00:00")
    with pytest.raises(
        ValueError, match=r"column 'price': a column of type timestamp.*list it under categorical with its parts"
    ):
        read(LOG.assign(price=moments))
    hours = LOG.assign(price=moments.hour)
    assert read(hours).inputs["price"].to_pylist() == [12, 12, 12]
    assert "make" not in infer_schema(hours, label="y").notes["price"]


def test_mixed_columns_say_what_to_change():
    mixed = LOG.assign(site=pd.Series(["a", 3, None], dtype=object))
    with pytest.raises(
        ValueError, match=r"inputs \(pandas DataFrame\): .*site.*All values .*\.astype\('string'\)"
    ) as e:
        read(mixed)
    exec(str(e.value).split("such as by ")[1], {"frame": mixed})
    assert read(mixed).inputs["site"].to_pylist() == ["a", "3", ""]
    sparse = LOG.assign(price=pd.arrays.SparseArray([1.0, 0.0, 0.0]))
    with pytest.raises(ValueError, match=r"column 'price' is sparse \(Sparse\[float64") as e:
        read(sparse)
    exec(str(e.value).split("such as by ")[1], {"frame": sparse})
    assert read(sparse).inputs["price"].to_pylist() == [1.0, 0.0, 0.0]
    wave = {"frame": LOG.assign(wave=[1 + 1j] * 3)}
    with pytest.raises(ValueError, match=r"column 'wave' holds complex numbers \(complex128\)") as e:
        read(wave["frame"])
    exec(str(e.value).split("such as by ")[1], wave)
    assert len(read(wave["frame"])) == 3
    with pytest.raises(ValueError, match=r"column 'price'.*its values are lists; give the dense feature their length"):
        read(LOG.assign(price=[[1.0]] * 3))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            LOG.set_axis(["y", "price", "site", "site"], axis=1),
            "column 'site' occurs 2 times; give each column another",
        ),
        (LOG.set_index("slot", drop=False), "column 'slot' occurs 2 times"),
        (LOG[:0], r"inputs \(pandas DataFrame\): it has no rows"),
        (LOG.drop(columns="site"), r"inputs \(pandas DataFrame\): no column 'site'; it has: y, price, slot"),
        (pa.table([[0], [1.0], ["a"], ["b"], [1]], ["y", "price", "site", "site", "slot"]), "'site' occurs 2 times"),
        (
            pa.Table.from_pandas(LOG).to_reader(),
            r"it can be read once only; give the table that its read_all\(\) returns",
        ),
        (LOG["y"], r"inputs \(pandas Series\): columns with names are needed"),
        (dict(LOG), r"inputs: 'dict' is neither a path nor a table; give a pandas or polars DataFrame.*pyarrow\.table"),
        (LOG.to_numpy(), "inputs: 'ndarray' is neither a path nor a table"),
        ([LOG, 3], r"inputs\[1\]: 'int' is neither a path nor a table"),
        ([], "no input files: give at least one path"),
        (LOG.assign(price=[1 + 1j] * 3), r"inputs \(pandas DataFrame\): "),
    ],
)
def test_bad_frames(given, message):
    with pytest.raises(ValueError, match=message):
        for frame in expand_inputs(given, "inputs"):
            list(sources.blocks(frame, SCHEMA))


def test_a_relation_without_an_order_is_refused_where_it_changes():
    relation = duckdb.sql("SELECT range % 2 AS y, random() AS price, 'a' AS site, 1 AS slot FROM range(9)")
    frame = Frame(relation, "inputs")
    sources.frame_content(frame, SCHEMA)
    with pytest.raises(
        ValueError, match=r"inputs \(duckdb .*its rows changed, .*such as the relation's to_arrow_table"
    ):
        list(sources.blocks(frame, SCHEMA))
    assert len(read(relation.to_arrow_table())) == 9


def test_a_schema_is_proposed_for_a_frame_as_for_its_file(tmp_path):
    rng = np.random.default_rng(0)
    log = pd.DataFrame(
        {
            "clicked": rng.integers(0, 2, 200),
            "price": rng.exponential(5, 200),
            "site": pd.Categorical(rng.choice(["a", "b", "c"], 200)),
            "tags": [["x"] * int(n) for n in rng.integers(0, 3, 200)],
            "day": [datetime.date(2026, 3, 1 + int(d)) for d in rng.integers(0, 5, 200)],
        }
    )
    log.to_parquet(tmp_path / "log.parquet")
    proposal = infer_schema(log.sample(frac=1, random_state=0))
    assert proposal == infer_schema(pa.Table.from_pandas(log)) == infer_schema(str(tmp_path / "log.parquet"))
    assert set(proposal.notes) == set(log.columns) and proposal.schema.label.column == "clicked"
    with pytest.raises(
        ValueError, match=r"data \(pandas DataFrame\): no column 'klick' for the label; it has: clicked,"
    ):
        infer_schema(log, label="klick")
