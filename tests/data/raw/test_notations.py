"""Numbers in text with other marks and units: proposed, and read."""

import re
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from csv_logs import tokens, write_csv

from tfrs_dlrm.data.raw import sources
from tfrs_dlrm.data.raw.infer import infer_schema
from tfrs_dlrm.data.raw.typed_rows import parse
from tfrs_dlrm.schema import DenseFeature, Label, Notation, Schema


@pytest.mark.parametrize(
    ("texts", "notation", "numbers"),
    [
        (["15,730", "2,247.14", "834.29"], Notation(thousands=","), [15730, 2247.14, 834.29]),
        (["15,73", "2,5", "7"], Notation(decimal=","), [15.73, 2.5, 7]),
        (["1.234,5", "2,5", "1.234.567"], Notation(decimal=",", thousands="."), [1234.5, 2.5, 1234567]),
        (["1 234,5", "2\u202f247", "9\u00a0000"], Notation(decimal=",", thousands=" "), [1234.5, 2247, 9000]),
        (["1'234.5", "2\u2019247", "9"], Notation(thousands="'"), [1234.5, 2247, 9]),
        (["12,34,567", "1,234", "5"], Notation(thousands=","), [1234567, 1234, 5]),
        (["$15.73", "-$2", "$ 1,000"], Notation(thousands=",", unit="$"), [15.73, -2, 1000]),
        (["6.0%", "7 %", "-0.5%"], Notation(unit="%"), [6, 7, -0.5]),
        (["15,73 €", "2 €", "0,5"], Notation(decimal=",", unit="€"), [15.73, 2, 0.5]),
        (["USD 5", "USD 1,250.50", "7"], Notation(thousands=",", unit="USD"), [5, 1250.5, 7]),
        (["0,123", "1,234", "2,345"], Notation(decimal=","), [0.123, 1.234, 2.345]),
    ],
)
def test_numbers_in_other_notations(tmp_path, texts, notation, numbers):
    n = 25 * len(texts)
    rows = {"y": ["0", "1", "1", "0", "1"] * (n // 5), "x": texts * 25}
    path = write_csv(tmp_path / "log.csv", rows)
    proposal = infer_schema(path)
    (feature,) = proposal.schema.dense
    (beside,) = proposal.schema.categorical
    assert feature.notation == beside.notation == notation and "numbers from" in proposal.notes["x"]
    schema = Schema(Label("y"), (replace(feature, transform="none"),), text=proposal.schema.text)
    assert Schema.from_json(schema.to_json()) == schema
    pq.write_table(pa.table({"y": [0] * n, "x": pa.array(numbers * 25, pa.float64())}), tmp_path / "typed.parquet")
    for source in (path, str(tmp_path / "typed.parquet"), pa.table({"y": [0] * n, "x": texts * 25})):
        assert tokens(source, schema) == np.float32(numbers * 25).tolist()
    assert infer_schema(path, label="x", task="regression").schema.label.notation == notation


def test_numbers_of_another_notation_are_refused(tmp_path):
    (tmp_path / "a.csv").write_text('y,x\n0,"15,73"\n1,15.73\n1,"1,234,5"\n')
    (block,) = sources.blocks(str(tmp_path / "a.csv"), schema := Schema(Label("y"), (DenseFeature("x", decimal=","),)))
    rows = parse(block, schema)
    assert rows.inputs["x"].to_pylist() == [np.float32(15.73)]
    what = "is not a finite float32 number with {'decimal': ',', 'thousands': '', 'unit': ''}"
    assert [(b.row, b.reason) for b in rows.bad] == [(3, f"'15.73' {what}"), (4, f"'1,234,5' {what}")]


def test_numbers_in_several_units_are_named(tmp_path):
    texts = ["$5", "€6", "$7.50", "8 %"] * 30
    proposal = infer_schema(write_csv(tmp_path / "log.csv", {"y": ["0", "1"] * 60, "x": texts}))
    assert proposal.notes["x"] == "4 texts; most look like numbers, but not all in one notation and unit"


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("decimal", "", "decimal='', thousands=''; two characters are needed"),
        ("decimal", "x", "decimal='x' is not one character that no number has"),
        ("thousands", ".", "decimal='.', thousands='.'; two characters are needed"),
        ("unit", "5%", "unit='5%'; a text without digits"),
    ],
)
def test_notations_that_cannot_be(field, value, message):
    with pytest.raises(ValueError, match=re.escape(f"feature 'x': {message}")):
        Schema(Label("y"), (DenseFeature("x", **{field: value}),))
    with pytest.raises(ValueError, match="column 'x': the features and labels that read it differ in decimal"):
        Schema(Label("x", threshold=1), (DenseFeature("x", unit="$"),))
