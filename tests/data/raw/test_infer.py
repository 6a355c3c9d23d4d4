"""The schema that is proposed for a file: rule by rule, and for real data."""

import decimal
import itertools
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from csv_logs import with_label, write_csv

from tfrs_dlrm.data.preparing.prepare import prepare
from tfrs_dlrm.data.raw.infer import infer_schema
from tfrs_dlrm.schema import CategoricalFeature, DenseFeature, Label, Schema, TextFormat, Time

ROWS = 400


def columns(rows=ROWS, seed=0):
    rng = np.random.default_rng(seed)
    some = rng.random(rows) < 0.1
    return {
        "clicked": [str(v) for v in rng.integers(0, 2, rows)],
        "price": [f"{v:.2f}" for v in rng.lognormal(0, 1.5, rows)],
        "age": ["" if s else str(v) for s, v in zip(some, rng.integers(18, 80, rows), strict=True)],
        "site": [f"s{v}" for v in rng.integers(0, 9, rows)],
        "hour": [str(v) for v in rng.integers(0, 24, rows)],
        "user_id": [str(v) for v in rng.integers(0, 150, rows)],
        "zip-code": [f"{v:05d}" for v in rng.integers(0, 60, rows)],
        "tags": ["|".join(f"t{t}" for t in rng.integers(0, 6, n)) for n in rng.integers(0, 4, rows)],
        "country": ["fr"] * rows,
        "request": [f"{v:032x}" for v in range(rows)],
        "row": [str(v) for v in range(rows)],
        "nothing": [""] * rows,
    }


def buckets(column, **notation):
    """What stands beside a number."""
    return CategoricalFeature(f"{column}_bucket", column, encoding="buckets", buckets=32, **notation)


def without_buckets(schema):
    return [f for f in (*schema.dense, *schema.categorical) if getattr(f, "encoding", "") != "buckets"]


def test_a_log_by_hand(tmp_path):
    path = write_csv(tmp_path / "log.csv", columns())
    proposal = infer_schema(path)
    assert proposal.schema == Schema(
        Label("clicked"),
        dense=(
            DenseFeature("price", transform=("log1p", "standardize")),
            DenseFeature("age", transform="standardize", fill_value="mean", indicator=True),
        ),
        categorical=(
            CategoricalFeature("site"),
            CategoricalFeature("hour", dtype="int64"),
            CategoricalFeature("user_id", dtype="int64"),
            CategoricalFeature("zip_code", column="zip-code"),
            CategoricalFeature("tags", separator="|"),
            buckets("price"),
            buckets("age"),
        ),
    )
    kinds = proposal.kinds()
    assert list(kinds) == list(proposal.notes) == list(columns())
    assert [c for c, kind in kinds.items() if kind == "left out"] == ["country", "request", "row", "nothing"]
    assert (
        kinds["clicked"] == "label"
        and kinds["price"] == "dense, log1p and standardize, buckets"
        and kinds["tags"] == "multi-valued"
    )
    assert proposal.notes["country"] == "always 'fr'"
    assert proposal.notes["request"] == "400 values in 400 rows: an identifier, or free text"
    assert proposal.notes["nothing"] == "no value in 400 rows"
    assert proposal.notes["site"] == "9 texts" and proposal.notes["hour"] == "24 whole numbers: few values"
    assert proposal.notes["user_id"] == "141 whole numbers: its name is that of ids or codes"
    assert proposal.notes["age"].endswith("% missing; its name is that of a number")
    assert list(proposal.certainty) == list(columns())
    assert {proposal.certainty[name] for name in ("site", "user_id", "age")} == {"sure"}
    assert proposal.certainty["hour"] == "likely"
    manifest = prepare(proposal.schema, [path], str(tmp_path / "out"), eval_fraction=0.1)
    assert manifest.rows("train") + manifest.rows("eval") == ROWS
    assert Schema.from_json(proposal.schema.to_json()) == proposal.schema


def test_a_number_to_predict(tmp_path):
    path = write_csv(tmp_path / "log.csv", columns())
    proposal = infer_schema(path, label="price", task="regression")
    assert proposal.schema.label == Label("price", task="regression")
    prices = [float(x) for x in columns()["price"]]
    low, high, mean = (f"{x:g}" for x in (min(prices), max(prices), np.mean(prices)))
    assert proposal.notes["price"] == f"numbers from {low} to {high}, {mean} in the mean"
    with pytest.raises(ValueError, match=r"column 'site' cannot be predicted as a number"):
        infer_schema(path, label="site", task="regression")
    with pytest.raises(ValueError, match=r"any column of numbers may be what is to be predicted; give its name"):
        infer_schema(path, task="regression")


@pytest.mark.parametrize(
    ("name", "delimiter", "header", "text"),
    [
        ("log.csv.gz", ",", True, TextFormat()),
        ("log.txt", "\t", True, TextFormat()),
        ("log.csv", ";", True, TextFormat(delimiter=";")),
        ("log.data", ",", False, TextFormat(columns=tuple(columns()), delimiter=",")),
    ],
)
def test_layouts(tmp_path, name, delimiter, header, text):
    expected = infer_schema(write_csv(tmp_path / "expected.csv", columns())).schema
    path = write_csv(tmp_path / name, columns(), delimiter, header)
    schema = infer_schema(path, columns=() if header else list(columns())).schema
    assert schema == Schema(expected.label, expected.dense, expected.categorical, expected.tables, text=text)


def test_blanks_and_texts_for_missing(tmp_path):
    data = columns()
    data["site"][3] = data["price"][4] = "?"
    data["hour"][5] = "Unknown"  # among numbers alone
    data["tags"][6] = "Unknown"
    blanks = {f" {name}": [f" {v} " for v in values] for name, values in data.items()}
    path = write_csv(tmp_path / "log.csv", blanks)
    proposal = infer_schema(path)
    assert proposal.schema.text == TextFormat(strip=True, missing=("?", "Unknown"))
    price = DenseFeature("price", "price", transform=("log1p", "standardize"), fill_value="mean", indicator=True)
    assert proposal.schema.dense[0] == price
    assert proposal.notes["hour"] == "24 whole numbers, 0.2% missing: few values"
    assert prepare(proposal.schema, [path], str(tmp_path / "out")).rows("train") == ROWS


GENRES = [" ".join(g) for n in (2, 3) for g in itertools.permutations(("Action", "Comedy", "Drama", "War"), n)]


BY_BLANKS = CategoricalFeature("c", separator=" ")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["a; b", "a", "c; b; a", "c"], CategoricalFeature("c", separator="; ")),
        (["a,b", "a", "c,b,a", "c"], CategoricalFeature("c", separator=",")),
        (["Doe, Jane", "Roe, Max", "Poe, Ann", "x"], CategoricalFeature("c")),  # nothing comes again
        (["Action Comedy", "Comedy", "Drama", "Action", "Comedy Drama", "War Action", "War"] * 2 + GENRES, BY_BLANKS),
        (["New York", "York", "Old Town", "New Town", "Salt Lake"], CategoricalFeature("c")),
        ([f"{a} {b}" for a in ("Ann", "Max", "Eva") for b in ("Doe", "Roe", "Poe", "Loe")], CategoricalFeature("c")),
        (["101,205", "205", "307,101", "307"], CategoricalFeature("c", separator=",")),  # no thousands
        (["-5", "7", "12", "8"], CategoricalFeature("c", dtype="int64")),
        (["007", "7", "12", "1"], CategoricalFeature("c")),
        (["-1", "7", "12", "1"], CategoricalFeature("c")),  # -1 means missing to int64
        (["1e3", "7", "2", "0"], DenseFeature("c", transform="standardize", fill_value="mean")),
        (["-9"] * 10 + ["1"] * 9 + ["999.5"], DenseFeature("c", transform="standardize", fill_value="mean")),
        (["0"] * 18 + ["99.5", "7"], DenseFeature("c", transform=("log1p", "standardize"))),
        (["0"] * 119 + ["99.5"], DenseFeature("c", transform="log1p")),  # its deviation is that of one row
        (["-1"] + ["0.5"] * 27 + ["99.5", "8"], DenseFeature("c", transform=("log1p", "standardize"))),
        (["2.5", ""], DenseFeature("c", transform="standardize", fill_value="mean", indicator=True)),
        # every second value is a 1: single values tell it, and their size does not
        ([str(v) for v in range(200)] * 2, CategoricalFeature("c", dtype="int64")),
        ([f"v{v}" for v in range(1001)] * 3, CategoricalFeature("c", min_count=5)),
        ([str(i) for i in range(60)], None),
        ([f"{i}.5" for i in range(60)], DenseFeature("c", transform="standardize", fill_value="mean")),
    ],
)
def test_kinds(tmp_path, values, expected):
    values = values * -(-60 // len(values))
    path = with_label(tmp_path, "c", values, y=["0", "1"] * (len(values) // 2) + ["0"] * (len(values) % 2))
    schema = infer_schema(path).schema
    found = [f for f in without_buckets(schema) if f.column == "c"]
    dense = (expected,) if isinstance(expected, DenseFeature) else ()
    categorical = (expected,) if isinstance(expected, CategoricalFeature) else ()
    filled_in = Schema(Label("y"), (DenseFeature("other"), *dense), categorical)
    assert found == [*filled_in.dense[1:], *filled_in.categorical]


def test_parquet(tmp_path):
    n = 120
    table = pa.table(
        {
            "y": [i % 3 == 0 for i in range(n)],
            "tags": pa.array([[f"t{i % 5}"] * (i % 3) for i in range(n)], pa.large_list(pa.large_string())),
            "ids": pa.array([[i % 7] for i in range(n)], pa.list_(pa.int32())),
            "embedding": pa.array([None if i % 9 == 0 else [0.5, i] for i in range(n)], pa.list_(pa.float32())),
            "several": [[0.5] * (i % 3) for i in range(n)],
            "as_text": [str([i / 8, 1e-9 * i, float(-i)]) for i in range(n)],
            "as_text_0": [f"w{i % 3}" for i in range(n)],  # a name that the vector takes
            "when": pa.array(range(n), pa.timestamp("s")),
            "flag": [None if i == 3 else i % 2 == 0 for i in range(n)],
            "name": pa.array([f"n{i % 4}" for i in range(n)]).dictionary_encode(),
            "price": pa.array([i / 7 for i in range(n)], pa.float32()),
            "cost": pa.array([decimal.Decimal(i % 60) / 4 for i in range(n)], pa.decimal128(9, 2)),
            "gap": pa.array([None if i % 4 == 0 else i % 50 for i in range(n)], pa.float64()),
            "empty": pa.nulls(n),
            "struct": [{"a": i} for i in range(n)],
            "session": pa.array([i.to_bytes(16, "big") for i in range(n)], pa.uuid()),
        }
    )
    pq.write_table(table, tmp_path / "log.parquet", row_group_size=50)
    proposal = infer_schema(str(tmp_path / "log.parquet"), rows=100)
    assert proposal.schema == Schema(
        Label("y"),
        dense=(
            DenseFeature("embedding", size=2, transform="standardize", fill_value="mean", indicator=True),
            DenseFeature("as_text", size=3, separator=",", transform="standardize", fill_value="mean"),
            DenseFeature("price", transform="standardize", fill_value="mean"),
            DenseFeature("cost", transform="standardize", fill_value="mean"),
            DenseFeature("gap", transform="standardize", fill_value="mean", indicator=True),
        ),
        categorical=(
            CategoricalFeature("tags", multi_valued=True),
            CategoricalFeature("ids_2", column="ids", multi_valued=True, dtype="int64"),  # `ids` is reserved
            CategoricalFeature("as_text_0_2", column="as_text_0"),
            CategoricalFeature("when", time=Time(("hour", "weekday"))),
            CategoricalFeature("flag", dtype="int64"),
            CategoricalFeature("name"),
            buckets("price"),
            buckets("cost"),
            buckets("gap"),
        ),
    )
    assert proposal.notes["empty"] == "no value in 100 rows" and "timestamp" in proposal.notes["when"]
    assert proposal.notes["embedding"] == "vectors of 2 numbers, 12.0% missing"
    assert proposal.notes["as_text"] == "vectors of 3 numbers, joined by ','"
    assert "of 1 to 2 values; lists of" in proposal.notes["several"] and "struct" in proposal.notes["struct"]
    assert proposal.notes["session"] == (
        "of type extension<arrow.uuid>; numbers and texts are needed, such as its fields, or its text"
    )
    with pytest.raises(ValueError, match=r"column 'session' cannot be the label; .* it holds: extension<arrow\.uuid>"):
        infer_schema(table, label="session")
    assert prepare(proposal.schema, [str(tmp_path / "log.parquet")], str(tmp_path / "out")).rows("train") == n


@pytest.mark.parametrize("form", ["frame", "parquet", "csv"])
def test_infinite_numbers_stay_numbers(tmp_path, form):
    n = 100
    whole = [float(i % 5) for i in range(n)]
    data = {"y": [0, 1] * (n // 2), "price": [i / 7 for i in range(n)], "slot": whole, "rank": whole[:]}
    without = infer_schema(pa.table(data))
    data["price"][3], data["price"][4], data["slot"][5] = np.inf, -np.inf, np.inf
    given = table = pa.table(data)
    if form == "parquet":
        pq.write_table(table, given := str(tmp_path / "log.parquet"))
    elif form == "csv":
        given = write_csv(tmp_path / "log.csv", {k: [f"{v:g}" for v in column] for k, column in data.items()})
    proposal = infer_schema(given)
    assert proposal.schema == without.schema
    then = "of 100 rows: prepare stops at such rows, or sets them aside with bad_rows='quarantine'"
    assert proposal.notes["price"] == f"numbers from 0 to 14.1429; with fractions; infinite in 2 {then}"
    assert proposal.notes["slot"].endswith(f"; infinite in 1 {then}") and "infinite" not in proposal.notes["rank"]
    manifest = prepare(proposal.schema, given, str(tmp_path / "out"), bad_rows="quarantine")
    assert (manifest.rows("train"), manifest.bad_rows) == (n - 3, 3)


def test_names_are_made_of_letters_and_unlike_each_other(tmp_path):
    values = ["1", "2", "3", "4", "5"] * 20
    names = ["a-b", "a b", "1st", "label", "x", "x_missing", "größe"]
    data = {"y": ["0", "1"] * 50} | {name: values for name in names}
    data["x"] = ["", "1.5", "2", "3", "9"] * 20
    schema = infer_schema(write_csv(tmp_path / "log.csv", data), label="y").schema
    found = {f.column: f.name for f in without_buckets(schema)}
    assert [found[name] for name in names] == ["a_b", "a_b_2", "c_1st", "label_2", "x", "x_missing_2", "gr_e"]


def test_lines_that_are_no_rows_are_passed_over(tmp_path):
    path = write_csv(tmp_path / "log.csv", columns())
    expected = infer_schema(path).schema
    with open(path, "ab") as f:
        f.write(b'too,few\n"unclosed\n\n\xff,\xff\n1,1,20,\xe9,,,,,fr,,,\n')
    schema = infer_schema(path).schema
    assert schema.categorical == expected.categorical


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        (
            "1,2,3\n4,5,6\n",
            {},
            r"log\.csv: line 1 holds values such as '1', not the names of columns; give the names as",
        ),
        (
            "yes,news,u7\nno,news,u7\nyes,shop,u9\n",
            {},
            r"log\.csv: line 1 holds values, not the names of columns: 'yes', 'news', 'u7' occur below it in the same",
        ),
        ("25e83719,news\nfb9a,news\n3c4d,shop\n", {}, r"line 1 holds values such as '25e83719', not the names of col"),
        ("1,2,3\n4,5,6\n", {"columns": ["a", "b"]}, r"log\.csv: 2 columns are given, line 1 has 3 fields"),
        ("y,y\n1,2\n", {}, r"log\.csv: no column can be read: column 'y': the name occurs 2 times"),
        ("y,a\n1\n", {}, r"log\.csv: none of the first lines is a row of 2 fields: y, a"),
        ("y,a\n", {}, r"log\.csv: the file has a header but no rows"),
        ("\ny,a\n", {}, r"log\.csv: the first line is empty"),
        ("y,a\n1,5\n0,5\n", {}, r"log\.csv: no column can be a feature \(a: always '5'\)"),
    ],
)
def test_messages(tmp_path, content, arguments, message):
    (tmp_path / "log.csv").write_text(content)
    with pytest.raises(ValueError, match=message):
        infer_schema(str(tmp_path / "log.csv"), **arguments)


def test_a_header_may_come_again(tmp_path):
    """Files that were put together hold the header several times."""
    (tmp_path / "log.csv").write_text("y,site\n" + "yes,news\nno,shop\ny,site\n" * 40)
    assert infer_schema(str(tmp_path / "log.csv"), label="site", rows=2).schema.categorical[0].name == "y"


def test_adult(real_data):
    names = ["age", "workclass", "fnlwgt", "education", "education-num", "marital-status", "occupation", "relationship"]
    names += ["race", "sex", "capital-gain", "capital-loss", "hours-per-week", "native-country", "income"]
    schema = infer_schema(str(real_data / "adult" / "adult.data.gz"), label="income", columns=names).schema
    assert schema.label == Label("income", positive=(">50K",), negative=("<=50K",))
    assert schema.text == TextFormat(tuple(names), delimiter=",", missing=("?",), strip=True)
    assert [(f.column, f.transform) for f in schema.dense] == [
        ("age", "standardize"),
        ("fnlwgt", "standardize"),
        ("capital-gain", ("log1p", "standardize")),
        ("capital-loss", ("log1p", "standardize")),
        ("hours-per-week", "standardize"),
    ]
    rest = [n for n in names if n != "income" and n not in {f.column for f in schema.dense}]
    assert [f.column for f in without_buckets(schema)[5:]] == rest and "education_num" in {
        f.name for f in schema.categorical
    }


def test_anime(real_data, tmp_path):
    with zipfile.ZipFile(real_data / "anime" / "anime.zip") as archive:
        archive.extractall(tmp_path)
    ratings = infer_schema(str(tmp_path / "anime" / "anime_ratings.dat"), label="Feedback")
    assert ratings.schema.label == Label("Feedback", threshold=9)  # 34 % of the first 100,000; 8 or more would be 61 %
    assert ratings.schema.categorical == (
        CategoricalFeature("User_ID", "User_ID", dtype="int64", min_count=5, table="User_ID"),
        CategoricalFeature("Anime_ID", "Anime_ID", dtype="int64", min_count=5, table="Anime_ID"),
    )
    assert ratings.notes["Anime_ID"] == (
        "5,506 whole numbers: its name is that of ids or codes; those seen less than 5 times share a row"
    )
    titles = infer_schema(str(tmp_path / "anime" / "anime_info.dat"), label="rating")
    assert titles.kinds() == {
        "anime_ids": "left out",
        "name": "left out",
        "genre": "multi-valued",
        "type": "categorical",
        "episodes": "dense, log1p and standardize, buckets",
        "rating": "label",
        "members": "dense, log1p and standardize, buckets",
    }
    assert titles.schema.multi_hot[0].separator == ", " and titles.notes["genre"].startswith("43 values joined by ', '")


def test_numbers_whose_single_values_have_labels_of_their_own_get_more_buckets():
    """Amounts of which each is paid or never paid, beside counts whose label follows their size."""
    rng = np.random.default_rng(0)
    rows = 6000
    amounts = np.where(rng.random(rows) < 0.8, 0, 100 + 37 * rng.integers(0, 120, rows))
    counts = rng.geometric(0.02, rows)
    noise = rng.geometric(0.02, rows)
    logits = np.where(amounts == 0, -1.0, np.where(amounts // 37 % 2 == 0, 2.5, -2.5)) + 0.02 * (counts - 50)
    clicked = (rng.random(rows) < 1 / (1 + np.exp(-logits))).astype(int)
    log = pa.table({"clicked": clicked, "amount": amounts, "visits": counts, "count": noise})
    proposal = infer_schema(log, label="clicked")
    buckets = {f.column: f.buckets for f in proposal.schema.categorical if f.encoding == "buckets"}
    assert buckets == {"amount": 256, "visits": 32, "count": 32}
    assert "256 buckets because single values have labels of their own" in proposal.notes["amount"]
    assert "buckets because" not in proposal.notes["visits"] + proposal.notes["count"]
