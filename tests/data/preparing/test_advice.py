"""What messages about raw logs advise is done, and works: a wrong call, its message, and the call that it asks for."""

import gzip
import json
import re

import duckdb
import numpy as np
import pandas
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tfrs_dlrm.config import DataConfig
from tfrs_dlrm.data.preparing.manifest import PreparedManifest
from tfrs_dlrm.data.preparing.on_demand import ensure_prepared
from tfrs_dlrm.data.preparing.prepare import prepare
from tfrs_dlrm.data.raw.infer import infer_schema
from tfrs_dlrm.schema import CategoricalFeature, DenseFeature, Label, Schema, TextFormat

ROWS = [f"{i % 2},{i * 7 % 11}.5,site {i % 3}" for i in range(30)]
BODY = "\n".join(ROWS) + "\n"
CSV = "y,price,site\n" + BODY
SCHEMA = Schema(Label("y"), dense=(DenseFeature("price"),), categorical=(CategoricalFeature("site"),))
CASES = []


def case(function):
    CASES.append(function)
    return function


def with_text(text):
    return Schema(SCHEMA.label, SCHEMA.dense, SCHEMA.categorical, text=text)


def write(directory, content, name="log.csv"):
    (directory / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(directory / name)


def prepared(directory, data, schema=None, output="out", **options):
    """Prepares data, by default as `infer_schema` proposes; returns the number of rows."""
    manifest = prepare(schema or infer_schema(data).schema, data, str(directory / output), **options)
    return manifest.rows("train")


def inferred(directory, data, **arguments):
    return prepared(directory, data, infer_schema(data, **arguments).schema)


def said(message):
    """The value of "text" that a message tells to set."""
    found = re.search(r'"text": (\{.*?\})', message)
    return TextFormat(**json.loads(found[1]))


def parquet(directory, table, name="log.parquet"):
    pq.write_table(table, directory / name)
    return str(directory / name)


def click_table(**columns):
    return pa.table({"y": [0, 1] * 15, "price": [i / 7 for i in range(30)], "site": ["a", "b", "c"] * 10} | columns)


def run(code, **names):
    """Runs what a message says, and returns the names."""
    exec(code, {"pandas": pandas, "pyarrow": pa}, names)
    return names


# Each case returns the wrong call, its message, and the call with the message that is advised.


@case
def a_file_without_a_header(d):
    path = write(d, BODY)
    return (
        lambda: inferred(d, path),
        r"line 1 holds values such as '0', not the names of columns; give the names as columns",
        lambda _: inferred(d, path, columns=["y", "price", "site"]),
    )


@case
def a_header_of_numbers(d):
    numbers = "\n".join(f"{i % 2},{i * 3},{i / 7}" for i in range(30))
    path = write(d, f"2019,2020,2021\n{numbers}\n")
    return (
        lambda: inferred(d, path, label="2019"),
        r"line 1 holds values such as '2019'.* If it does hold names, give one of them a letter",
        lambda _: inferred(d, write(d, f"y2019,2020,2021\n{numbers}\n"), label="y2019"),
    )


@case
def blanks_between_columns(d):
    path = write(d, CSV.replace("site ", "site_").replace(",", " "))
    return (
        lambda: inferred(d, path),
        "it has one column, 'y price site'; if blanks separate columns, give delimiter=' '",
        lambda _: inferred(d, path, delimiter=" "),
    )


@case
def carriage_returns_alone(d):
    path = write(d, CSV.replace("\n", "\r"))
    return (
        lambda: inferred(d, path),
        r"lines end in carriage returns alone; convert the file, such as by tr '\\r' '\\n'",
        lambda _: inferred(d, write(d, CSV.replace("\n", "\r").translate({13: 10}))),
    )


@case
def columns_for_a_file_with_a_header(d):
    path = write(d, CSV)
    return (
        lambda: inferred(d, path, columns=["a", "b", "c"]),
        r"line 1 names the columns \(y, price, site\), but columns are given .*; leave columns out",
        lambda _: inferred(d, path),
    )


@case
def too_few_columns(d):
    path = write(d, BODY)
    return (
        lambda: inferred(d, path, columns=["y", "price"]),
        "2 columns are given, line 1 has 3 fields; name each of them",
        lambda _: inferred(d, path, columns=["y", "price", "site"]),
    )


@case
def a_schema_for_files_with_a_header(d):
    path = write(d, BODY)
    return (
        lambda: prepared(d, path, SCHEMA),
        "no column 'y', 'price', 'site'; it has: .*; if the file has no header line, list its columns in text.columns",
        lambda _: prepared(d, path, with_text(TextFormat(columns=("y", "price", "site")))),
    )


@case
def another_delimiter(d):
    path = write(d, CSV, "part-00000")
    return (
        lambda: prepared(d, path, SCHEMA),
        "if ',' separates its columns, say so in the schema: ",
        lambda message: prepared(d, path, with_text(said(message))),
    )


@case
def quoted_names(d):
    path = write(d, CSV.replace(",", "\t").replace("y\tprice\tsite", '"y"\t"price"\t"site"'), "log.tsv")
    return (
        lambda: prepared(d, path, SCHEMA),
        'its texts stand in quotes, such as "y", but the schema does not say what they mean: set ',
        lambda message: prepared(d, path, with_text(said(message))),
    )


@case
def quoted_texts(d):
    path = write(d, re.sub(r"(site \d|y|price|site)", r'"\1"', CSV.replace(",", "\t")), "log.tsv")
    return (
        lambda: prepared(d, path, SCHEMA),
        "its texts stand in quotes, .* set ",
        lambda message: prepared(d, path, with_text(said(message))),
    )


@case
def no_clear_label(d):
    path = write(d, CSV.replace("y,", "flag,").replace("site 2", "site 1").replace("site ", ""))
    return (
        lambda: inferred(d, path),
        "it may be 'flag', 'site'. Give its name as label",
        lambda _: inferred(d, path, label="flag"),
    )


@case
def a_regression_without_a_label(d):
    path = write(d, CSV)
    return (
        lambda: inferred(d, path, task="regression"),
        "any column of numbers may be what is to be predicted; give its name as label",
        lambda _: inferred(d, path, task="regression", label="price"),
    )


@case
def a_label_without_a_name(d):
    path = write(d, CSV.replace("y,", ",", 1))
    return (
        lambda: inferred(d, path, label="y"),
        "no column 'y' for the label; it has: price, site; left out: column_1",
        lambda _: inferred(d, path, label="column_1"),
    )


@case
def two_columns_of_one_name(d):
    path = write(d, CSV.replace("price", "y", 1))
    return (
        lambda: inferred(d, path, label="y"),
        "column 'y' cannot be the label: the name occurs 2 times; to use it, give each column another name",
        lambda _: inferred(d, write(d, CSV.replace("price", "x", 1)), label="y"),
    )


@case
def two_columns_of_one_name_in_the_schema(d):
    path = write(d, CSV.replace("price", "y", 1))
    return (
        lambda: prepared(d, path, Schema(Label("y"), categorical=SCHEMA.categorical)),
        "column 'y' occurs 2 times; give each column another name",
        lambda _: prepared(d, write(d, CSV), SCHEMA),
    )


@case
def a_malformed_row(d):
    path = write(d, f"{CSV}1,2\n")
    return (
        lambda: prepared(d, path),
        r"line 32: 2 fields, 3 are expected. Correct it, or set such rows aside with bad_rows='quarantine'",
        lambda _: prepared(d, path, bad_rows="quarantine"),
    )


@case
def all_rows_malformed(d):
    path = write(d, CSV.replace("\n0,", "\nno,").replace("\n1,", "\nyes,"))

    def first(_):
        with pytest.raises(ValueError, match="line 2, column 'y': 'no' is not"):
            prepared(d, path, SCHEMA, "another")
        labelled = Schema(Label("y", positive=("yes",), negative=("no",)), SCHEMA.dense, SCHEMA.categorical)
        return prepared(d, path, labelled, "mended")

    return (
        lambda: prepared(d, path, SCHEMA, bad_rows="quarantine"),
        "no usable row for training; bad_rows='error', and another output, says what is wrong",
        first,
    )


@case
def infinite_numbers(d):
    path = write(d, CSV + "1,inf,site 1\n")
    assert (
        "prepare stops at such rows, or sets them aside with bad_rows='quarantine'" in infer_schema(path).notes["price"]
    )
    return (
        lambda: prepared(d, path),
        "'inf' is not a finite float32 number.*bad_rows='quarantine'",
        lambda _: prepared(d, path, bad_rows="quarantine"),
    )


@case
def an_empty_file(d):
    paths = [write(d, CSV), write(d, "", "empty.csv")]
    return (
        lambda: prepared(d, paths),
        r"empty\.csv: the file is empty; leave it out",
        lambda _: prepared(d, paths[:1]),
    )


@case
def an_empty_first_line(d):
    return (
        lambda: prepared(d, write(d, "\n" + CSV)),
        "the first line is empty; remove it",
        lambda _: prepared(d, write(d, CSV)),
    )


@case
def names_in_latin_1(d):
    content = CSV.replace("price", "größe")
    return (
        lambda: prepared(d, write(d, content.encode("latin-1"))),
        "line 1: invalid UTF-8 in the header: .*; convert the file, such as by iconv -f LATIN1 -t UTF-8",
        lambda _: prepared(d, write(d, content)),
    )


@case
def a_directory_of_hidden_files(d):
    (d / "logs").mkdir()
    write(d / "logs", CSV, "_metadata")
    schema = with_text(TextFormat(delimiter=","))
    return (
        lambda: prepared(d, str(d / "logs"), schema),
        "only markers, hidden and empty files are there, such as '_metadata': to read one, give its exact name",
        lambda _: prepared(d, str(d / "logs" / "_metadata"), schema),
    )


@case
def text_with_the_name_of_a_parquet_file(d):
    path = write(d, CSV, "log.parquet")
    return (
        lambda: prepared(d, path),
        "it begins as text does and not with PAR1; if it is a text file, give it another name",
        lambda _: prepared(d, write(d, CSV, "log.csv")),
    )


@case
def a_file_compressed_twice(d):
    once = gzip.compress(CSV.encode())
    return (
        lambda: prepared(d, write(d, gzip.compress(once))),
        "it is compressed twice; decompress it once",
        lambda _: prepared(d, write(d, once)),
    )


@case
def utf_16_without_a_mark(d):
    path = write(d, CSV.encode("utf-16-le"))
    return (
        lambda: prepared(d, path),
        "it holds zero bytes.*convert it: iconv -f UTF-16LE -t UTF-8",
        lambda _: prepared(d, write(d, CSV)),
    )


@case
def files_of_different_types(d):
    parquet(d, click_table(), "a.parquet")
    parquet(d, click_table(price=[["a"]] * 30), "b.parquet")
    return (
        lambda: prepared(d, str(d / "*.parquet")),
        "column 'price' is of type .* in different files; write them with one type, or give one of the files",
        lambda _: prepared(d, str(d / "a.parquet")),
    )


@case
def a_list_column_for_one_value(d):
    path = parquet(d, click_table(site=[["a"], ["b", "c"]] * 15))
    listed = Schema(SCHEMA.label, categorical=(CategoricalFeature("site", multi_valued=True),))
    return (
        lambda: prepared(d, path, SCHEMA),
        "its values are lists; set multi_valued=true",
        lambda _: prepared(d, path, listed),
    )


@case
def one_value_for_a_list_column(d):
    path = write(d, CSV)
    listed = Schema(SCHEMA.label, categorical=(CategoricalFeature("site", multi_valued=True),))
    split = Schema(SCHEMA.label, categorical=(CategoricalFeature("site", separator=" "),))
    return (
        lambda: prepared(d, path, listed),
        "its values are no lists; give the separator between them, or drop multi_valued",
        lambda _: prepared(d, path, split) and prepared(d, path, SCHEMA, "dropped"),
    )


@case
def a_reader(d):
    reader = click_table().to_reader()
    return (
        lambda: prepared(d, reader),
        r"it can be read once only; give the table that its read_all\(\) returns",
        lambda _: prepared(d, reader.read_all()),
    )


@case
def a_lazy_frame(d):
    lazy = polars.from_arrow(click_table()).lazy()
    if hasattr(lazy, "__arrow_c_stream__"):
        pytest.skip("this polars streams lazy frames")
    return (
        lambda: prepared(d, lazy),
        r"'LazyFrame' is neither a path nor a table; give .* \(of a LazyFrame its collect\(\), of a dict of",
        lambda _: prepared(d, lazy.collect()),
    )


@case
def a_dict_of_arrays(d):
    data = {name: np.array(column) for name, column in click_table().to_pydict().items()}
    return (
        lambda: prepared(d, data),
        r"'dict' is neither a path nor a table; give .* of a dict of arrays pyarrow\.table\(...\)",
        lambda _: prepared(d, pa.table(data)),
    )


@case
def complex_numbers(d):
    frame = click_table().to_pandas().assign(z=1j)
    return (
        lambda: prepared(d, frame),
        "column 'z' holds complex numbers .*: leave it out, such as by",
        lambda message: prepared(d, run(message.rpartition("such as by ")[2], frame=frame)["frame"]),
    )


@case
def sparse_columns(d):
    frame = click_table().to_pandas()
    frame["price"] = pandas.arrays.SparseArray(frame["price"])
    return (
        lambda: prepared(d, frame),
        "column 'price' is sparse .*: convert it, such as by",
        lambda message: prepared(d, run(message.rpartition("such as by ")[2], frame=frame)["frame"]),
    )


@case
def mixed_columns(d):
    frame = click_table().to_pandas()
    frame["site"] = [1, "a", 2.5] * 10
    return (
        lambda: prepared(d, frame),
        "All values of a column need one type: convert it, such as by",
        lambda message: prepared(d, run(message.rpartition("such as by ")[2], frame=frame)["frame"]),
    )


@case
def columns_of_one_name_in_a_frame(d):
    frame = click_table().to_pandas()
    twice = frame.set_axis(["y", "y", "site"], axis=1)
    return (
        lambda: prepared(d, twice),
        "column 'y' occurs 2 times; give each column another name",
        lambda _: prepared(d, frame),
    )


@case
def a_relation_that_changes(d):
    relation = duckdb.sql("SELECT i % 2 AS y, random() AS price, 'a' || i % 3 AS site FROM range(30) t(i)")
    return (
        lambda: prepared(d, relation, SCHEMA),
        r"its rows changed.*; give a table in memory, such as the relation's to_arrow_table\(\)",
        lambda _: prepared(d, relation.to_arrow_table(), SCHEMA, "again"),
    )


@case
def two_ways_to_evaluate(d):
    path, other = write(d, CSV), write(d, CSV, "other.csv")
    return (
        lambda: prepared(d, path, SCHEMA, eval_inputs=other, eval_fraction=0.5),
        "give either eval_inputs or eval_fraction, not both",
        lambda _: prepared(d, path, SCHEMA, eval_inputs=other),
    )


@case
def data_prepared_differently(d):
    path = write(d, CSV)
    prepared(d, path)
    return (
        lambda: prepared(d, path, seed=1),
        "already holds data prepared differently .*; choose another output, or remove it",
        lambda _: prepared(d, path, output="another", seed=1),
    )


@case
def an_output_with_something_else(d):
    path = write(d, CSV)
    (d / "out").mkdir()
    write(d / "out", "mine", "notes.txt")
    return (
        lambda: prepared(d, path),
        "the directory exists and holds something else; choose another output",
        lambda _: prepared(d, path, output="another"),
    )


@case
def no_evaluation_set(d):
    path = write(d, CSV)
    prepared(d, path)
    return (
        lambda: PreparedManifest.load(str(d / "out")).shards("eval"),
        "the eval set is empty; prepare the data with eval inputs or an eval fraction",
        lambda _: (
            prepared(d, path, output="halves", eval_fraction=0.5)
            + PreparedManifest.load(str(d / "halves")).rows("eval")
        ),
    )


@case
def no_data_for_a_run(d):
    path, out = write(d, CSV), str(d / "out")
    infer_schema(path).schema.save(str(d / "schema.json"))

    def named(_):
        ensure_prepared(DataConfig(path=out, raw_train=path, schema=str(d / "schema.json")))
        return PreparedManifest.load(out).rows("train")

    return (
        lambda: ensure_prepared(DataConfig(path=out)),
        r"name raw logs in config\.data\.raw_train and their schema in config\.data\.schema",
        named,
    )


@case
def a_frame_for_spark(d):
    table = click_table()
    return (
        lambda: prepared(d, table, engine="spark"),
        "engine='spark' reads files; write it to Parquet, or leave out engine",
        lambda _: prepared(d, table) and prepared(d, parquet(d, table), output="file"),
    )


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_the_advice_works(tmp_path, case):
    wrong, message, mended = case(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as info:
        wrong()
    assert mended(str(info.value)) == 30
