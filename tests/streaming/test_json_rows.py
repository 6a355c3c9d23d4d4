"""JSON objects become Arrow columns at once, with the values that each of them has alone."""

import json

import numpy as np
import pytest

from tfrs_dlrm.schema import CategoricalFeature, DenseFeature, Label, Schema, Table
from tfrs_dlrm.streaming.json_rows import JsonRows

SCHEMA = Schema(
    Label("clicked"),
    (DenseFeature("x"), DenseFeature("euro", decimal=",", unit="€"), DenseFeature("v", size=2)),
    (
        CategoricalFeature("site"),
        CategoricalFeature("slot", dtype="int64", encoding="ids"),
        CategoricalFeature("items", multi_valued=True, encoding="ids", dtype="int64", weights="shares"),
        CategoricalFeature("names", multi_valued=True, encoding="hash"),
        CategoricalFeature("tags", multi_valued=True, separator="|", encoding="hash"),
    ),
    (Table("slot", 4, 100), Table("items", 4, 10), Table("names", 4, 50), Table("tags", 4, 50)),
)
USUAL = {
    "clicked": ["1", "0"],
    "x": ["1", "-0.50", "null", "1e3", "NaN", '"1.5"'],
    "euro": ["1.5", "1234", "null", '"1,5 €"'],
    "v": ["[1, 2.50]", '["0.1", 1e3]', "null", "[]", "[null, 2]"],
    "site": ['"a"', '"é"', "null", "5", "-7.50", "12345678901234567890"],
    "slot": ["1", "7.0", "null", '"8"'],
    "items": ["[1, 2]", "[]", "null", "[7.0]"],
    "shares": ["[0.1, 2e0]", "[]", "null", "[3]"],
    "names": ['["a", "b"]', "[]", "null", "[5]"],
    "tags": ['"a|b"', '""', "null", "7"],
}
# A value of each field that only the conversion of single values reads or refuses.
ODD = {
    "x": ("true", None),
    "euro": ("[]", "column 'euro': one value is needed, this is a list"),
    "v": ('"[1, 2]"', None),
    "site": ('"\\ud800"', "column 'site': text that is no Unicode"),
    "slot": ("{}", "column 'slot': one value is needed, this is a dict"),
    "items": ('["x"]', "column 'items': 'x' in the list is no whole number"),
    "shares": ("[1e999]", "column 'shares': '1e999' in the list is no finite number"),
    "names": ("[true, null]", None),
    "tags": ('["a", "b"]', None),
}


def texts(rows):
    return [("{" + ", ".join(f'"{name}": {value}' for name, value in row.items()) + "}").encode() for row in rows]


def usual_rows(n):
    rng = np.random.default_rng(0)
    return [{name: str(rng.choice(values)) for name, values in USUAL.items()} for _ in range(n)]


def test_values_by_hand():
    row = {"clicked": "1", "x": "-0.50", "euro": "1.5", "v": "[1, 2.50]", "site": "-7.50", "slot": "7.0"}
    row |= {"items": "[1, 2]", "shares": "[0.1, 2e0]", "names": '["é", 5]', "tags": "7"}
    found = JsonRows(SCHEMA, absent_is_missing=False)(texts([row]))
    # Numbers are the text that they are; only text has the one of its value.
    assert found.table.to_pylist() == [
        {
            "clicked": b"1",
            "x": b"-0.50",
            "euro": b"1,5",
            "v": [b"1", b"2.50"],
            "site": b"-7.5",
            "slot": b"7.0",
            "items": [1, 2],
            "shares": [float(np.float32(0.1)), 2.0],
            "names": ["é".encode(), b"5"],
            "tags": b"7",
        }
    ]
    assert found.kept == [0] and not found.refused


@pytest.mark.parametrize("column", ODD)
def test_an_odd_value_changes_no_other_message(column):
    value, reason = ODD[column]
    rows = usual_rows(60)
    read = JsonRows(SCHEMA, absent_is_missing=False)
    expected = read(texts(rows))
    alone = [JsonRows(SCHEMA, absent_is_missing=False)([message]).table.to_pylist() for message in texts(rows)]
    assert expected.kept == list(range(60)) and expected.table.to_pylist() == [row for one in alone for row in one]

    found = read(texts([*rows[:30], rows[0] | {column: value}, *rows[30:]]))
    others = found.table.to_pylist()
    if reason is None:
        others.pop(30)
    else:
        assert f"column {found.refused[30].column!r}: {found.refused[30].reason}".startswith(reason)
    assert list(found.refused) == ([] if reason is None else [30])
    assert others == expected.table.to_pylist() and found.table.schema == expected.table.schema


def test_the_first_reason_in_the_order_of_the_columns_is_reported():
    row = usual_rows(1)[0]
    broken = [
        {name: value for name, value in row.items() if name != "slot"} | {"x": "{}"},
        {name: value for name, value in row.items() if name != "x"} | {"slot": "{}"},
        row | {"v": '"\\ud800"'},
    ]
    found = JsonRows(SCHEMA, absent_is_missing=False)(texts([row, *broken]))
    reasons = [(place, error.column, error.reason[:26]) for place, error in sorted(found.refused.items())]
    assert reasons == [
        (1, "x", "one value is needed, this "),
        (2, "x", "the object has no such fie"),
        (3, "v", "text that is no Unicode: '"),
    ]
    assert found.kept == [0] and len(found.table) == 1


def test_messages_in_other_encodings_and_with_blanks():
    text = json.dumps({"clicked": 1, "x": 2})
    messages = [text.encode("utf-8-sig"), text.encode("utf-16"), f"\n {text} \n".encode(), f"{text} x".encode()]
    found = JsonRows(SCHEMA, absent_is_missing=True)(messages)
    assert found.kept == [0, 1, 2] and found.table.column("x").to_pylist() == [b"2"] * 3
    assert found.refused[3].reason.startswith("not valid JSON: Extra data")
