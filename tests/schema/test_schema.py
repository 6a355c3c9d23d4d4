"""The schema: JSON round trip, what it derives, and messages that name the field."""

import json

import pytest

from tfrs_dlrm.schema import CategoricalFeature, DenseFeature, Label, Schema, Table, TextFormat, difference

FULL = Schema(
    label=Label("outcome", positive=("yes", "y"), negative=("no",)),
    dense=(
        DenseFeature("price", column="Price (EUR)", transform="log1p", fill_value="mean", indicator=True),
        DenseFeature("age", transform="standardize", fill_value=None),
    ),
    categorical=(
        CategoricalFeature("site", min_count=5, max_size=1000),
        CategoricalFeature("slot", encoding="ids", dtype="int64", out_of_range="clip"),
        CategoricalFeature("tags", separator="|", weights="tag_weights", encoding="hash", table="words"),
        CategoricalFeature("query", multi_valued=True, encoding="hash", out_of_range="hash", table="words"),
    ),
    tables=(
        Table("words", dim=8, vocabulary_size=100, combiner="sqrtn", initializer="normal", scale=0.5),
        Table("slot", vocabulary_size=7),
    ),
    weight="importance",
    text=TextFormat(delimiter=";", missing=("?", "NA"), strip=True),
)


def test_json_holds_every_field(tmp_path):
    FULL.save(tmp_path / "schema.json")
    assert Schema.load(tmp_path / "schema.json") == FULL
    assert [p.name for p in tmp_path.iterdir()] == ["schema.json"]
    words = next(t for t in json.loads(FULL.to_json())["tables"] if t["name"] == "words")
    expected = {
        "name": "words",
        "dim": 8,
        "vocabulary_size": 100,
        "combiner": "sqrtn",
        "initializer": "normal",
        "scale": 0.5,
    }
    assert words == expected


def test_json_by_hand():
    schema = Schema.from_json('{"label": {"column": "y"}, "categorical": [{"name": "site"}]}')
    assert schema == Schema(Label("y"), categorical=(CategoricalFeature("site"),))
    assert schema.tables == (Table("site"),)
    assert json.loads(schema.to_json()) == {
        "label": {"column": "y"},
        "categorical": [{"name": "site", "column": "site", "table": "site"}],
        "tables": [{"name": "site"}],
    }


def test_a_feature_is_taken_out_with_its_table():
    stores = (Table("words", dim=8, stored_in="store"), Table("store", dim=4, vocabulary_size=9))
    features = (CategoricalFeature("site"), CategoricalFeature("tags", table="words"))
    plain = json.loads(Schema(Label("y"), categorical=features, tables=stores).to_json())
    assert len(plain["tables"]) == 3
    plain["categorical"] = [f for f in plain["categorical"] if f["name"] == "site"]
    assert Schema.from_json(json.dumps(plain)) == Schema(Label("y"), categorical=features[:1])


def test_what_it_derives():
    assert FULL.dense_columns == ("price", "price_missing", "age") and FULL.dense_width == 3
    assert [f.name for f in FULL.one_hot] == ["site", "slot"]
    assert [f.name for f in FULL.multi_hot] == ["tags", "query"]
    assert FULL.feature_columns == ("Price (EUR)", "age", "site", "slot", "tags", "tag_weights", "query")
    assert FULL.columns == ("outcome", "importance", *FULL.feature_columns)
    assert [t.name for t in FULL.tables] == ["words", "slot", "site"]  # those listed first, then those implied
    assert FULL.table_of(FULL.categorical[3]) == FULL.tables[0]
    assert FULL.with_vocabulary_sizes({"site": 9}).table("site") == Table("site", vocabulary_size=9)
    assert {t.dim for t in FULL.with_dim(32).tables} == {32}
    with pytest.raises(KeyError, match="no table 'site2'"):
        FULL.table("site2")


def test_difference_names_what_changed():
    assert difference(FULL, FULL) == ""
    assert difference(FULL, FULL.with_vocabulary_sizes({"slot": 8})) == "table 'slot' vocabulary_size: 7 != 8"


BASE = {"label": {"column": "y"}, "dense": [{"name": "d"}], "categorical": [{"name": "c"}]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lable": 1}, r"schema: unknown field 'lable'; known are label, dense, categorical"),
        ({"label": {}}, r"schema.label: field 'column' is missing"),
        ({"label": {"column": ""}}, "label: column is empty"),
        ({"label": {"column": "y", "threshold": 3, "positive": ["a"], "negative": ["b"]}}, "either threshold or"),
        ({"label": {"column": "y", "positive": ["a"]}}, "positive and negative go together"),
        ({"label": {"column": "y", "positive": ["a"], "negative": ["a"]}}, r"\['a'\] are listed as positive and"),
        ({"label": {"column": "y", "threshold": float("inf")}}, "label: threshold=inf is not finite"),
        ({"dense": {"name": "d"}}, "schema.dense: a list is expected"),
        (
            {"dense": [{"name": "d", "fill_value": "median"}]},
            r"dense\['d'\].fill_value: \"median\" is not float or",
        ),
        ({"dense": [{"name": "d", "fill_value": float("nan")}]}, "feature 'd': fill_value=nan is not finite"),
        ({"dense": [{"name": "d", "fill_value": None, "indicator": True}]}, "feature 'd': indicator=true never sees"),
        ({"dense": [{"name": "d", "transform": "log"}]}, r"\['d'\].transform: \"log\" is not \"none\" or \"log1p\" or"),
        ({"dense": [{"name": "a b"}]}, "feature 'a b': names are letters.*say name='a_b' and give the log's name"),
        ({"dense": [{"name": "c"}]}, "feature 'c' is listed 2 times"),
        ({"dense": [{"name": "e", "indicator": True}, {"name": "e_missing"}]}, "'e_missing' is listed 2 times"),
        ({"dense": [{"name": "ids"}]}, "feature 'ids': dense, ids, label, weight are reserved"),
        ({"dense": [], "categorical": []}, "the schema has no features"),
        ({"categorical": [{"name": "c", "min_count": "5"}]}, r"schema.categorical\['c'\].min_count: \"5\" is not int"),
        ({"categorical": [{"name": "c", "min_count": 0}]}, "feature 'c': min_count=0; at least 1"),
        ({"categorical": [{"name": "c", "max_size": 0}]}, "feature 'c': max_size=0; at least 1"),
        ({"categorical": [{"name": "c", "encoding": "hash"}]}, "set vocabulary_size of table 'c'"),
        (
            {"categorical": [{"name": "c", "out_of_range": "clip"}]},
            "'c': out_of_range='clip'.*only encoding 'ids'",
        ),
        ({"categorical": [{"name": "c", "weights": "w"}]}, "feature 'c': weights='w' needs a multi-valued feature"),
        ({"categorical": [{"name": "c", "separator": ""}]}, "feature 'c': separator is empty"),
        (
            {"categorical": [{"name": "c", "encoding": "ids"}], "tables": [{"name": "c", "vocabulary_size": 5}]},
            "feature 'c': encoding 'ids' reads numbers; set dtype='int64'",
        ),
        (
            {
                "categorical": [{"name": "c", "encoding": "hash", "min_count": 2}],
                "tables": [{"name": "c", "vocabulary_size": 5}],
            },
            "feature 'c': min_count and max_size belong to encoding 'vocabulary'",
        ),
        (
            {"categorical": [{"name": "c"}, {"name": "e", "min_count": 3, "table": "c"}]},
            r"table 'c': its features 'c', 'e' differ in min_count \(\['1', '3'\]\)",
        ),
        ({"tables": [{"name": "t", "dim": 8}]}, "table 't': no feature uses it"),  # it may be table c, misspelt
        ({"tables": [{"name": "c", "dim": 0}]}, "table 'c': dim=0"),
        (
            {"tables": [{"name": "c", "vocabulary_size": 2**31}]},
            "table 'c': vocabulary_size=2147483648 is outside 1 to 2147483647",
        ),
        ({"tables": [{"name": "c", "scale": float("nan")}]}, "table 'c': scale=nan; a positive number"),
        ({"tables": [{"name": "c", "combiner": "max"}]}, r"schema.tables\['c'\].combiner: \"max\" is not \"sum\" or"),
        ({"text": {"delimiter": "||"}}, r"text: delimiter='\|\|'; one character"),
        ({"text": {"columns": ["y", "d", "c", "d"]}}, "text: column 'd' is listed 2 times"),
        ({"text": {"quote": "''"}}, r"text: quote=\"''\"; one character other than the delimiter is needed, or none"),
        ({"text": {"quote": ";", "delimiter": ";"}}, "text: quote=';'; one character other than the delimiter"),
        (
            {"categorical": [{"name": "c", "multi_valued": True}], "text": {"columns": ["y", "d", "c"]}},
            "feature 'c': text files have no list columns",
        ),
    ],
)
def test_messages_name_the_field(change, message):
    with pytest.raises(ValueError, match=message):
        Schema.from_json(json.dumps({**BASE, **change}))


def test_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no schema at .*none\.json; tfrs-dlrm infer proposes one"):
        Schema.load(tmp_path / "none.json")
    (tmp_path / "a.json").write_text('{"label": ')
    with pytest.raises(ValueError, match=r"a\.json: not valid JSON: .*line 1"):
        Schema.load(tmp_path / "a.json")


def test_mixed_dimensions_by_hand():
    """dim / (rows / least rows) ** 0.5: 16 / 1, 16 / 4, 16 / 20 (nearest power: 1), 16 / 5.7 (2.8: 2 to the 1.49)."""
    features = tuple(CategoricalFeature(n) for n in ("a", "b", "c", "d"))
    rows = {"a": 100, "b": 1600, "c": 40_000, "d": 3249}
    schema = Schema(Label("y"), categorical=features, tables=tuple(Table(n, 4, r) for n, r in rows.items()))
    assert [t.dim for t in schema.with_mixed_dims(16, 0.5).tables] == [16, 4, 1, 2]
    assert [t.dim for t in schema.with_mixed_dims(16, 0.0).tables] == [16] * 4
    with pytest.raises(ValueError, match=r"dim=12, temperature=0.5: a power of 2"):
        schema.with_mixed_dims(12, 0.5)
    with pytest.raises(ValueError, match=r"tables \['e'\] have no vocabulary_size yet.*fit_encoder\(...\).schema"):
        Schema(Label("y"), categorical=(CategoricalFeature("e"),)).with_mixed_dims(16, 0.5)


def test_with_dim_leaves_the_store_of_other_tables_alone():
    tables = Table("a", 8, 100, stored_in="all"), Table("all", 4, 50)
    schema = Schema(Label("y"), categorical=(CategoricalFeature("a"),), tables=tables)
    assert [t.dim for t in schema.with_dim(16).tables] == [16, 4]
    assert Schema.from_json(schema.to_json()) == schema
