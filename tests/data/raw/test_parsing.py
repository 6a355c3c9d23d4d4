"""Text and Parquet into typed columns, against pandas and by hand."""

import csv
import random
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tfrs_dlrm.data.raw import sources, text
from tfrs_dlrm.data.raw.parsing import MISSING_INT
from tfrs_dlrm.data.raw.text import UNCLOSED, read_text
from tfrs_dlrm.data.raw.typed_rows import parse
from tfrs_dlrm.schema import CategoricalFeature, DenseFeature, Label, Schema, Table, TextFormat

SCHEMA = Schema(
    Label("y"),
    dense=(DenseFeature("d"),),
    categorical=(
        CategoricalFeature("c"),
        CategoricalFeature("n", dtype="int64", encoding="ids"),
    ),
    tables=(Table("n", vocabulary_size=100),),
    weight="w",
)


def read(path, schema=SCHEMA):
    """All rows of a file, and all bad ones."""
    parts = [parse(block, schema) for block in sources.blocks(str(path), schema)]
    bad = [b for p in parts for b in p.bad]
    joined = {
        "numbers": np.concatenate([p.numbers for p in parts]),
        "y": np.concatenate([p.label for p in parts]),
        "d": np.stack([np.concatenate([p.inputs[f.name] for p in parts]) for f in schema.dense], axis=1)
        if schema.dense
        else None,
        **{f.name: [v for p in parts for v in p.inputs[f.name].to_pylist()] for f in schema.categorical},
    }
    if schema.weight:
        joined["w"] = np.concatenate([p.weight for p in parts])
    return joined, bad


def frame():
    rng = np.random.default_rng(0)
    texts = ["plain", "", "ünïcödé", 'with "quotes"', "a;b", "comma, inside", '"', " blanks ", "0x1f", "#", "NaN"]
    return pd.DataFrame(
        {
            "unused": ["u"] * 300,
            "c": rng.choice(texts, 300),
            "w": rng.integers(0, 8, 300) / 4,
            "d": np.where(rng.random(300) < 0.2, np.nan, rng.integers(-(10**6), 10**6, 300) / 8),
            "n": pd.array(rng.integers(0, 100, 300), "Int64"),
            "y": rng.integers(0, 2, 300),
        }
    ).assign(n=lambda f: f["n"].mask(rng.random(300) < 0.2))


def _text(path, separator, **kwargs):
    frame().to_csv(path, sep=separator, index=False, **kwargs)


def _tsv(path):
    rows = frame().astype(object).where(lambda f: f.notna(), "").to_numpy().tolist()
    lines = ["\t".join(frame().columns), *("\t".join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _blank_lines(path):
    _text(path, ",")
    path.write_bytes(path.read_bytes().replace(b"\nu,", b"\n\n\r\nu,"))


def _parquet(dtypes):
    def write(path):
        table = pa.Table.from_pandas(frame().astype({"c": "string"}), preserve_index=False)
        for name, dtype in dtypes.items():
            column = table[name].cast(dtype) if not pa.types.is_dictionary(dtype) else table[name].dictionary_encode()
            table = table.set_column(table.column_names.index(name), name, column)
        pq.write_table(table, path, row_group_size=64)

    return write


DICTIONARY = pa.dictionary(pa.int32(), pa.string())
COLUMNS = TextFormat(columns=tuple(frame().columns))
FORMATS = {
    "tab.tsv": (_tsv, TextFormat()),
    "comma.csv": (lambda p: _text(p, ","), TextFormat()),
    "all quoted.CSV": (lambda p: _text(p, ",", quoting=1), TextFormat()),
    "windows.csv": (lambda p: _text(p, ",", lineterminator="\r\n", encoding="utf-8-sig"), TextFormat()),
    "comma.csv.gz": (lambda p: _text(p, ",", compression="gzip"), TextFormat()),
    "semicolon.txt": (lambda p: _text(p, ";"), TextFormat(delimiter=";")),
    "no header.csv": (lambda p: _text(p, ",", header=False), COLUMNS),
    "blank lines.csv": (_blank_lines, TextFormat()),
    "typed.parquet": (_parquet({}), TextFormat()),
    "strings.parquet": (_parquet({n: pa.string() for n in "cdnwy"}), TextFormat()),
    "odd types.parquet": (
        _parquet({"c": DICTIONARY, "d": pa.decimal128(20, 4), "n": pa.float64(), "w": pa.float32(), "y": pa.bool_()}),
        TextFormat(),
    ),
    "bytes.parquet": (_parquet({"c": pa.large_binary(), "n": pa.int16(), "y": pa.float32()}), TextFormat()),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_rows(tmp_path, monkeypatch, name):
    monkeypatch.setattr(sources, "BLOCK_BYTES", 1000)
    monkeypatch.setattr(sources, "BLOCK_ROWS", 50)
    write, text = FORMATS[name]
    write(tmp_path / name)
    rows, bad = read(tmp_path / name, Schema(SCHEMA.label, SCHEMA.dense, SCHEMA.categorical, SCHEMA.tables, "w", text))
    expected = frame()
    assert bad == []
    np.testing.assert_array_equal(rows["y"], expected["y"].astype(np.float32))
    np.testing.assert_array_equal(rows["w"], expected["w"].astype(np.float32))
    np.testing.assert_array_equal(rows["d"][:, 0], expected["d"].astype(np.float32))
    assert rows["c"] == expected["c"].tolist()
    assert rows["n"] == expected["n"].fillna(MISSING_INT).tolist()
    step = 3 if name == "blank lines.csv" else 1
    first = 1 if name.endswith("parquet") or text.columns else 4 if step == 3 else 2
    assert rows["numbers"].tolist() == list(range(first, first + 300 * step, step))


BAD_LINES = [
    "y,d,c,n,w",
    "1,2.5,good,1,1",
    "1,2.5,too few,1",
    "1,2.5,too many,1,1,1",
    "1,abc,x,1,1",
    "1,1_000,x,1,1",
    "1,1e39,x,1,1",
    "1,inf,x,1,1",
    "2,1,x,1,1",
    "",
    ",1,x,1,1",
    "0,1,x,1.5,1",
    "0,1,x,1,-1",
    "0,1,x,1,",
    '0,1,"unclosed,1,1',
    '0,1,"closed""",1,1',
    "0,1,\xff\xfe,1,1",
    "0,1,a\rb,1,1",
    "0,+.5e1, 12 ,-1,0",
    '1,1,"last',
]


def test_bad_lines_are_named_and_nothing_else_is_lost(tmp_path):
    path = tmp_path / "bad.csv"
    path.write_bytes("\n".join(BAD_LINES).encode("latin-1"))
    rows, bad = read(path)
    assert rows["numbers"].tolist() == [2, 16, 19]
    assert rows["c"] == ["good", 'closed"', " 12 "]
    assert rows["d"][:, 0].tolist() == [2.5, 1, 5] and rows["n"] == [1, 1, MISSING_INT]
    assert [(b.row, b.column, b.reason) for b in bad] == [
        (3, "", "4 fields, 5 are expected"),
        (4, "", "6 fields, 5 are expected"),
        (5, "d", "'abc' is not a finite float32 number"),
        (6, "d", "'1_000' is not a finite float32 number"),
        (7, "d", "'1e39' is not a finite float32 number"),
        (8, "d", "'inf' is not a finite float32 number"),
        (9, "y", "label 2 is neither 0 nor 1"),
        (11, "y", "the label is missing"),
        (12, "n", "'1.5' is not a whole number"),
        (13, "w", "weight -1 is negative"),
        (14, "w", "the weight is missing"),
        (15, "", UNCLOSED),
        (17, "c", "invalid UTF-8: b'\\xff\\xfe'"),
        (18, "", "a carriage return in the middle of the line"),
        (20, "", UNCLOSED),
    ]
    assert {b.row: b.text for b in bad} == {b.row: BAD_LINES[b.row - 1] for b in bad} | {17: r"0,1,\xff\xfe,1,1"}
    assert {b.path for b in bad} == {str(path)}
    assert str(bad[2]) == f"{path}: line 5, column 'd': 'abc' is not a finite float32 number"


@pytest.mark.parametrize(
    "extra",
    [b"", b"\n\n", b'0,1,"never closed,1,1\n', b"0,1,a\rb,1,1\n\n", b"0,1,a\r\n", b"0,\xff\n", b'0,"\xff"\n0,"x,1\n'],
    ids=["clean", "blank", "quote", "carriage return", "short", "short, no UTF-8", "two of them"],
)
def test_a_line_is_read_alike_whatever_stands_after_it(tmp_path, extra):
    """The parser is run again on cleaned data where a block holds such lines; that must not change the others."""
    lines = b'y,d,c,n,w\n1,1,"ab" ,1,1\n1,1,a"b,1,1\n0,1,"x,""y""",1,1\n0,1,"",1,1\n'
    (tmp_path / "a.csv").write_bytes(lines + extra)
    rows, bad = read(tmp_path / "a.csv")
    assert rows["c"] == ["ab ", 'a"b', 'x,"y"', ""]
    assert [b.row for b in bad] == [6 + i for i, line in enumerate(extra.split(b"\n")) if line.strip()]


@pytest.mark.parametrize("piece", [1 << 20, 16])
def test_random_lines_against_the_csv_module(monkeypatch, piece):
    """Blocks of odd lines, most of them malformed: what becomes of a line, its neighbours do not change.

    Nor does it matter where the parser cuts a block into pieces, and lines may be longer than a piece.
    """
    monkeypatch.setattr(text, "_PIECE_BYTES", piece)
    schema = Schema(Label("a"), categorical=(CategoricalFeature("b"), CategoricalFeature("c")))
    rng = random.Random(0)
    odd = ["a", "", '"x"', '"x""y"', 'x"y', '"x"y', "é", '"', "\xff", "\r", " ", ' "x"']
    for _ in range(1500):
        delimiter = rng.choice(",;\t")
        odd[0] = f'"{delimiter}"'
        lines = [delimiter.join(rng.choices(odd, k=rng.choice([1, 2, 3, 3, 3, 4]))) for _ in range(rng.randint(1, 5))]
        data = "".join(f"{line}\n" for line in lines).encode("latin-1")
        columns, numbers, bad = read_text(
            sources.RawBlock("p", 0, 7, data.count(b"\n"), data, ("a", "b", "c"), delimiter), schema
        )
        found = {int(n): [columns[c][i].as_py().decode("latin-1") for c in "abc"] for i, n in enumerate(numbers)}
        expected, reasons = {}, {}
        for number, line in enumerate(lines, 7):
            line = line.removesuffix("\r")
            if not line:
                continue
            if "\r" in line:
                reasons[number] = "a carriage return in the middle of the line"
                continue
            tabs = delimiter == "\t"
            rows = [line.split("\t")] if tabs else list(csv.reader([f"{line}\n", "next"], delimiter=delimiter))
            if not tabs and (len(rows) == 1 or ' "x"' in rows[0] or _is_refused(line, delimiter)):
                reasons[number] = "quotes"
            elif len(rows[0]) != 3:
                reasons[number] = f"{len(rows[0])} fields, 3 are expected"
            else:
                expected[number] = rows[0]
        said = {n: "quotes" if "quote" in reason else reason for n, (_, reason) in bad.items()}
        assert (found, said) == (expected, reasons), data


def _is_refused(line, delimiter):
    """Whether the csv module finds text after a closing quote."""
    try:
        list(csv.reader([line], delimiter=delimiter, strict=True))
    except csv.Error:
        return True
    return False


def test_labels_by_text_and_by_threshold(tmp_path):
    text = TextFormat(columns=("y", "d"), strip=True, missing=("?",))
    (tmp_path / "a.csv").write_text(" >50K,1\n<=50K, ?\n>50k,3\n\n>50K,\n")
    by_text = Schema(Label("y", positive=(">50K",), negative=("<=50K",)), dense=(DenseFeature("d"),), text=text)
    rows, bad = read(tmp_path / "a.csv", by_text)
    assert rows["y"].tolist() == [1, 0, 1]
    np.testing.assert_array_equal(rows["d"][:, 0], [1, np.nan, np.nan])
    assert [b.reason for b in bad] == ["label '>50k' is none of '>50K', '<=50K'"]
    pq.write_table(pa.table({"y": [8, 7, 10, None], "d": [1, 2, 3, 4]}), tmp_path / "a.parquet")
    rows, bad = read(tmp_path / "a.parquet", Schema(Label("y", threshold=8), dense=(DenseFeature("d"),)))
    assert rows["y"].tolist() == [1, 0, 1]
    assert [(b.row, b.reason, b.text) for b in bad] == [(4, "the label is missing", "{'y': None, 'd': 4}")]
    assert str(bad[0]) == f"{tmp_path}/a.parquet: row 4, column 'y': the label is missing"


def test_a_missing_number_is_bad_where_there_is_nothing_to_fill_in(tmp_path):
    (tmp_path / "a.tsv").write_text("y\td\n1\t\n0\t2\n")
    rows, bad = read(tmp_path / "a.tsv", Schema(Label("y"), dense=(DenseFeature("d", fill_value=None),)))
    assert rows["d"].tolist() == [[2.0]]
    assert [(b.row, b.column, b.reason, b.text) for b in bad] == [(2, "d", "missing, and fill_value is null", "1\t")]


def test_list_columns_and_weights(tmp_path):
    tags = CategoricalFeature("tags", multi_valued=True, weights="tw")
    ids = CategoricalFeature("ids_", multi_valued=True, dtype="int64")
    table = pa.table(
        {
            "y": [1, 0, 1, 0, 1],
            "tags": pa.array([["a", "b"], None, [], ["c"], ["d"]]),
            "tw": pa.array([[0.5, 2.0], None, [], [1.0, 1.0], [float("inf")]]),
            "ids_": pa.array([[1], [2, 3], None, [4], []], pa.list_(pa.int32())),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    rows, bad = read(tmp_path / "a.parquet", Schema(Label("y"), categorical=(tags, ids)))
    assert rows["tags"] == [["a", "b"], None, []] and rows["ids_"] == [[1], [2, 3], None]
    assert [(b.row, b.column, b.reason) for b in bad] == [
        (4, "tw", "2 weights for 1 values"),
        (5, "tw", "the weights [inf] are not all finite float32 numbers"),
    ]


def test_separated_weights(tmp_path):
    feature = CategoricalFeature("tags", separator="|", weights="tw")
    (tmp_path / "a.csv").write_text("y,tags,tw\n1,a|b,1|0.5\n1,a|b,1\n1,a,x\n0,,\n0,a||b,1|2|3\n0,,1\n1,a,1e39\n")
    rows, bad = read(tmp_path / "a.csv", Schema(Label("y"), categorical=(feature,)))
    assert rows["tags"] == ["a|b", "", "a||b"]
    assert [(b.row, b.column, b.reason) for b in bad] == [
        (3, "tw", "1 weights for 2 values"),
        (4, "tw", "the weights [None] are not all finite float32 numbers"),
        (7, "tw", "1 weights for 0 values"),
        (8, "tw", "the weights [1e+39] are not all finite float32 numbers"),
    ]


@pytest.mark.parametrize(
    ("column", "features", "message"),
    [
        (
            pa.array(["a", "b"]),
            {"categorical": (CategoricalFeature("x", multi_valued=True),)},
            "column 'x' of feature 'x': its values are no lists; give the separator",
        ),
        (
            pa.array([[1], [2]]),
            {"categorical": (CategoricalFeature("x"),)},
            "column 'x' of feature 'x': its values are lists; set multi_valued=true",
        ),
        (
            pa.array([1, 2], pa.timestamp("ms")),
            {"dense": (DenseFeature("x"),)},
            r"column 'x': a column of type timestamp\[ms\] cannot be read as double",
        ),
    ],
    ids=["no list", "list", "time"],
)
def test_a_parquet_column_of_the_wrong_type(tmp_path, column, features, message):
    pq.write_table(pa.table({"y": [0, 1], "x": column}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=rf"a\.parquet: {message}"):
        read(tmp_path / "a.parquet", Schema(Label("y"), **features))


@pytest.mark.parametrize(
    ("column", "feature", "reason"),
    [
        (
            pa.array([1, 2**63], pa.uint64()),
            CategoricalFeature("x", dtype="int64"),
            "9223372036854775808 is outside the range of int64; set dtype='string' to read its digits as text",
        ),
        (
            pa.array(["-5", "-9223372036854775809"]),
            CategoricalFeature("x", dtype="int64"),
            "'-9223372036854775809' is outside the range of int64; set dtype='string' to read its digits as text",
        ),
        (pa.array([1, 1.5]), CategoricalFeature("x", dtype="int64"), "1.5 is not a whole number"),
        (pa.array([1, np.inf]), CategoricalFeature("x", dtype="int64"), "inf is not a whole number"),
        (
            pa.array([2.0**53, 2.0**53 + 2]),
            CategoricalFeature("x", dtype="int64"),
            "9007199254740994, in a column of type double, may be another whole number, rounded; floats are exact up to"
            " 9007199254740992: write integers or text",
        ),
        (
            pa.array([2.0**24, 2.0**24 + 2], pa.float32()),
            CategoricalFeature("x"),
            "16777218, in a column of type float, may be another whole number, rounded; floats are exact up to"
            " 16777216: write integers or text",
        ),
        (
            pa.array([[1], [2, 2**63, 7]], pa.list_(pa.uint64())),
            CategoricalFeature("x", dtype="int64", multi_valued=True),
            "9223372036854775808 is outside the range of int64; set dtype='string' to read its digits as text",
        ),
        (
            pa.array([[b"a"], [b"b", b"\xff"]]),
            CategoricalFeature("x", multi_valued=True),
            "invalid UTF-8: b'\\xff'",
        ),
    ],
)
def test_values_that_do_not_fit_refuse_their_row(tmp_path, column, feature, reason):
    pq.write_table(pa.table({"y": [0, 1], "x": column}), tmp_path / "a.parquet")
    rows, bad = read(tmp_path / "a.parquet", Schema(Label("y"), categorical=(feature,)))
    assert len(rows["x"]) == 1 and [(b.row, b.column, b.reason) for b in bad] == [(2, "x", reason)]
    if "dtype='string'" in reason:
        rows, bad = read(tmp_path / "a.parquet", Schema(Label("y"), categorical=(replace(feature, dtype="string"),)))
        assert not bad and rows["x"][1] == (
            ["2", "9223372036854775808", "7"] if feature.multi_valued else str(column[1])
        )


@pytest.mark.parametrize("typed", [pa.int64(), pa.float64(), pa.decimal128(22, 2), pa.string()])
def test_missing_texts_stand_for_numbers_too(tmp_path, typed):
    schema = Schema(
        Label("y"),
        (DenseFeature("d"),),
        (CategoricalFeature("n", dtype="int64"), CategoricalFeature("c")),
        text=TextFormat(missing=("999", "none")),
    )
    column = pa.array([1, 999, 7]).cast(typed)
    pq.write_table(pa.table({"y": [0, 1, 1], **dict.fromkeys("dnc", column)}), tmp_path / "a.parquet")
    rows, bad = read(tmp_path / "a.parquet", schema)
    assert not bad and rows["n"] == [1, MISSING_INT, 7]
    np.testing.assert_array_equal(rows["d"][:, 0], [1, np.nan, 7])


def test_a_missing_number_is_not_its_neighbour_that_is_the_same_float(tmp_path):
    schema = Schema(
        Label("y"), categorical=(CategoricalFeature("n", dtype="int64"),), text=TextFormat(missing=(str(2**53 + 1),))
    )
    pq.write_table(pa.table({"y": [0, 1], "n": [2**53, 2**53 + 1]}), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet", schema)[0]["n"] == [2**53, MISSING_INT]


def test_lists_of_a_fixed_size_may_be_missing(tmp_path):
    feature = CategoricalFeature("n", dtype="int64", multi_valued=True)
    lists = pa.array([None, [1, 2], None, [3, 0.5], [4, 5]], pa.list_(pa.float64(), 2))
    pq.write_table(pa.table({"y": [0, 1, 0, 1, 0], "n": lists}), tmp_path / "a.parquet")
    rows, bad = read(tmp_path / "a.parquet", Schema(Label("y"), categorical=(feature,)))
    assert rows["n"] == [None, [1, 2], None, [4, 5]] and [b.row for b in bad] == [4]


@pytest.mark.parametrize("column", [["True", "false", ""], ["TRUE", "0", ""], [True, False, None], [1.0, 0.0, None]])
@pytest.mark.parametrize("label", [Label("y"), Label("y", positive=("True",), negative=("False",))])
def test_a_label_of_booleans(tmp_path, column, label):
    pq.write_table(pa.table({"y": column, "c": ["a", "b", "c"]}), tmp_path / "a.parquet")
    rows, bad = read(tmp_path / "a.parquet", Schema(label, categorical=(CategoricalFeature("c"),)))
    assert rows["y"].tolist() == [1, 0] and [b.row for b in bad] == [3]
