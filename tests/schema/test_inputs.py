"""What a schema fills in for times, buckets and crosses; which inputs features share; and what it refuses."""

import json

import pytest

from tfrs_dlrm.schema import CategoricalFeature, DenseFeature, Label, Schema, Table, Time

BASE = {
    "label": {"column": "y"},
    "dense": [
        {"name": "price", "unit": "$"},
        {"name": "age", "column": "t s", "time": {"parts": ["days"], "format": "%y%m%d%H"}},
    ],
    "categorical": [
        {"name": "ts", "column": "t s", "time": {"parts": ["hour", "days"], "format": "%y%m%d%H"}, "min_count": 1},
        {"name": "price_bucket", "column": "price", "encoding": "buckets", "buckets": 4},
        {"name": "spend_log", "column": "spend", "encoding": "buckets", "buckets": "log2"},
        {"name": "spend_step", "column": "spend", "encoding": "buckets", "edges": [1, 2.5]},
        {"name": "site"},
        {"cross": ["ts_hour", "site"]},
    ],
}


def test_what_it_fills_in():
    schema = Schema.from_json(json.dumps(BASE))
    assert Schema.from_json(schema.to_json()) == schema
    assert [f.name for f in schema.categorical] == [
        *("ts_hour", "ts_days", "price_bucket", "spend_log", "spend_step", "site", "ts_hour_x_site")
    ]
    assert [f.encoding for f in schema.categorical[:2]] == ["time", "buckets"]
    assert {t.name: t.vocabulary_size for t in schema.tables if t.vocabulary_size} == {"ts_hour": 25}
    found = [(i.name, i.column, i.dtype, i.features) for i in schema.inputs]
    assert found == [
        ("price", "price", "float32", ("price", "price_bucket")),
        ("ts", "t s", "string", ("age", "ts_hour", "ts_days")),
        ("spend_log", "spend", "float32", ("spend_log", "spend_step")),
        ("site", "site", "string", ("site",)),
    ]
    assert schema.feature_columns == ("price", "t s", "spend", "site")
    assert schema.notations["price"].unit == "$" and schema.categorical[2].unit == "$"
    assert {i.name for i in schema.inputs_of("ts_hour_x_site")} == {"ts", "site"}


def test_a_selected_cross_keeps_its_members():
    schema = Schema.from_json(json.dumps(BASE)).select(["ts_hour_x_site", "site"])
    assert [f.name for f in schema.members] == ["ts_hour"] and [t.name for t in schema.tables] == [
        *("site", "ts_hour_x_site")
    ]
    assert [i.name for i in schema.inputs] == ["site", "ts"]
    assert schema.select(["ts_hour_x_site"]).select(["ts_hour_x_site"]) == schema.select(["ts_hour_x_site"])
    assert Schema.from_json(schema.to_json()) == schema
    member = CategoricalFeature("hour", column="h", encoding="hash")
    alone = Schema(
        Label("y"),
        categorical=(CategoricalFeature("site"), CategoricalFeature(cross=("hour", "site"))),
        members=(member,),
    )
    assert [i.name for i in alone.inputs] == ["site", "hour"] and [t.name for t in alone.tables] == [
        *("site", "hour_x_site")
    ]


def test_an_epoch_is_a_whole_number_and_inputs_may_have_names():
    time = Time(("hour", "weekday"), "epoch_seconds")
    schema = Schema(
        Label("y"),
        dense=(DenseFeature("x", input="number"),),
        categorical=(
            CategoricalFeature("ts", time=time, input="when"),
            CategoricalFeature("x_bucket", column="x", encoding="buckets", buckets=3),
            CategoricalFeature("hour", column="ts", encoding="time", time=Time(("hour",), "epoch_seconds")),
        ),
    )
    assert [(i.name, i.dtype, i.features) for i in schema.inputs] == [
        ("number", "float32", ("x", "x_bucket")),
        ("when", "int64", ("ts_hour", "ts_weekday", "hour")),
    ]


def time(**fields):
    return [{"name": "ts", "time": {"parts": ["hour"]} | fields}]


def buckets(**fields):
    return [{"name": "b", "encoding": "buckets"} | fields]


def cross(**fields):
    return [
        *({"name": "a"}, {"name": "b"}, {"name": "m", "separator": "|"}),
        {"name": "q", "encoding": "buckets", "buckets": 3},
        {"name": "c", "cross": ["a", "b"]} | fields,
    ]


@pytest.mark.parametrize(
    ("categorical", "message"),
    [
        (time(parts=[]), "feature 'ts': time has no parts; choose among hour, weekday, day, month, days"),
        (time(parts=["hours"]), r"time.parts\[0\]: \"hours\" is not \"hour\" or"),
        (time(parts=["hour", "hour"]), "time part 'hour' is listed 2 times"),
        (time(format="iso"), "no time format 'iso'"),
        (time(format="%Y-%q"), "%q in the time format '%Y-%q' is not one of %Y, %y"),
        (time(format="%Y-%m-%d"), "the time format '%Y-%m-%d' does not say the hour"),
        (time(format="%H:%M", parts=["weekday"]), "does not say the year or the month or the day"),
        (time(format="%H%H"), "%H stands 2 times"),
        (
            time(format="%H:%M %p"),
            "%I and %p .AM or PM. belong together, and '%H:%M %p' has one of them; %H is an hour of 24",
        ),
        (time(format="%H:%I %p"), "%H and %I are both in '%H:%I %p'; one hour is needed"),
        (time(parts=["days"], origin="March"), "the origin 'March' is no date such as 2026-01-01"),
        ([{"name": "ts", "encoding": "hash", "time": {"parts": ["hour"]}}], "encoding 'hash' with time; drop"),
        ([{"name": "h", "encoding": "time"}], "encoding 'time' needs time, with one part"),
        (buckets(), "encoding 'buckets' needs either buckets, such as 64 or 'log2', or edges"),
        (buckets(buckets=4, edges=[1]), "needs either buckets"),
        (buckets(buckets=1), "buckets=1 is outside 2 to 4096"),
        (buckets(buckets="log10"), r"buckets: \"log10\" is not int or \"log2\" or null"),
        (buckets(edges=[2, 1]), r"edges=\[2.0, 1.0\] are not finite and rising"),
        (buckets(buckets=4, out_of_range="clip"), "a missing value has row 0"),
        (buckets(buckets=4, separator="|"), "takes one value; drop separator"),
        ([{"name": "v", "buckets": 4}], "buckets and edges belong to encoding 'buckets', not 'vocabulary'"),
        ([{"name": "v", "unit": "$"}], "belong to encoding 'buckets'"),
        (buckets(buckets=4) + [{"name": "b2", "encoding": "buckets", "buckets": 4, "table": "b"}], "table of its own"),
        (cross(cross=["a"]), r"cross=\['a'\]; 2 or 3 different features are needed"),
        (cross(cross=["a", "a"]), "different features are needed"),
        (cross(cross=["a", "bb"]), "no categorical feature 'bb' to cross; did you mean 'b'"),
        (cross(cross=["a", "m"]), "'m' has several values; a cross takes one-valued features"),
        (cross(cross=["a", "q"]), "counted before the edges of 'q' are known; give 'q' edges, or make the cross"),
        (cross(column="x"), "a cross has name, cross, encoding, min_count"),
        (cross(encoding="ids"), "encoding 'ids'; a cross is hashed"),
        ([{"name": "b", "serving_value": "x"}, {"name": "a"}], "serving_value='x' belongs to training_only=true"),
        (
            [{"name": "b", "training_only": True, "serving_value": 1, "dtype": "string"}, {"name": "a"}],
            "serving_value=1.0; a text is needed, or null for a missing value",
        ),
        ([{"name": "b", "training_only": True, "separator": "|"}, {"name": "a"}], "needs one value, and it is multi"),
        ([{"name": "b", "training_only": True}, {"name": "a", "column": "b"}], "reads column 'b', which requests lack"),
        ([{"name": "b", "column": "x", "input": "a"}, {"name": "a"}], "features 'b' and 'a' both take the input 'a'"),
        ([{"name": "ts"}, *time(), {"name": "t2"}], "'ts' and 'ts_hour' both take the input 'ts' but read it in two"),
    ],
)
def test_messages_name_the_field(categorical, message):
    with pytest.raises(ValueError, match=message):
        Schema.from_json(json.dumps({"label": {"column": "y"}, "categorical": categorical}))


def test_messages_of_dense_features_and_members():
    label, site = Label("y"), CategoricalFeature("site")
    with pytest.raises(ValueError, match=r"transform=\['standardize', 'log1p'\]; a list is \['log1p', 'standardize'\]"):
        Schema(label, dense=(DenseFeature("x", transform=["standardize", "log1p"]),))
    with pytest.raises(ValueError, match=r"time parts \['hour'\]; a number is \['days'\] alone"):
        Schema(label, dense=(DenseFeature("x", time=Time(("hour",))),))
    with pytest.raises(ValueError, match="member 'site': no cross reads it"):
        Schema(label, dense=(DenseFeature("x"),), members=(site,))
    bucket = CategoricalFeature("b", "x", "buckets", edges=(1,), training_only=True, serving_value=2)
    with pytest.raises(
        ValueError, match=r"'x' and 'b' read one .* training_only=false and training_only=true, serving_"
    ):
        Schema(label, dense=(DenseFeature("x"),), categorical=(site, bucket))
    days = DenseFeature("x", time=Time(("days",)), transform=("log1p", "standardize"))
    with pytest.raises(ValueError, match="give time an origin"):
        Schema(label, dense=(days,))
    with pytest.raises(ValueError, match="encoding 'hash' needs the size of its table"):
        Schema(label, categorical=(site, CategoricalFeature(cross=("site", "site2"), encoding="hash")), members=(
            CategoricalFeature("site2"),), tables=(Table("site", vocabulary_size=3),))  # fmt: skip


def test_vectors():
    schema = Schema(
        Label("y"),
        dense=(
            DenseFeature("price"),
            DenseFeature("title", size=3, separator="|", indicator=True),
            DenseFeature("image", size=2, projected=True),
        ),
    )
    assert Schema.from_json(schema.to_json()) == schema
    assert schema.dense_columns == (*("price", "title_0", "title_1", "title_2", "title_missing", "image_0", "image_1"),)
    assert (schema.dense_width, schema.unprojected_width) == (7, 5)
    assert [(i.name, i.dtype, i.is_list, i.size) for i in schema.inputs] == [
        *(("price", "float32", False, None), ("title", "float32", True, 3), ("image", "float32", True, 2)),
    ]


@pytest.mark.parametrize(
    ("dense", "message"),
    [
        ([{"name": "v", "size": 0}], "size=0 is outside 1 to 16384"),
        ([{"name": "v", "separator": "|"}], "is between the numbers of a vector; give its size"),
        ([{"name": "v", "projected": True}], "projected=true is for vectors; give its size"),
        ([{"name": "v", "size": 2, "decimal": ","}], "',' is both between numbers and within them; give another"),
        ([{"name": "v", "size": 2, "time": {"parts": ["days"]}}], "a time is one number: drop size"),
        ([{"name": "v", "size": 2}, {"name": "v_1"}], "feature 'v_1' is listed 2 times"),
        ([{"name": "v", "size": 2, "training_only": True}], "it is a vector of 2; drop training_only"),
        (
            [{"name": "v", "size": 2}, {"name": "w", "column": "v", "input": "v", "size": 3}],
            r"column 'v' as vectors of 2 numbers, and column 'v' as vectors of 3 numbers",
        ),
    ],
)
def test_refuses_vectors(dense, message):
    with pytest.raises(ValueError, match=message):
        Schema.from_json(json.dumps({"label": {"column": "y"}, "dense": dense, "categorical": [{"name": "site"}]}))
