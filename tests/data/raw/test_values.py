"""What a value is does not depend on how it is written: one table of spellings through every way into a model."""

import itertools

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import spellings as values
import tensorflow as tf
from cases import matrix
from spellings import joined

import tfrs_dlrm as td
from tfrs_dlrm.data.preparing.blocks import BlockEncoder
from tfrs_dlrm.data.raw import sources
from tfrs_dlrm.schema import CategoricalFeature, Label, Schema, Table
from tfrs_dlrm.serving.exporting.signatures import parse
from tfrs_dlrm.streaming.address import StreamAddress
from tfrs_dlrm.streaming.messages import Decoder
from tfrs_dlrm.streaming.reader import Message

WHOLE = [values.ID, values.NEGATIVE, values.LARGEST, values.NEXT_TO_LARGEST, values.SMALLEST]
WHOLE += [joined(values.YES, values.ONE), joined(values.NO, values.ZERO), values.NOTHING]
TEXTS = [values.ID, values.NEGATIVE, values.LARGEST, values.NEXT_TO_LARGEST, values.HASH, values.NEXT_TO_HASH]
TEXTS += [values.CODE, values.HALF, values.YES, values.NO, values.NOTHING]
CASES = {
    "int64": (CategoricalFeature("x", dtype="int64"), WHOLE),
    "int64, hashed": (CategoricalFeature("x", dtype="int64", encoding="hash"), WHOLE),
    "text": (CategoricalFeature("x"), TEXTS),
    "text, hashed": (CategoricalFeature("x", encoding="hash"), TEXTS),
    "booleans as text": (
        CategoricalFeature("x"),
        [joined(values.YES, values.ONE), joined(values.NO, values.ZERO), values.NOTHING],
    ),
}


def schema_of(feature, **more):
    rows = None if feature.encoding == "vocabulary" else 1_000_003
    tables = () if rows is None else (Table("x", vocabulary_size=rows),)
    return Schema(Label("y"), categorical=(feature,), tables=tables, **more)


def encoded(source, encoder):
    """The row of the only value of a file or frame."""
    (block,) = sources.blocks(source, encoder.schema)
    result = BlockEncoder(encoder)(block)
    assert not result.bad
    return result.table["x"].to_pylist()


def of_files(tmp_path, spelled, encoder):
    """Yields the rows of the value in text files, and of its Arrow columns."""
    for text, (name, quote) in itertools.product(spelled.texts, [("a.csv", ""), ("a.tsv", ""), ("a.csv", '"')]):
        separator = "\t" if name == "a.tsv" else ","
        (tmp_path / name).write_text(f"y{separator}x\n1{separator}{quote}{text}{quote}\n")
        yield f"{name} {quote}{text}", encoded(str(tmp_path / name), encoder)
    for column in (*spelled.columns, pa.array(spelled.texts[:1])):
        pq.write_table(pa.table({"y": [1], "x": column}), tmp_path / "a.parquet")
        yield str(column.type), encoded(str(tmp_path / "a.parquet"), encoder)


def of_memory(spelled, encoder):
    """Yields the rows of the value in frames, arrays, tensors and tf.Examples."""
    for column in spelled.columns:
        table = pa.table({"y": [1], "x": column})
        frames = [table, table.to_pandas()] + ([] if pa.types.is_decimal256(column.type) else [pl.from_arrow(table)])
        for frame in frames:
            yield f"{type(frame)} of {column.type}", encoder(frame)["ids"].numpy()[:, 0].tolist()
        if not pa.types.is_null(column.type):
            arrays = {"x": column.to_numpy(zero_copy_only=False)}
            yield f"array of {column.type}", encoder(arrays)["ids"].numpy()[:, 0].tolist()
    spec = encoder.signature()["x"]
    requests = [t.encode() for t in spelled.texts]
    if spec.dtype == tf.int64:
        requests = [c.cast(pa.int64()).fill_null(-1)[0].as_py() for c in spelled.columns if pa.types.is_integer(c.type)]
    for request in requests:
        yield f"tensor {request}", encoder.encode({"x": tf.constant([request], spec.dtype)})["ids"].numpy()[0].tolist()
        lists = {"int64_list": {"value": [request]}} if spec.dtype == tf.int64 else {"bytes_list": {"value": [request]}}
        example = tf.train.Example(features={"feature": {"x": lists}}).SerializeToString()
        parsed = parse(tf.constant([example]), encoder.signature())
        yield f"tf.Example {request}", encoder.encode(parsed)["ids"].numpy()[0].tolist()


def rows_of(decoded):
    return decoded.columns.matrices[-1][:, 0].tolist()


def of_messages(spelled, encoder):
    """Yields the rows of the value in messages of a stream."""
    decode = Decoder(encoder, StreamAddress.parse("kafka://h:1/t?format=json"))
    for fragment in spelled.json:
        result = decode([Message.of(0, 0, f'{{"y": 1, "x": {fragment}}}'.encode())])
        assert not result.malformed, result.malformed
        yield f"message {fragment}", rows_of(result)
    decode = Decoder(encoder, StreamAddress.parse("kafka://h:1/t?format=csv&columns=y,x"))
    for text in spelled.texts:
        result = decode([Message.of(0, 0, f"1,{text}".encode())])
        yield f"line {text}", rows_of(result)


def counted(spelled, feature):
    """The values as numbers, if the feature has numbers; else in their first spelling."""
    if feature.dtype != "int64":
        return [v.texts[0] for v in spelled]
    whole = ([c for c in v.columns if pa.types.is_integer(c.type)] for v in spelled)
    return [columns[0].cast(pa.int64())[0].as_py() for columns in whole]


@pytest.mark.parametrize("name", matrix(CASES, fast=["int64", "booleans as text"]))
def test_a_value_has_one_row_however_it_is_written(tmp_path, name):
    feature, spelled = CASES[name]
    # The vocabulary is counted from the last spelling of each value as text, and from numbers if all are.
    for column in ([v.texts[-1] for v in spelled], counted(spelled, feature)):
        encoder = td.fit_encoder(schema_of(feature), pa.table({"y": [1] * len(column), "x": column}))
        rows = {}
        for value in spelled:
            found = [*of_files(tmp_path, value, encoder), *of_memory(value, encoder), *of_messages(value, encoder)]
            first = found[0][1]
            assert [(how, row) for how, row in found if row != first] == [], (value, first)
            rows[value.texts[0]] = first[0]
        assert len(set(rows.values())) == len(spelled)
        if feature.encoding == "vocabulary":
            assert 0 not in rows.values()
