"""Raw values to rows and floats: by hand, and against a dictionary in Python for every combination of settings."""

import gc
import json
import math
import os

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import tensorflow as tf
import tf_keras as keras

from tfrs_dlrm.data.encoding.encoder import Encoder
from tfrs_dlrm.schema import CategoricalFeature, DenseFeature, Label, Schema, Table, TextFormat

TEXT = TextFormat(missing=("?",), strip=True)
VOCABULARY = {"string": ["b", "a", "<missing>", "x y"], "int64": ["7", "<missing>", "12", "-3"]}
TOO_LARGE = 10**12
VALUES = {"string": ["a", " b ", "new", "", "?", "x y", "A"], "int64": [7, 12, 5, -1, -3, TOO_LARGE, 9]}
ROWS = 10


def build(directory, schema, vocabularies=None, statistics=None):
    (directory / "vocabulary").mkdir()
    for table, values in (vocabularies or {}).items():
        (directory / "vocabulary" / f"{table}.txt").write_text("".join(f"{v}\n" for v in values))
    (directory / "statistics.json").write_text(json.dumps({"dense": statistics or {}}))
    return Encoder(schema, str(directory))


def row_of(value, encoding, out_of_range, vocabulary):
    """The row of a single value, and whether it is its own; independent of the encoder but for the hash function."""
    text = "<missing>" if value == -1 or str(value).strip() in ("", "?") else str(value).strip()
    rows = len(vocabulary) + 1 if encoding == "vocabulary" else ROWS
    hashed = int(tf.strings.to_hash_bucket_fast([text], rows)[0])
    if encoding == "hash":
        return hashed, True
    if encoding == "ids":
        number = int(text) if text != "<missing>" else -1
        if 0 <= number < ROWS:
            return number, True
        # Missing is the number -1 for `ids`, in text too.
        hashed = int(tf.strings.to_hash_bucket_fast([str(number)], rows)[0])
        return {"clip": min(max(number, 0), ROWS - 1), "hash": hashed}.get(out_of_range, 0), False
    own = {v: i + 1 for i, v in enumerate(vocabulary)}
    return (own[text], True) if text in own else ({"hash": hashed}.get(out_of_range, 0), False)


def test_a_missing_text_may_be_a_number_although_no_value_of_the_vocabulary_is(tmp_path):
    text = TextFormat(missing=("999",))
    features = (CategoricalFeature("a"), CategoricalFeature("b", out_of_range="hash", table="a"))
    schema = Schema(Label("y"), categorical=features, tables=(Table("a", vocabulary_size=4),), text=text)
    encoder = build(tmp_path, schema, {"a": ["x", "<missing>", "y"]})
    values = tf.constant(["999", "999.0", "", "y"])
    assert encoder.encode({"a": values, "b": values})["ids"].numpy().tolist() == [[2, 2], [2, 2], [2, 2], [3, 3]]


@pytest.mark.parametrize("in_graph", [False, True])
def test_by_hand(tmp_path, in_graph):
    schema = Schema(
        Label("y"),
        dense=(DenseFeature("price", transform="log1p"),),
        categorical=(
            CategoricalFeature("site"),
            CategoricalFeature("slot", encoding="ids", dtype="int64"),
            CategoricalFeature("word", encoding="hash"),
            CategoricalFeature("tags", separator="|", weights="w", table="site"),
        ),
        tables=(Table("site", vocabulary_size=4), Table("slot", vocabulary_size=10), Table("word", vocabulary_size=3)),
    )
    encoder = build(tmp_path, schema, {"site": ["b", "a", "<missing>"]})
    call = tf.function(encoder.__call__, input_signature=[encoder.signature()]) if in_graph else encoder
    encoded = call(
        {
            "price": tf.constant([math.e - 1, math.nan, -5.0]),
            "site": tf.constant(["a", "c", ""]),
            "slot": tf.constant([9, 10, 0], tf.int64),
            "word": tf.constant(["Hello", "TensorFlow", "2.x"]),  # the example of TensorFlow's documentation: 0, 2, 2
            "tags": tf.constant(["b|a||c", "", "b"]),
            "tags_weights": tf.constant(["1|0.5|9| 2", "", "-1e1"]),
        }
    )
    np.testing.assert_allclose(encoded["dense"], [[1], [0], [0]], atol=1e-7)
    assert encoded["ids"].numpy().tolist() == [[2, 9, 0], [0, 0, 2], [3, 0, 2]]
    assert encoded["tags"].to_list() == [[1, 2, 0], [], [1]]
    assert encoded["tags_weights"].to_list() == [[1, 0.5, 2], [], [-10]]
    assert {k: v.dtype for k, v in encoded.items()} == {
        "dense": tf.float32,
        "ids": tf.int32,
        "tags": tf.int32,
        "tags_weights": tf.float32,
    }


SETTINGS = [
    (encoding, dtype, out_of_range)
    for encoding in ("vocabulary", "hash", "ids")
    for dtype in ("string", "int64")
    for out_of_range in ("oov", "hash", "clip", "error")
    if not (encoding == "ids" and dtype == "string") and not (out_of_range == "clip" and encoding != "ids")
]


@pytest.mark.parametrize(("encoding", "dtype", "out_of_range"), SETTINGS)
def test_every_setting_in_every_form(tmp_path, encoding, dtype, out_of_range):
    def feature(name, **kwargs):
        return CategoricalFeature(name, encoding=encoding, dtype=dtype, out_of_range=out_of_range, table="t", **kwargs)

    forms = (
        feature("one"),
        feature("split", separator=", "),
        feature("weighted", separator="|", weights="w"),
        feature("listed", multi_valued=True),
        feature("listed_weighted", multi_valued=True, weights="v"),
    )
    vocabulary = VOCABULARY[dtype]
    rows = len(vocabulary) + 1 if encoding == "vocabulary" else ROWS
    schema = Schema(Label("y"), categorical=forms, tables=(Table("t", vocabulary_size=rows),), text=TEXT)
    encoder = build(tmp_path, schema, {"t": vocabulary} if encoding == "vocabulary" else {})

    known = {v: row_of(v, encoding, out_of_range, vocabulary) for v in VALUES[dtype]}
    values = [v for v in VALUES[dtype] if known[v][1] or out_of_range != "error"]
    fill = "" if dtype == "string" else -1
    several = [[], [values[0]], values, values[::-1] + values[:2]]
    several += [[]] * (len(values) - len(several))
    weights = [[0.5 * (i + 1) for i in range(len(row))] for row in several]
    width = max(map(len, several))
    padded = [row + [fill] * (width - len(row)) for row in several]
    padded_weights = [row + [0.0] * (width - len(row)) for row in weights]
    as_text = ["" if v == -1 else str(v) for v in values] if dtype == "int64" else values
    texts = [[as_text[values.index(v)] for v in row] for row in several]
    raw = {
        "one": values,
        "split": [", ".join(row) for row in texts],
        "weighted": ["|".join(row) for row in texts],
        "weighted_weights": ["|".join(map(str, row)) for row in weights],
        "listed": padded,
        "listed_weighted": padded,
        "listed_weighted_weights": padded_weights,
    }
    signature = encoder.signature()
    assert set(raw) == set(signature)
    raw = {k: tf.constant(v, signature[k].dtype) for k, v in raw.items()}
    encoded = encoder(raw)

    assert encoded["ids"].numpy().tolist() == [[known[v][0]] for v in values]
    missing = {v for v in values if v in ("", "?", -1)}
    kept = [
        [(v, w) for v, w in zip(a, b, strict=True) if v not in missing] for a, b in zip(several, weights, strict=True)
    ]
    for name in ("split", "weighted", "listed", "listed_weighted"):
        assert encoded[name].to_list() == [[known[v][0] for v, _ in row] for row in kept], name
    for name in ("weighted", "listed_weighted"):
        assert encoded[f"{name}_weights"].to_list() == [[w for _, w in row] for row in kept], name
    for value, (row, own) in known.items():
        got = encoder.rows(forms[0], tf.constant([value], signature["one"].dtype))
        assert [int(got[0][0]), bool(got[1][0])] == [row, own], value


@pytest.mark.parametrize("in_graph", [False, True])
@pytest.mark.parametrize(("encoding", "value"), [("vocabulary", "12"), ("ids", "12"), ("ids", "-1")])
def test_error_names_feature_and_value(tmp_path, in_graph, encoding, value):
    one = CategoricalFeature("slot", encoding=encoding, dtype="int64", out_of_range="error")
    many = CategoricalFeature("slots", encoding=encoding, dtype="int64", out_of_range="error", separator=" ")
    table_rows = {"slot": 2, "slots": 2} if encoding == "vocabulary" else {"slot": 10, "slots": 10}
    tables = tuple(Table(name, vocabulary_size=rows) for name, rows in table_rows.items())
    encoder = build(
        tmp_path, Schema(Label("y"), categorical=(one, many), tables=tables), {"slot": ["7"], "slots": ["7"]}
    )
    call = tf.function(encoder.__call__) if in_graph else encoder
    assert call({"slot": tf.constant([7], tf.int64), "slots": tf.constant(["7 7"])})["slots"].shape[0] == 1
    with pytest.raises(tf.errors.InvalidArgumentError, match=rf"slot.*: no row for value(?s:.*){value}"):
        call({"slot": tf.constant([7, int(value)], tf.int64), "slots": tf.constant(["7", "7"])})
    if value != "-1":  # a missing value is no value where there may be several
        with pytest.raises(tf.errors.InvalidArgumentError, match=rf"slots.*: no row for value(?s:.*){value}"):
            call({"slot": tf.constant([7], tf.int64), "slots": tf.constant([f"7 {value}"])})


def test_weights_that_do_not_fit_their_values(tmp_path):
    tags = CategoricalFeature("tags", separator="|", weights="w", encoding="hash")
    encoder = build(tmp_path, Schema(Label("y"), categorical=(tags,), tables=(Table("tags", vocabulary_size=5),)))
    with pytest.raises(tf.errors.InvalidArgumentError, match="feature 'tags': not as many weights as values"):
        encoder({"tags": tf.constant(["a|b"]), "tags_weights": tf.constant(["1"])})


@pytest.mark.parametrize("transform", ["none", "log1p", "standardize"])
@pytest.mark.parametrize(
    ("fill_value", "indicator"),
    [(0.0, False), (0.0, True), (3.0, True), (-2.0, False), ("mean", False), ("mean", True), (None, False)],
)
def test_dense(tmp_path, transform, fill_value, indicator):
    mean, std = 4.0, 2.5
    feature = DenseFeature("d", transform=transform, fill_value=fill_value, indicator=indicator)
    schema = Schema(Label("y"), dense=(DenseFeature("before"), feature))
    encoder = build(tmp_path, schema, statistics={"d": {"count": 9, "mean": mean, "std": std}})
    raw = np.array([0, 1.5, -0.5, -7, 1e6, np.nan, np.inf, -np.inf], np.float32)
    if fill_value is None:
        with pytest.raises(tf.errors.InvalidArgumentError, match="feature 'd': a value is missing or not finite"):
            encoder({"before": tf.constant(raw), "d": tf.constant(raw)})
        raw = raw[:5]
    encoded = encoder({"before": tf.zeros(len(raw)), "d": tf.constant(raw)})["dense"].numpy()

    x = np.where(np.isfinite(raw), raw, mean if fill_value == "mean" else fill_value or 0).astype(np.float64)
    if transform == "log1p":
        x = np.log1p(np.maximum(x, 0))
    elif transform == "standardize":
        x = (x - mean) / std
    np.testing.assert_allclose(encoded[:, 1], x, rtol=1e-6)
    assert encoded.shape == (len(raw), 3 if indicator else 2) and np.isfinite(encoded).all()
    if indicator:
        np.testing.assert_array_equal(encoded[:, 2], ~np.isfinite(raw))


def test_a_number_that_never_varies_is_encoded_as_zero(tmp_path):
    schema = Schema(Label("y"), dense=(DenseFeature("d", transform="standardize"),))
    encoder = build(tmp_path, schema, statistics={"d": {"count": 9, "mean": 1e6, "std": 1e-9}})
    assert encoder({"d": tf.constant([1e6, 5.0])})["dense"].numpy().tolist() == [[0], [0]]


@pytest.mark.parametrize("batch", [0, 1])
def test_small_batches(tmp_path, batch):
    schema = Schema(
        Label("y"),
        dense=(DenseFeature("d"),),
        categorical=(CategoricalFeature("c"), CategoricalFeature("m", separator="|", table="c")),
    ).with_vocabulary_sizes({"c": 2})
    encoder = build(tmp_path, schema, {"c": ["a"]})
    encoded = encoder({"d": tf.ones(batch), "c": tf.fill([batch], "a"), "m": tf.fill([batch], "a|a")})
    assert encoded["dense"].shape == (batch, 1) and encoded["ids"].numpy().tolist() == [[1]] * batch
    assert encoded["m"].to_list() == [[1, 1]] * batch


def test_a_directory_that_is_prepared_again_has_the_new_vocabulary(tmp_path):
    """TensorFlow would keep the lines of the first file of a path as long as the process lives."""
    schema = Schema(Label("y"), (), (CategoricalFeature("site"),), (Table("site", vocabulary_size=3),))
    first = build(tmp_path, schema, {"site": ["a", "b"]})
    (tmp_path / "vocabulary" / "site.txt").write_text("b\na\n")
    second = Encoder(schema, str(tmp_path))
    raw = {"site": tf.constant(["a", "b"])}
    assert first(raw)["ids"].numpy().tolist() == [[1], [2]]
    assert second(raw)["ids"].numpy().tolist() == [[2], [1]]


def test_a_directory_that_does_not_fit(tmp_path):
    schema = Schema(Label("y"), dense=(DenseFeature("d", fill_value="mean"),), categorical=(CategoricalFeature("c"),))
    with pytest.raises(ValueError, match=r"statistics\.json: no statistics of feature 'd'"):
        build(tmp_path, schema)
    (tmp_path / "statistics.json").write_text('{"dense": {"d": {"count": 1, "mean": 0, "std": 1}}}')
    with pytest.raises(ValueError, match="table 'c': vocabulary_size is not set"):
        Encoder(schema, str(tmp_path))
    schema = schema.with_vocabulary_sizes({"c": 3})
    with pytest.raises(FileNotFoundError, match=r"table 'c': no vocabulary at .*c\.txt; is .* a prepared directory"):
        Encoder(schema, str(tmp_path))
    (tmp_path / "vocabulary" / "c.txt").write_text("a\n")
    with pytest.raises(ValueError, match=r"c\.txt: 1 values, but table 'c' has 3 rows"):
        Encoder(schema, str(tmp_path))
    (tmp_path / "vocabulary" / "c.txt").write_text("")
    with pytest.raises(ValueError, match=r"c\.txt: the vocabulary is empty"):
        Encoder(schema, str(tmp_path))


LAYER_SCHEMA = Schema(
    Label("y"),
    dense=(DenseFeature("price", transform="standardize", indicator=True),),
    categorical=(
        CategoricalFeature("site"),
        CategoricalFeature("slot", column="s", encoding="ids", dtype="int64"),
        CategoricalFeature("tags", separator="|", weights="w", table="site"),
        CategoricalFeature("listed", multi_valued=True, encoding="hash"),
    ),
    tables=(Table("site", vocabulary_size=4), Table("slot", vocabulary_size=10), Table("listed", vocabulary_size=7)),
)
LAYER_RAW = {
    "price": [1e7 / 3, math.nan, 2.0],
    "site": ["a", "new", ""],
    "slot": [9, 10, -1],
    "tags": ["b|a", "", "new"],
    "tags_weights": ["1|0.5", "", "2"],
    "listed": [["x", "y"], ["", ""], ["z", ""]],
}


@pytest.fixture
def layer(tmp_path):
    statistics = {"price": {"count": 9, "mean": 1.25, "std": 3.0}}
    return build(tmp_path, LAYER_SCHEMA, {"site": ["b", "a", "<missing>"]}, statistics)


def tensors(layer):
    return {k: tf.constant(v, layer.signature()[k].dtype) for k, v in LAYER_RAW.items()}


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        for x, y in zip(*(tf.nest.flatten(t[name], expand_composites=True) for t in (a, b)), strict=True):
            assert x.dtype == y.dtype
            np.testing.assert_array_equal(x, y, err_msg=name)


@pytest.mark.parametrize("form", ["keras", "directory", "config"])
def test_a_layer_of_a_model_that_is_saved_needs_no_other_file(tmp_path, layer, form):
    raw = tensors(layer)
    expected = layer.encode(raw)
    inputs = {n: keras.Input(s.shape[1:], dtype=s.dtype, name=n) for n, s in layer.signature().items()}
    model = keras.Model(inputs, layer(inputs))
    assert_same(model(raw), expected)
    if form == "config":
        loaded = keras.models.clone_model(model)
    else:
        path = tmp_path / ("model.keras" if form == "keras" else "model")
        model.save(path)
        for source in (tmp_path / "vocabulary", tmp_path / "statistics.json"):
            source.rename(f"{source}-gone")
        loaded = keras.models.load_model(path)
    assert_same(loaded(raw), expected)
    again = loaded.get_layer("encoder")
    assert again.schema == layer.schema
    tf.saved_model.save(loaded, str(tmp_path / "again"))
    assert_same(tf.saved_model.load(str(tmp_path / "again"))(raw), expected)
    files = again._directory
    if form != "directory":  # Keras keeps what it loads from a directory
        del model, loaded, again
        gc.collect()
        assert not os.path.exists(files)


def test_a_layer_in_a_dataset_and_under_a_policy(layer):
    raw = tensors(layer)
    expected = layer(raw)
    data = tf.data.Dataset.from_tensor_slices(raw).batch(3).map(layer)
    assert_same(next(iter(data)), expected)
    with_policy = Encoder(layer.schema, layer._directory, dtype="mixed_bfloat16")
    assert_same(with_policy(raw), expected)
    assert layer.weights == [] and Encoder.from_config(layer.get_config()).name == "encoder"


def test_a_frame_or_arrays_have_the_meaning_of_the_log(layer):
    expected = layer(tensors(layer))
    lists = [["x", "y"], [], ["z"]]
    frame = pd.DataFrame(
        {
            "price": LAYER_RAW["price"],
            "site": pd.Series(["a", "new", None], dtype="category"),
            "s": pd.array([9, 10, None], "Int64"),
            "tags": ["b|a", None, "new"],
            "w": ["1|0.5", None, "2"],
            "listed": lists,
        }
    )
    assert_same(layer(frame), expected)
    assert_same(layer(pa.Table.from_pandas(frame)), expected)
    assert {k: (v.dtype, v.shape.rank) for k, v in layer.raw_inputs(frame).items()} == {
        k: (s.dtype, s.shape.rank) for k, s in layer.signature().items()
    }
    arrays = {
        "price": np.array(LAYER_RAW["price"]),
        "site": np.array(["a", "new", None], object),
        "slot": np.array([[9], [10], [-1]], np.int32),
        "tags": pd.Series(["b|a", pd.NA, "new"], dtype=object),
        "tags_weights": LAYER_RAW["tags_weights"],
        "listed": np.array(LAYER_RAW["listed"]),
    }
    assert_same(layer(arrays), expected)
    assert_same(layer(arrays | {"site": tf.constant(LAYER_RAW["site"]), "unused": [1]}), expected)
    # Tensors of neighbouring dtypes and ranks, as Keras users have them.
    near = tensors(layer)
    near |= {"price": tf.cast(near["price"], tf.float64)[:, None], "slot": tf.cast(near["slot"], tf.int32)[:, None]}
    near["listed"] = tf.ragged.constant(lists)
    assert_same(layer(near), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"site": None}, "no input 'site'; given are price, slot"),
        ({"site": tf.constant([1.0, 2.0, 3.0])}, "input 'site' is float32; string is expected"),
        ({"slot": tf.constant([1.0, 2.0, 3.0])}, "input 'slot' is float32; int64 is expected"),
        ({"price": tf.ones([3, 2])}, r"input 'price' has the shape \(3, 2\); \(None,\) is expected"),
        ({"price": np.array(["1", "cheap", "3"])}, "row 2, column 'price': 'cheap' is not a finite"),
        ({"slot": np.array([1.5, 2, 3])}, "row 1, column 'slot': 1.5 is not a whole number"),
        ({"site": np.array(["a", 1, None], object)}, "input 'site': its values have no common type"),
        ({"site": tf.sparse.from_dense([["a"], ["b"], ["c"]])}, r"'site' is a SparseTensor .*of shape \(None,\) is ne"),
        ({"site": np.array(["a", "b"])}, "inputs of several lengths: .*'site': 2"),
    ],
)
def test_inputs_of_the_wrong_kind(layer, change, message):
    raw = {k: v for k, v in (tensors(layer) | change).items() if v is not None}
    with pytest.raises(ValueError, match=message):
        layer(raw)


@pytest.mark.parametrize("arrays", [False, True])
def test_a_sparse_list_column(layer, arrays):
    """Rows that do not begin at column 0, in any order of indices, with a row without values."""
    values = tf.SparseTensor([[2, 4], [0, 3], [0, 1]], ["z", "y", "x"], [3, 5])
    raw = tensors(layer) | {"listed": values}
    if arrays:
        raw = {k: np.array(v, object if k == "site" else None) for k, v in LAYER_RAW.items()} | {"listed": values}
    assert_same(layer(raw), layer(tensors(layer)))


def test_an_array_without_names(layer):
    with pytest.raises(ValueError, match=r"takes a DataFrame, or arrays or tensors by name \(price, site.*a ndarray"):
        layer(np.zeros([3, 2]))
