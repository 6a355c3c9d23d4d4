"""Arrow's parser gives the rows that the conversion of single messages gives, and leaves all others to it."""

import json

import numpy as np
import pyarrow as pa
import pytest

from tfrs_dlrm.schema import CategoricalFeature, DenseFeature, Label, Schema, Table
from tfrs_dlrm.streaming.json_rows import JsonRows

SCHEMA = Schema(
    Label("clicked"),
    (DenseFeature("x"), DenseFeature("euro", decimal=",", unit="€"), DenseFeature("v", size=2)),
    (
        CategoricalFeature("site"),
        CategoricalFeature("code"),
        CategoricalFeature("slot", dtype="int64", encoding="ids"),
        CategoricalFeature("names", multi_valued=True, encoding="hash"),
        CategoricalFeature("items", multi_valued=True, encoding="ids", dtype="int64", weights="shares"),
        CategoricalFeature("tags", multi_valued=True, separator="|", encoding="hash"),
    ),
    (Table("slot", 4, 100), Table("items", 4, 10), Table("names", 4, 50), Table("tags", 4, 50)),
)
ROW = {"clicked": True, "x": -0.5, "euro": 1.5, "v": [1, 2.5], "site": "é", "code": 12, "slot": 7, "names": ["a", "b"]}
ROW |= {"items": [1, 2], "shares": [0.1, 2.0], "tags": ["p", "q"], "more": {"x": [1]}}


def objects(n):
    """Objects whose fields have one type each, or are null."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(n):
        lists = {"names": ["a", "ü"][: i % 3], "tags": ["t", f"u{i}"][: i % 3], "items": [1, 2], "shares": [0.25, i]}
        row = {
            "clicked": bool(i % 2),
            "x": [-0.5, 3, 1e10][i % 3],
            "euro": i / 8,
            "v": [i, None],
            "code": -i,
            "slot": i,
        }
        row |= {"site": f's{i} {{"x":'} | lists
        optional = [name for name in row if name != "clicked" and rng.random() < 0.1]
        rows.append(ROW | row | dict.fromkeys(optional))
    return [json.dumps(row, ensure_ascii=bool(i % 2)).encode() for i, row in enumerate(rows)]


def with_numbers(table):
    """The rows of a table, with numbers for the texts of columns that may have either."""

    def number(value):
        if isinstance(value, list):
            return [number(item) for item in value]
        if isinstance(value, bytes):
            return float(value.replace(b",", b".")) if value else None
        return None if value != value else value  # NaN is missing

    names = ("x", "euro", "v")
    return [{k: number(v) if k in names else v for k, v in row.items()} for row in table.to_pylist()]


def learned(absent_is_missing=False):
    """A reader that has seen some messages."""
    read = JsonRows(SCHEMA, absent_is_missing)
    read(objects(100))
    return read


def test_values_by_hand():
    (row,) = learned()([json.dumps(ROW).encode()]).table.to_pylist()
    assert row == {
        "clicked": b"true",
        "x": -0.5,
        "euro": 1.5,
        "v": [1.0, 2.5],
        "site": "é".encode(),
        "code": b"12",
        "slot": b"7",
        "names": [b"a", b"b"],
        "items": [1, 2],
        "shares": [float(np.float32(0.1)), 2.0],
        "tags": b"p|q",
    }


@pytest.mark.parametrize("absent_is_missing", [False, True])
def test_rows_are_those_of_single_messages(absent_is_missing):
    messages, read = objects(1200), learned(absent_is_missing)
    found, expected = read(messages), JsonRows(SCHEMA, absent_is_missing)(messages)
    assert found.table.schema.field("x").type == pa.float64()  # by Arrow's parser
    assert with_numbers(found.table) == with_numbers(expected.table)
    assert found.kept == expected.kept == list(range(1200)) and not found.refused


def changed(**fields):
    return json.dumps(ROW | fields).encode()


def without(name):
    return json.dumps({k: v for k, v in ROW.items() if k != name}).encode()


ODD = {
    "cut": b'{"clicked": 1',
    "two objects": json.dumps(ROW).encode() * 2,
    "a list": b"[1]",
    "no UTF-8": changed(site="?").replace(b"?", b"\xff"),
    "half a pair": changed(site="?").replace(b"?", b"\\ud800"),
    "no object, and one in the next message": b"{",
    "lines": json.dumps(ROW, indent=1).encode(),
    "a mark before it": b"\xef\xbb\xbf" + json.dumps(ROW).encode(),
    "absent": without("site"),
    "absent, and within another": without("x"),
    "twice": json.dumps(ROW).encode().replace(b'"x": -0.5', b'"x": 1, "x": 2'),
    "escaped name": changed(x=None).replace(b'"x"', b'"\\u0078"'),
    "too deep": changed(more=[]).replace(b'"more": []', b'"more": ' + b"[" * 5000 + b"]" * 5000),
    "another type": changed(site=5),
    "number as text": changed(x="1.5"),
    "not whole": changed(code=1.5),
    "minus zero": changed(code="?").replace(b'"?"', b"-0"),
    "beyond int64": changed(code=12345678901234567890),
    "beyond float32": changed(x=1e39),
    "beyond float64": changed(x="?").replace(b'"?"', b"1e999"),
    "NaN": changed(x=float("nan")),
    "infinite": changed(x=float("inf")),
    "separator": changed(tags=["a|b"]),
    "null in a list": changed(items=[1, None]),
    "an object": changed(site={}),
    "weights beyond": changed(shares=[1e300, float("inf")]),
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("absent_is_missing", [False, True])
def test_an_odd_message_is_as_without_the_parser_and_changes_no_other(name, absent_is_missing):
    messages = objects(700)
    messages.insert(600, ODD[name])
    read = learned(absent_is_missing)
    found, expected = read(messages), JsonRows(SCHEMA, absent_is_missing)(messages)
    assert with_numbers(found.table) == with_numbers(expected.table) and found.kept == expected.kept
    reasons = [{i: (e.column, e.reason) for i, e in x.refused.items()} for x in (found, expected)]
    assert reasons[0] == reasons[1]
    # Malformed messages do not keep the parser from reading the others.
    assert (found.table.schema.field("x").type == pa.float64()) >= (len(found.kept) == 700)
    assert with_numbers(read(objects(20)).table) == with_numbers(expected.table)[:20]
