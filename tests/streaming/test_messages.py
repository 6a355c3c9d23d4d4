"""Messages become what `prepare` makes of the same rows in a file."""

import csv
import dataclasses
import json

import click_log
import numpy as np
import pytest
import served_log

from tfrs_dlrm.data.encoding.encoder import Encoder
from tfrs_dlrm.data.preparing.prepare import prepare
from tfrs_dlrm.data.reading.dataset import row_blocks
from tfrs_dlrm.schema import CategoricalFeature, DenseFeature, Label, Schema, Table, TextFormat
from tfrs_dlrm.streaming.address import StreamAddress
from tfrs_dlrm.streaming.messages import Decoder
from tfrs_dlrm.streaming.reader import Message

COLUMNS = "clicked,price,age,site,user,slot,tags,tag_weights,weight"


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """A prepared log, and its lines."""
    home = tmp_path_factory.mktemp("log")
    click_log.write(str(home / "log.csv"), 400)
    prepare(click_log.SCHEMA, [str(home / "log.csv")], str(home / "prepared"))
    return str(home / "prepared"), (home / "log.csv").read_text().splitlines()[1:]


def messages(values):
    return [
        Message.of(i % 3, i // 3, v if isinstance(v, bytes) or v is None else v.encode()) for i, v in enumerate(values)
    ]


def decoder(prepared, parameters):
    return Decoder(Encoder.load(prepared), StreamAddress.parse(f"kafka://a/t?{parameters}"))


def as_lines(lines):
    return f"format=csv&columns={COLUMNS}", lines


def as_strings(lines):
    return "format=json", [json.dumps(row) for row in csv.DictReader([COLUMNS, *lines])]


def as_values(lines):
    """Numbers, lists and null, as programs send them."""

    def row(r):
        numbers = {k: float(r[k]) if r[k] else None for k in ("price", "age", "weight")}
        tags, weights = ([v for v in r[k].split("|") if v] for k in ("tags", "tag_weights"))
        clicked = {"0": False, "1": True}[r["clicked"]]
        lists = {"tags": tags, "tag_weights": [float(w) for w in weights]}
        return json.dumps(r | numbers | lists | {"clicked": clicked, "slot": int(r["slot"]), "more": {"a": [1]}})

    return "format=json", [row(r) for r in csv.DictReader([COLUMNS, *lines])]


@pytest.mark.parametrize("form", [as_lines, as_strings, as_values])
def test_rows_are_encoded_as_prepare_encodes_them(log, form):
    prepared, lines = log
    parameters, values = form(lines)
    found = decoder(prepared, parameters)(messages(values))
    (expected,) = row_blocks(prepared, "train", len(lines), seed=None)
    assert not found.malformed and len(found) == len(lines)
    for a, b in zip(found.columns.arrays(), expected, strict=True):
        np.testing.assert_array_equal(a, b)
    again = decoder(prepared, parameters)([])
    assert len(again) == 0 and not again.malformed


def test_lines_have_the_quotes_of_the_files(log, tmp_path):
    _, lines = log
    rows = list(csv.reader(lines))
    with open(tmp_path / "log.tsv", "w", newline="") as file:
        csv.writer(file, delimiter="\t", quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(
            [COLUMNS.split(","), *rows]
        )
    schema = dataclasses.replace(click_log.SCHEMA, text=TextFormat(quote='"'))
    manifest = prepare(schema, [str(tmp_path / "log.tsv")], str(tmp_path / "prepared"))
    quoted = (tmp_path / "log.tsv").read_text().splitlines()[1:]
    plain = ["\t".join(row) for row in rows]
    decode = decoder(str(tmp_path / "prepared"), f"format=tsv&columns={COLUMNS}")
    found, expected = decode(messages(quoted)), decode(messages(plain))
    assert len(found) == len(expected) == len(rows)
    assert found.out_of_range == expected.out_of_range == manifest.out_of_range
    for a, b in zip(found.columns.matrices, expected.columns.matrices, strict=True):
        np.testing.assert_array_equal(a, b)


def test_malformed_messages_are_named_and_the_others_stay(log):
    prepared, lines = log
    row = json.loads(as_values(lines)[1][0])
    bad = {
        "not valid JSON": b"{",
        "JSON, but no object": b"[1]",
        "invalid UTF-8": b'{"clicked": "\xff"}',
        "the message is empty": None,
        "the object has no such field": json.dumps({k: v for k, v in row.items() if k != "site"}),
        "label 2 is neither 0 nor 1": json.dumps(row | {"clicked": 2}),
        "the label is missing": json.dumps(row | {"clicked": None}),
        "'dear' is not a finite float32 number": json.dumps(row | {"price": "dear"}),
        "'Infinity' is not a finite float32 number": json.dumps(row | {"price": float("inf")}),
        "one value is needed, this is a list": json.dumps(row | {"site": ["a"]}),
        "a value with the separator": json.dumps(row | {"tags": ["a|b"]}),
        "weights for": json.dumps(row | {"tags": ["a"], "tag_weights": []}),
        "text that is no Unicode": json.dumps(row | {"site": "\ud800"}),
        "2,000,014 bytes; a row may have 1,048,576": b'{"clicked": 1}' + b" " * 2_000_000,
        "maximum recursion": b"[" * 100_000,
    }
    values = [as_values(lines)[1][1]]
    for value in bad.values():
        values += [value, as_values(lines)[1][2]]
    found = decoder(prepared, "format=json")(messages(values))
    assert len(found) == 1 + len(bad) and len(found.malformed) == len(bad)
    for reason, m in zip(bad, found.malformed, strict=True):
        assert reason in m.reason or (reason == "maximum recursion" and "not valid JSON" in m.reason), (reason, m)
        assert m.message in messages(values)
    assert str(found.malformed[4]) == "partition 0, offset 3, column 'site': the object has no such field"
    absent = decoder(prepared, "format=json&absent=missing")(messages([json.dumps({"clicked": 1, "weight": 2})]))
    assert len(absent) == 1 and absent.columns.matrices[1] == [2.0]

    lines_of = [lines[0], lines[0] + ",1", lines[1] + "\n" + lines[2], "", lines[3] + "\n", '1,2,"', b"\xff"]
    found = decoder(prepared, f"format=csv&columns={COLUMNS}")(messages(lines_of))
    assert len(found) == 2
    reasons = [(m.message.partition, m.message.offset, m.reason[:40]) for m in found.malformed]
    assert reasons == [
        (1, 0, "10 fields, 9 are expected"),
        (2, 0, "a line break in the middle of the messag"),
        (0, 1, "the message is empty"),
        (2, 1, "a quote that is never closed; a value ca"),
        (0, 2, "1 fields, 9 are expected"),
    ]


def test_lists_and_texts_that_mean_yes(tmp_path):
    schema = Schema(
        Label("answer", positive=("true",), negative=("false",)),
        (DenseFeature("x"),),
        (
            CategoricalFeature("items", multi_valued=True, encoding="ids", dtype="int64", weights="shares"),
            CategoricalFeature("names", multi_valued=True, encoding="hash"),
        ),
        (Table("items", 4, 10, combiner="sum"), Table("names", 4, 50)),
    )
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [
        {"answer": "true", "x": 1.5, "items": [1, 9], "shares": [0.5, 2.0], "names": ["a", "bé"]},
        {"answer": "false", "x": None, "items": [], "shares": [], "names": None},
        {"answer": "true", "x": 3.0, "items": [7], "shares": [1.0], "names": [""]},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "log.parquet")
    prepare(schema, [str(tmp_path / "log.parquet")], str(tmp_path / "prepared"))
    (expected,) = row_blocks(str(tmp_path / "prepared"), "train", 3, seed=None)
    sent = [json.dumps(r | {"answer": r["answer"] == "true"}) for r in rows]
    wrong = [
        {"items": 3},
        {"items": ["x"], "shares": [1]},
        {"items": [1], "shares": [1e999]},
        {"names": [["a"]]},
        {"items": [1.5]},
    ]
    found = decoder(str(tmp_path / "prepared"), "")(messages([*sent, *(json.dumps(rows[0] | w) for w in wrong)]))
    for a, b in zip(found.columns.arrays(), expected, strict=True):
        np.testing.assert_array_equal(a, b)
    assert [m.column for m in found.malformed] == ["items", "items", "shares", "names", "items"]


def test_lines_need_the_names_of_their_fields(log):
    prepared, _ = log
    with pytest.raises(ValueError, match=r"lines of a stream have no header; .* columns=NAME,NAME"):
        decoder(prepared, "format=tsv")
    with pytest.raises(ValueError, match="no column 'weight', 'user', 'slot', 'tags', 'tag_weights' among clicked"):
        decoder(prepared, "format=csv&columns=clicked,price,age,site")


def test_numbers_in_other_notations(tmp_path):
    """JSON's own numbers are read as they are, and texts as the schema says."""
    features = (
        DenseFeature("euro", decimal=",", thousands=".", unit="€"),
        DenseFeature("rate", unit="%"),
        DenseFeature("seen"),
    )
    schema = Schema(Label("clicked"), features, (CategoricalFeature("slot", dtype="int64"),))
    (tmp_path / "log.csv").write_text('clicked,euro,rate,seen,slot\n1,"1.234,5 €",6.0%,True,7.0\n0,3,4,0,8\n')
    prepare(schema, [str(tmp_path / "log.csv")], str(tmp_path / "out"))
    rows = [
        {"euro": "1.234,5 €", "rate": "6.0%", "seen": "TRUE", "slot": "7"},
        {"euro": 1234.5, "rate": 6.0, "seen": True, "slot": 7.0},
        {"euro": "€ 1.234,5", "rate": 6, "seen": 1.0, "slot": 7},
        {"euro": 1.2345e3, "rate": "6", "seen": "1", "slot": "7.0"},
    ]
    decoded = decoder(str(tmp_path / "out"), "format=json")(messages([json.dumps({"clicked": 1} | r) for r in rows]))
    assert not decoded.malformed
    np.testing.assert_array_equal(decoded.columns.matrices[1], np.float32([[1234.5, 6, 1]] * 4))
    assert len(set(decoded.columns.matrices[2][:, 0])) == 1 and 0 not in decoded.columns.matrices[2]
    wrong = {"clicked": 1, "euro": "1234.5", "rate": 6, "seen": 1, "slot": 7}
    (bad,) = decoder(str(tmp_path / "out"), "format=json")(messages([json.dumps(wrong)])).malformed
    assert bad.column == "euro" and "'1234.5' is not a finite float32 number with {'decimal': ','" in bad.reason


def test_vectors_are_read_as_in_files(tmp_path):
    """Texts and lists, with the schema's decimal comma and its words for a missing value."""
    features = (DenseFeature("v", size=2, separator="|", decimal=","), DenseFeature("w", size=2))
    text = TextFormat(delimiter=";", missing=("NA",))
    schema = Schema(Label("clicked"), features, (CategoricalFeature("slot"),), text=text)
    lines = ["0,1|0,2;[0.1, NA]", "NA|0,5;NA", "[ 3 | -4,5 ];", "NA;[]"]
    (tmp_path / "log.csv").write_text("clicked;v;w;slot\n" + "".join(f"1;{line};a\n" for line in lines))
    prepare(schema, [str(tmp_path / "log.csv")], str(tmp_path / "out"))
    (expected,) = row_blocks(str(tmp_path / "out"), "train", len(lines), seed=None)
    texts = [dict(zip("vw", line.split(";"), strict=True)) for line in lines]
    lists = [
        {"v": [0.1, 0.2], "w": [0.1, None]},
        {"v": ["NA", "0,5"], "w": None},
        {"v": ["3", -4.5], "w": []},
        {"v": None, "w": ""},
    ]
    wrong = [{"v": [1, "x"]}, {"v": [1]}, {"v": "0.1|0.2"}, {"v": [[1], 2]}, {"v": 3}, {"w": [1, 1e999]}]
    for rows in (texts, lists):
        sent = [json.dumps({"clicked": 1, "slot": "a"} | row) for row in (*rows, *(rows[0] | w for w in wrong))]
        found = decoder(str(tmp_path / "out"), "format=json")(messages(sent))
        for a, b in zip(found.columns.arrays(), expected, strict=True):
            np.testing.assert_array_equal(a, b)
        assert [m.column for m in found.malformed] == [*"vvvvvw"]
        assert "'0.1' is not a finite float32 number with {'decimal': ','" in found.malformed[2].reason


def test_what_only_training_has_is_in_messages():
    rows, data = served_log.prepared()
    values = [json.dumps(row) for row in json.loads(rows.to_json(orient="records"))]
    found = decoder(data, "format=json")(messages(values))
    assert not found.malformed
    np.testing.assert_array_equal(found.columns.arrays()[2], Encoder.load(data)(rows)["ids"])
