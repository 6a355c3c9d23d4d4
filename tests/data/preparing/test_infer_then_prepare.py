"""Logs as other programs write them: what `infer_schema` proposes is prepared, and gives what the plain log gives."""

import bz2
import gzip
import io

import numpy as np
import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tfrs_dlrm.data.preparing.manifest import PreparedManifest
from tfrs_dlrm.data.preparing.prepare import prepare
from tfrs_dlrm.data.raw.file_kinds import FileKind
from tfrs_dlrm.data.raw.infer import infer_schema
from tfrs_dlrm.data.raw.parsing import BadRowError
from tfrs_dlrm.data.raw.text_sniffing import sniff_text
from tfrs_dlrm.schema import CategoricalFeature, DenseFeature, Label, Schema, TextFormat

ROWS = 300


def click_log(rows=ROWS, seed=0):
    rng = np.random.default_rng(seed)
    return pandas.DataFrame(
        {
            "clicked": rng.integers(0, 2, rows),
            "price": rng.lognormal(2, 1, rows).round(2),
            "age": rng.integers(18, 71, rows),
            "site": rng.choice(["news", "the shop", '5" pipes, cheap', "wiki"], rows),
            "user_id": rng.integers(1, 60, rows),
        }
    )


def prepared(schema, inputs, output, **options):
    """Returns the manifest, and the encoded rows by column."""
    manifest = prepare(schema, inputs, str(output), **options)
    return manifest, rows_of(output, manifest.train)


def rows_of(directory, shards):
    return pa.concat_tables([pq.read_table(directory / shard.path) for shard in shards])


def write_r(frame, quoted=True, row_names=False, sep="\t"):
    """A frame as R's `write.table` prints it: all texts in quotes, and no name above the names of the rows."""

    def field(value):
        return '"{}"'.format(value.replace('"', '""')) if isinstance(value, str) and quoted else str(value)

    lines = [sep.join(map(field, frame.columns))]
    for i, row in enumerate(frame.itertuples(index=False), 1):
        lines.append(sep.join([*([field(str(i))] if row_names else []), *map(field, row)]))
    return ("\n".join(lines) + "\n").encode()


def csv(frame, **options):
    return frame.to_csv(None, **{"index": False, **options}).encode()


def parquet(frame, **options):
    out = io.BytesIO()
    frame.to_parquet(out, **options)
    return out.getvalue()


FORMS = {
    "plain.csv": csv,
    "index.csv": lambda f: csv(f, index=True),
    "trailing.csv": lambda f: csv(f).replace(b"\n", b",\n"),
    "trailing-rows.csv": lambda f: csv(f).replace(b"\n", b",\n").replace(b"user_id,", b"user_id", 1),
    "pandas.tsv": lambda f: csv(f, sep="\t"),
    "all-quoted.tsv": lambda f: csv(f, sep="\t", quoting=1),
    "texts-quoted.csv": lambda f: csv(f, quoting=2),
    "r.tsv": write_r,
    "r-rows.tsv": lambda f: write_r(f, row_names=True),
    "r-rows.txt": lambda f: write_r(f, row_names=True, quoted=False),
    "unquoted.tsv": lambda f: write_r(f, quoted=False),
    "part-00000": lambda f: csv(f, sep="|"),
    "part-00001": csv,
    "hive": lambda f: write_r(f, quoted=False, sep="\x01"),
    "semicolons.csv": lambda f: csv(f, sep=";"),
    "windows.csv": lambda f: csv(f, lineterminator="\r\n", encoding="utf-8"),
    "excel.txt": lambda f: f.to_csv(None, index=False, sep="\t").encode("utf-16"),
    "clicks.csv.bz2": lambda f: bz2.compress(csv(f)),
    "df.parquet.gzip": lambda f: parquet(f, compression="gzip"),
    "index.parquet": lambda f: parquet(f.set_axis(np.arange(ROWS) // 10)),
    "part-00002": parquet,
    "part-00000.parquet.gz": lambda f: gzip.compress(parquet(f)),
}


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    directory = tmp_path_factory.mktemp("expected")
    click_log().to_parquet(directory / "log.parquet")
    proposal = infer_schema(str(directory / "log.parquet"))
    return proposal.schema, prepared(proposal.schema, str(directory / "log.parquet"), directory / "out")[1]


@pytest.mark.parametrize("name", FORMS)
def test_every_form_of_a_log_gives_the_same_rows(tmp_path, expected, name):
    schema, rows = expected
    (tmp_path / name).write_bytes(FORMS[name](click_log()))
    proposal = infer_schema(str(tmp_path / name))
    found = proposal.schema
    assert (found.label, found.dense, found.categorical) == (schema.label, schema.dense, schema.categorical)
    manifest, encoded = prepared(found, str(tmp_path / name), tmp_path / "out")
    assert encoded.equals(rows) and manifest.bad_rows == 0 and not any(manifest.out_of_range.values())
    left_out = [note for column, note in proposal.notes.items() if column not in click_log().columns]
    assert len(left_out) == any(word in name for word in ("index", "trailing", "rows")) and all(
        note.startswith(("without a name in the header; ", "an index without a name")) for note in left_out
    )


@pytest.mark.parametrize(
    ("names", "rows", "quoted"),
    [
        # Truth values, times and numbers without quotes, as R and pandas write them.
        ('"t" "u" "v"', ['"text {}" True 2026-11-{:02}', '"other {}" False NA'], True),
        ('"t" "u" "v"', ['"text {}" NA "x"', "NA 2 "], True),
        ("t u v", ['"tab\tin {}" True 3', "none 2 4"], True),  # quotes around a delimiter only
        ("t u v", ['"to be" or not 2 3', "text 2 4"], False),  # a query with quotes of its own
        ("t u v", ['"whether it is nobler {}" 2 3', "text 2 4"], False),  # some queries are all in quotes
    ],
)
def test_quotes_between_tabs(tmp_path, names, rows, quoted):
    def line(text, i):
        return "\t".join(text.rsplit(" ", 2)).format(i, i)

    lines = [line(names, 0), *(line(rows[i % 2], i) for i in range(1, 20))]
    (tmp_path / "log.tsv").write_text("\n".join(lines))
    found = sniff_text(str(tmp_path / "log.tsv"), FileKind("text"), (), None, 1 << 24)
    assert (found.text.quote, found.names) == ('"' if quoted else None, ("t", "u", "v"))


@pytest.mark.parametrize("name", ["r.tsv", "pandas.tsv", "all-quoted.tsv"])
def test_rows_without_quotes_are_read_under_the_same_schema(tmp_path, name):
    """One rule for the header and the values of each file; no value of the evaluation set is unknown."""
    log = click_log()
    (tmp_path / name).write_bytes(FORMS[name](log))
    (tmp_path / "eval.tsv").write_bytes(write_r(log, quoted=False))
    schema = infer_schema(str(tmp_path / name)).schema
    assert schema.text == TextFormat(quote='"') and '"quote": "\\""' in schema.to_json()
    manifest, encoded = prepared(schema, str(tmp_path / name), tmp_path / "out", eval_inputs=str(tmp_path / "eval.tsv"))
    assert rows_of(tmp_path / "out", manifest.eval).equals(encoded)
    assert not any(manifest.out_of_range.values())


def test_quotes_that_a_schema_does_not_know_are_named(tmp_path):
    log = click_log()
    (tmp_path / "log.tsv").write_bytes(write_r(log))
    (tmp_path / "bare.tsv").write_bytes(write_r(log).partition(b"\n")[2])
    features = {"dense": (DenseFeature("price"),), "categorical": (CategoricalFeature("site"),)}
    for name, columns in (("log.tsv", ()), ("bare.tsv", tuple(log.columns))):
        old = Schema(Label("clicked"), **features, text=TextFormat(columns=columns))
        with pytest.raises(ValueError, match=r'texts stand in quotes, such as ".*set "text": {"quote": "\\""} to take'):
            prepare(old, str(tmp_path / name), str(tmp_path / "out"))
        mended = Schema(Label("clicked"), **features, text=TextFormat(columns=columns, quote='"'))
        manifest = prepare(mended, str(tmp_path / name), str(tmp_path / f"out-{name}"))
        vocabulary = (tmp_path / f"out-{name}" / "vocabulary" / "site.txt").read_text().split("\n")
        assert manifest.rows("train") == ROWS and "the shop" in vocabulary and '5" pipes, cheap' in vocabulary
    kept = Schema(Label("clicked"), **features, text=TextFormat(columns=tuple(log.columns), quote=""))
    prepare(kept, str(tmp_path / "bare.tsv"), str(tmp_path / "kept"))
    assert '"the shop"' in (tmp_path / "kept" / "vocabulary" / "site.txt").read_text()
    unquoted = Schema(Label("clicked"), **features, text=TextFormat(quote=""))
    with pytest.raises(
        ValueError, match=r'no column .*; it has: "clicked", .*do not belong to the names, say so .*"quote"'
    ):
        prepare(unquoted, str(tmp_path / "log.tsv"), str(tmp_path / "out"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'1\t2.5\t"a "b" c"\t3\n', "text after a closing quote: 'b\" c\"'"),
        (b'1\t2.5\t"a \\"b\\" c"\t3\n', "text after a closing quote"),
        (b'1\t2.5\t"two\nlines"\t3\n', "a quote that is never closed; a value cannot hold a line break"),
        (b'1\t2.5\t "a"\t3\n', "a blank before a quote"),
    ],
)
def test_values_that_disagree_with_the_rule_are_named(tmp_path, line, message):
    schema = Schema(Label("y"), (DenseFeature("d"),), (CategoricalFeature("c"),), text=TextFormat(quote='"'))
    header, good = b'"y"\t"d"\t"c"\t"u"\n', b'0\t1.5\t"a ""b"" c"\t3\n1\t1.5\tplain "text"\t3\n'
    (tmp_path / "log.tsv").write_bytes(header + good + line + good)
    with pytest.raises(BadRowError) as info:
        prepare(schema, str(tmp_path / "log.tsv"), str(tmp_path / "out"))
    assert f"log.tsv: line 4: {message}" in str(info.value) and "bad_rows='quarantine'" in str(info.value)
    manifest, _ = prepared(schema, str(tmp_path / "log.tsv"), tmp_path / "kept", bad_rows="quarantine")
    assert manifest.rows("train") == 4 and manifest.bad_rows == line.count(b"\n")
    assert (tmp_path / "kept" / "vocabulary" / "c.txt").read_text().split() == ["a", '"b"', "c", "plain", '"text"']


def test_other_quotes(tmp_path):
    (tmp_path / "log.csv").write_text("'y','c'\n" + "1,'it''s, so'\n0,'b'\n" * 20)
    schema = infer_schema(str(tmp_path / "log.csv")).schema
    assert schema.text == TextFormat(quote="'")
    prepare(schema, str(tmp_path / "log.csv"), str(tmp_path / "out"))
    assert (tmp_path / "out" / "vocabulary" / "c.txt").read_text() == "b\nit's, so\n"
    # Quotes of search queries are values.
    (tmp_path / "queries.tsv").write_text("y\tquery\n" + '1\t"exact words" shoes\n0\tboots\n1\t"words"\n' * 20)
    assert infer_schema(str(tmp_path / "queries.tsv")).schema.text == TextFormat()
    # And a comma-separated log may have no quotes around fields at all.
    (tmp_path / "inches.csv").write_text("y,size\n" + '1,"5\n0,6"\n1,7\n' * 20)
    schema = infer_schema(str(tmp_path / "inches.csv")).schema
    assert schema.text == TextFormat(quote="")
    assert prepare(schema, str(tmp_path / "inches.csv"), str(tmp_path / "sizes")).rows("train") == 60


# ---- directories -----------------------------------------------------------------------------------------------------


def write_tree(directory, ending="csv", write=lambda frame, path: frame.to_csv(path, index=False)):
    """Three parts of a log in a directory as Spark writes it, partitioned by day and, for one, by hour."""
    log = click_log()
    places = ("dt=2026-11-01", "dt=2026-11-02", "dt=2026-11-02/hour=__HIVE_DEFAULT_PARTITION__/site%3Did=a%2Fb")
    for i, place in enumerate(places):
        (directory / place).mkdir(parents=True, exist_ok=True)
        write(log[100 * i : 100 * (i + 1)].reset_index(drop=True), directory / place / f"part-0000{i}.{ending}")
        (directory / place / f".part-0000{i}.{ending}.crc").write_bytes(b"crc")
    (directory / "_SUCCESS").write_bytes(b"")
    (directory / "dt=2026-11-01" / "_committed_12").write_text("{}")
    (directory / "dt=2026-11-01" / "part-00009.csv").write_bytes(b"")  # an empty part
    return log


@pytest.mark.parametrize("pattern", ["", "/**/*.csv", "/dt=*", "/**"])
def test_no_row_of_a_tree_is_lost(tmp_path, pattern):
    write_tree(tmp_path / "tree")
    proposal = infer_schema(f"{tmp_path}/tree{pattern}")
    assert (proposal.rows, proposal.files, proposal.all_files) == (300, 3, 3)
    manifest = prepare(proposal.schema, f"{tmp_path}/tree{pattern}", str(tmp_path / "out"))
    assert manifest.rows("train") == 300 and len(manifest.job["files"]) == 3


@pytest.mark.parametrize(
    ("ending", "write"),
    [
        ("csv", lambda frame, path: frame.to_csv(path, index=False)),
        ("parquet", lambda frame, path: frame.to_parquet(path)),
        ("csv.gz", lambda frame, path: frame.to_csv(path, index=False)),
    ],
)
def test_names_of_directories_are_columns_where_the_schema_asks(tmp_path, ending, write):
    log = write_tree(tmp_path / "tree", ending, write)
    schema = Schema(
        Label("clicked"),
        dense=(DenseFeature("price"), DenseFeature("hour", fill_value=-1.0)),
        categorical=(
            CategoricalFeature("dt"),
            CategoricalFeature("site"),
            CategoricalFeature("place", column="site=id"),
            CategoricalFeature("number", column="nr", dtype="int64"),
        ),
    )
    nested = tmp_path / "nr=7"
    (tmp_path / "tree").rename(nested)
    with pytest.raises(ValueError, match=r"part-00000.*: no column 'hour', 'site=id'; it has: clicked, price, age"):
        prepare(schema, str(nested), str(tmp_path / "out"))
    deep = nested / "dt=2026-11-02" / "hour=__HIVE_DEFAULT_PARTITION__"
    manifest, rows = prepared(schema, str(deep), tmp_path / "deep")
    assert rows["hour"].to_pylist() == [-1.0] * 100 and manifest.rows("train") == 100
    for feature, value in (("dt", "2026-11-02"), ("place", "a/b"), ("number", "7")):
        assert (tmp_path / "deep" / "vocabulary" / f"{feature}.txt").read_text() == f"{value}\n"
    by_day = Schema(Label("clicked"), dense=(DenseFeature("price"),), categorical=(CategoricalFeature("dt"),))
    _, rows = prepared(by_day, str(nested), tmp_path / "days")
    # Row 1 is the most frequent value, the second day.
    assert rows["dt"].to_pylist() == [2] * 100 + [1] * 200
    prices = log["price"].astype("float32").tolist()
    assert rows["price"].to_pylist() == [*prices[:100], *prices[200:], *prices[100:200]]  # sorted by path


def test_values_of_directories_that_were_not_looked_at(tmp_path):
    for country in ("de", "fr", "it"):
        (tmp_path / f"country={country}").mkdir()
        click_log().to_csv(tmp_path / f"country={country}" / "log.csv", index=False)
    proposal = infer_schema(str(tmp_path), rows=100)
    assert proposal.files == 1 and proposal.notes["country"].startswith("in the names of directories, with 3 values; ")
    assert infer_schema(str(tmp_path)).kinds()["country"] == "categorical"
    with_country = (*proposal.schema.categorical, CategoricalFeature("country"))
    schema = Schema(proposal.schema.label, categorical=with_country, text=proposal.schema.text)
    prepare(schema, str(tmp_path / "*"), str(tmp_path / "out"))
    assert (tmp_path / "out" / "vocabulary" / "country.txt").read_text() == "de\nfr\nit\n"


def test_a_column_of_the_file_counts_more_than_the_name_of_a_directory(tmp_path):
    (tmp_path / "site=elsewhere").mkdir()
    click_log().to_csv(tmp_path / "site=elsewhere" / "log.csv", index=False)
    (tmp_path / "site=there").mkdir()
    click_log().to_csv(tmp_path / "site=there" / "log.csv", index=False)
    schema = infer_schema(str(tmp_path), rows=100).schema
    assert "site" in {f.name for f in schema.categorical}
    prepare(schema, str(tmp_path), str(tmp_path / "out"))
    assert "elsewhere" not in (tmp_path / "out" / "vocabulary" / "site.txt").read_text()


def test_a_label_in_the_name_of_a_directory(tmp_path):
    for label in (0, 1):
        (tmp_path / f"logs/clicked={label}").mkdir(parents=True)
        log = click_log().drop(columns="clicked")
        log.to_csv(tmp_path / f"logs/clicked={label}/log.tsv", index=False, header=False, sep="\t")
    columns = ["price", "age", "site", "user_id"]
    schema = infer_schema(str(tmp_path / "logs"), columns=columns).schema
    assert schema.label == Label("clicked") and schema.text.columns == tuple(columns)
    _, rows = prepared(schema, str(tmp_path / "logs"), tmp_path / "out")
    assert rows.column(0).to_pylist() == [0.0] * 300 + [1.0] * 300


def test_parts_without_rows(tmp_path):
    """Spark writes the columns of an empty part, too."""
    log = click_log()
    for name, frame in (("part-0", log[:0]), ("part-1", log)):
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
        frame.astype({"site": "string"}).to_parquet(tmp_path / f"{name}.parquet")
    for ending in ("csv", "parquet"):
        given = f"{tmp_path}/*.{ending}"
        schema = infer_schema(given).schema
        assert prepare(schema, given, str(tmp_path / f"out-{ending}")).rows("train") == ROWS
        with pytest.raises(ValueError, match=rf"part-0\.{ending}: the file has (a header but )?no rows"):
            prepare(schema, f"{tmp_path}/part-0.{ending}", str(tmp_path / "out"))
        (tmp_path / f"empty-{ending}").mkdir()
        for i in (1, 2):
            (tmp_path / f"empty-{ending}" / f"{i}").write_bytes((tmp_path / f"part-0.{ending}").read_bytes())
        with pytest.raises(ValueError, match=r"empty-.*/1 and 1 more files: no usable row for evaluation"):
            no_rows = f"{tmp_path}/empty-{ending}"
            text = Schema(schema.label, schema.dense, schema.categorical, text=TextFormat(delimiter=","))
            prepare(text, given, str(tmp_path / f"eval-{ending}"), eval_inputs=no_rows)


def test_the_manifest_lists_the_files(tmp_path):
    write_tree(tmp_path / "tree")
    schema = infer_schema(str(tmp_path / "tree")).schema
    prepare(schema, str(tmp_path / "tree"), str(tmp_path / "out"))
    names = [file["path"].rpartition("/")[2] for file in PreparedManifest.load(str(tmp_path / "out")).job["files"]]
    assert names == ["part-00000.csv", "part-00002.csv", "part-00001.csv"]
