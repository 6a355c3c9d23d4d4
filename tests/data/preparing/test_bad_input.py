"""What a user gets who gives `prepare` or `dataset` something broken: which file, row and column, and what to do."""

import errno
import filecmp
import gzip
import os

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from tfrs_dlrm.data.preparing import job as prepare_job
from tfrs_dlrm.data.preparing.manifest import PreparedManifest
from tfrs_dlrm.data.preparing.prepare import prepare
from tfrs_dlrm.data.raw import sources
from tfrs_dlrm.data.raw.parsing import BadRowError
from tfrs_dlrm.data.reading.dataset import dataset
from tfrs_dlrm.schema import CategoricalFeature, DenseFeature, Label, Schema, Table, TextFormat
from tfrs_dlrm.stores.files import disk_full

SCHEMA = Schema(
    Label("y"),
    dense=(DenseFeature("price"),),
    categorical=(
        CategoricalFeature("site"),
        CategoricalFeature("slot", encoding="ids", dtype="int64", out_of_range="error"),
        CategoricalFeature("tags", separator="|", weights="tw"),
    ),
    tables=(Table("slot", vocabulary_size=4),),
)
HEADER = "y,price,site,slot,tags,tw\n"
GOOD = "1,2.5,a,1,x|y,1|2\n"


def run(tmp_path, content, name="log.csv", schema=SCHEMA, **kwargs):
    if content is not None:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return prepare(schema, [str(tmp_path / name)], str(tmp_path / "out"), **kwargs)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1,2.5,a,1,x|y\n", "line 4: 5 fields, 6 are expected"),
        ("1,2.5,a,1,x|y,1|2,\n", "line 4: 7 fields, 6 are expected"),
        ("1,cheap,a,1,x|y,1|2\n", "line 4, column 'price': 'cheap' is not a finite float32 number"),
        ("2,2.5,a,1,x|y,1|2\n", "line 4, column 'y': label 2 is neither 0 nor 1"),
        ("yes,2.5,a,1,x|y,1|2\n", "line 4, column 'y': 'yes' is not a finite float32 number"),
        (",2.5,a,1,x|y,1|2\n", "line 4, column 'y': the label is missing"),
        (b"1,2.5,\xe9t\xe9,1,x|y,1|2\n", r"line 4, column 'site': invalid UTF-8: b'\\xe9t\\xe9'"),
        ("1,2.5,a,one,x|y,1|2\n", "line 4, column 'slot': 'one' is not a whole number"),
        ("1,2.5,a,4,x|y,1|2\n", "line 4, column 'slot': feature 'slot': 4 has no row in its table of 4"),
        ("1,2.5,a,1,x|y,1\n", "line 4, column 'tw': 1 weights for 2 values"),
        ("1,2.5,a,1,x|y,1|heavy\n", r"line 4, column 'tw': the weights \[1.0, None\] are not all finite"),
        ('1,2.5,"a,1,x|y,1|2\n', "line 4: a quote that is never closed"),
        ("1,2.5,a\rb,1,x|y,1|2\n", "line 4: a carriage return in the middle of the line"),
    ],
)
def test_a_bad_row(tmp_path, line, message):
    line = line if isinstance(line, bytes) else line.encode()
    content = (HEADER + GOOD * 2).encode() + line + GOOD.encode()
    with pytest.raises(BadRowError, match=rf"log\.csv: {message}.*\. Correct it, or set such rows aside"):
        run(tmp_path, content)
    (tmp_path / "again").mkdir()
    manifest = run(tmp_path / "again", content + b"0,worse\n", bad_rows="quarantine")
    assert manifest.bad_rows == 2 and manifest.rows("train") == 3


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("log.csv", None, r"no file matches '.*log\.csv' \(looked from .*\)$"),
        ("log.csv", b"", r"log\.csv: the file is empty"),
        ("log.csv.gz", gzip.compress(b"", mtime=0), r"log\.csv\.gz: the file is empty"),
        ("log.csv", HEADER, r"log\.csv: the file has a header but no rows"),
        ("log.csv", HEADER.strip(), r"log\.csv: the file has a header but no rows"),
        ("log.csv", HEADER + "\n\n", r"log\.csv: no usable row for training$"),
        (
            "log.csv",
            "y,cost,site,tags,tw\n",
            r"log\.csv: no column 'price', 'slot'; it has: y, cost, site, tags, tw; if",
        ),
        (
            "log.tsv",
            HEADER + GOOD,
            r"log\.tsv: no column 'y', .*; it has: y,price,site,slot,tags,tw; if ',' separates its columns, say",
        ),
        ("log.csv", GOOD, r"log\.csv: no column .*if the file has no header line, list its columns in text\.columns"),
        ("log.csv", b"y,pr\xffce\n1,2\n", r"log\.csv: line 1: invalid UTF-8 in the header: .*0xff in position 4"),
        ("log.csv", "y,site," + HEADER + "1,a," + GOOD, r"log\.csv: column 'y' occurs 2 times"),
        (
            "log.csv.gz",
            gzip.compress((HEADER + GOOD * 999).encode(), mtime=0)[:-9],
            r"log\.csv\.gz: the gz file is damaged or ends in",
        ),
        (
            "log.csv.gz",
            gzip.compress((HEADER + GOOD * 999).encode(), mtime=0)[:-1],
            r"log\.csv\.gz: the gz file is damaged or ends in",
        ),
        ("log.csv.gz", b"\x1f\x8bno gzip", r"log\.csv\.gz: the gz file is damaged or ends in the middle: "),
        ("log.parquet", b"PAR1 and then nothing", r"log\.parquet: not a readable Parquet file: "),
        ("log.parquet", HEADER + GOOD, r"log\.parquet: not a readable Parquet file: "),
    ],
)
def test_a_bad_file(tmp_path, name, content, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        run(tmp_path, content, name)


def test_a_file_that_is_no_text(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "BLOCK_BYTES", 100)
    with pytest.raises(ValueError, match=r"log\.csv: line 1 is longer than 100 bytes; is this a text file\?"):
        run(tmp_path, b"\1" * 300)
    with pytest.raises(ValueError, match=r"zero\.csv: it holds zero bytes, so it is no text in UTF-8; if it is UTF-16"):
        run(tmp_path, b"\0" * 300, "zero.csv")
    with pytest.raises(ValueError, match=r"long\.csv: line 3 is longer than 100 bytes; is this a text file\?"):
        run(tmp_path, HEADER + GOOD + "x" * 400, "long.csv")


def test_a_directory_without_files(tmp_path):
    (tmp_path / "logs").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no file matches '.*logs'.*; the directory holds no data files$"):
        prepare(SCHEMA, [str(tmp_path / "logs")], str(tmp_path / "out"))


def test_all_rows_bad(tmp_path):
    schema = Schema(SCHEMA.label, SCHEMA.dense, text=TextFormat(columns=("y", "price")))
    message = (
        r"log\.csv: no usable row for training; bad_rows='error', and another output, says what is wrong with the first"
    )
    with pytest.raises(ValueError, match=message):
        run(tmp_path, HEADER + GOOD, schema=schema, bad_rows="quarantine")


def _log_parquet(path):
    table = pa.table(
        {"y": [0, 1] * 5000, "price": [i / 7 for i in range(10_000)], "site": [f"s{i}" for i in range(10_000)]}
    )
    pq.write_table(table, path, write_page_checksum=True)


PLAIN = Schema(Label("y"), dense=(DenseFeature("price"),), categorical=(CategoricalFeature("site"),))


def flip(path, position):
    """Damages one byte."""
    content = bytearray(path.read_bytes())
    content[position] ^= 0x10
    path.write_bytes(content)


def test_damaged_parquet_input(tmp_path):
    _log_parquet(tmp_path / "log.parquet")
    flip(tmp_path / "log.parquet", 40_000)
    with pytest.raises(ValueError, match=r"log\.parquet: not a readable Parquet file: .*(CRC|checksum)"):
        run(tmp_path, None, "log.parquet", PLAIN)
    table = pa.table({"y": [0, 1], "price": [1.0, 2.0], "site": [1, 2]})
    pq.write_table(table.rename_columns(["y", "price", "price"]), tmp_path / "twice.parquet")
    with pytest.raises(ValueError, match=r"twice\.parquet: no column 'site'; it has: y, price, price$"):
        run(tmp_path, None, "twice.parquet", PLAIN)
    only_price = Schema(Label("y"), dense=(DenseFeature("price"),))
    with pytest.raises(ValueError, match=r"twice\.parquet: column 'price' occurs 2 times"):
        run(tmp_path, None, "twice.parquet", only_price)
    pq.write_table(table.slice(0, 0), tmp_path / "none.parquet")
    with pytest.raises(ValueError, match=r"none\.parquet: the file has no rows"):
        run(tmp_path, None, "none.parquet", PLAIN)


@pytest.fixture
def prepared(tmp_path):
    _log_parquet(tmp_path / "log.parquet")
    run(tmp_path, None, "log.parquet", PLAIN)
    return tmp_path / "out"


def test_a_damaged_shard(prepared):
    shard = prepared / "train" / "part-00000-00000.parquet"
    whole = shard.read_bytes()
    for position in (100, len(whole) // 2):  # in the pages: seen when they are read
        flip(shard, position)
        message = rf"{shard}: cannot be read; prepare the data again: .*(CRC|checksum)"
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            list(dataset(str(prepared), 100))
        shard.write_bytes(whole)
    flip(shard, len(whole) - 5)  # the length of the footer
    with pytest.raises(ValueError, match=rf"{shard}: not a readable Parquet file; prepare the data again: "):
        dataset(str(prepared), 100)
    shard.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=rf"{shard}: not a readable Parquet file; prepare the data again: "):
        dataset(str(prepared), 100)
    shard.unlink()
    with pytest.raises(ValueError, match=rf"{shard}: the shard is listed in the manifest but missing; prepare"):
        dataset(str(prepared), 100)


def test_a_shard_of_another_run(prepared):
    shard = prepared / "train" / "part-00000-00000.parquet"
    table = pq.read_table(shard)
    pq.write_table(table.slice(1), shard)
    with pytest.raises(ValueError, match=rf"{shard}: 9999 rows, 10000 are expected; prepare the data again"):
        dataset(str(prepared), 100)
    pq.write_table(table.drop_columns("site"), shard)
    with pytest.raises(
        ValueError, match=rf"{shard}: column 'site' should be int32 for this schema, it has: no such column"
    ):
        dataset(str(prepared), 100)
    pq.write_table(table.set_column(2, "site", table["site"].cast(pa.int64())), shard)
    with pytest.raises(ValueError, match=rf"{shard}: column 'site' should be int32 for this schema, it has: int64"):
        dataset(str(prepared), 100)


def test_a_directory_that_is_not_prepared(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere: no prepared data \(no prepared\.json\)"):
        dataset(str(tmp_path / "nowhere"), 1)
    with pytest.raises(BadRowError):
        run(tmp_path, HEADER + "x\n")
    with pytest.raises(FileNotFoundError, match=r"out: its preparation did not finish; run the same command again"):
        dataset(str(tmp_path / "out"), 1)


def test_an_output_that_holds_something_else(prepared):
    inputs = [str(prepared.parent / "log.parquet")]
    with pytest.raises(
        ValueError, match=r"out: already holds data prepared differently \(seed changed\); choose another"
    ):
        prepare(PLAIN, inputs, str(prepared), seed=1)
    with pytest.raises(ValueError, match=r"prepared differently \(schema, eval_fraction changed\)"):
        prepare(Schema(PLAIN.label, PLAIN.dense), inputs, str(prepared), eval_fraction=0.5)
    os.utime(inputs[0], (1, 1))
    with pytest.raises(ValueError, match=r"prepared differently \(files changed\)"):
        prepare(PLAIN, inputs, str(prepared))
    with pytest.raises(
        ValueError, match=r"train: the directory exists and holds something else; choose another output"
    ):
        prepare(PLAIN, inputs, str(prepared / "train"))


def test_work_begun_for_another_job(tmp_path, monkeypatch):
    monkeypatch.setattr(prepare_job, "BLOCKS_PER_SEGMENT", 1)
    monkeypatch.setattr(sources, "BLOCK_BYTES", 100)
    with pytest.raises(
        BadRowError, match="line 2"
    ):  # before any segment is finished: mend it, and the same command works
        run(tmp_path, HEADER + "x\n" + GOOD * 20)
    with pytest.raises(BadRowError, match="line 22"):
        run(tmp_path, HEADER + GOOD * 20 + "x\n")
    message = r"out: already holds data prepared differently \(files changed\); choose another output, or remove it"
    with pytest.raises(ValueError, match=message):
        run(tmp_path, HEADER + GOOD * 20)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"eval_fraction": 1.0}, r"eval_fraction=1.0 is not in \[0, 1\)"),
        ({"eval_fraction": 0.1, "eval_inputs": ["log.csv"]}, "either eval_inputs or eval_fraction"),
        ({"bad_rows": "skip"}, "bad_rows='skip' is neither 'error' nor 'quarantine'"),
        ({"eval_inputs": ["./log.csv"]}, r"\./log\.csv: given for training and for evaluation"),
    ],
)
def test_arguments_that_contradict_each_other(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        run(tmp_path, HEADER + GOOD, **arguments)


def test_a_full_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "BLOCK_ROWS", 500)
    _log_parquet(tmp_path / "log.parquet")
    run(tmp_path, None, "log.parquet", PLAIN, eval_fraction=0.3)
    os.rename(tmp_path / "out", tmp_path / "undisturbed")
    calls = []
    write_table = pq.ParquetWriter.write_table

    def segments():
        return [path for split in ("train", "eval") for path in sorted(tmp_path.glob(f"out/{split}/*.parquet"))]

    def full(self, table, *args, **kwargs):
        if len(segments()) == 4:  # two segments of two splits
            calls.append(table.num_rows)
        if len(calls) == 2:  # the third is under way
            raise OSError(errno.ENOSPC, "Error writing bytes to file. Detail: No space left on device")
        write_table(self, table, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(pq.ParquetWriter, "write_table", full)
        message = r"the disk is full; .* has its final name\. .*out: free some space, then run the same command again"
        with pytest.raises(OSError, match=message) as info:
            run(tmp_path, None, "log.parquet", PLAIN, eval_fraction=0.3)
    assert info.value.errno == errno.ENOSPC
    assert len(segments()) == 4
    for path in segments():
        assert filecmp.cmp(path, tmp_path / "undisturbed" / path.relative_to(tmp_path / "out"), shallow=False)
    run(tmp_path, None, "log.parquet", PLAIN, eval_fraction=0.3)
    a, b = (
        {p.relative_to(d): p.read_bytes() for p in d.rglob("*.*")} for d in (tmp_path / "undisturbed", tmp_path / "out")
    )
    assert a == b
    assert PreparedManifest.load(str(tmp_path / "out")).rows("train") > 6000


def test_a_full_disk_under_duckdb():
    with pytest.raises(OSError, match=r"the disk is full.*make room"), disk_full("make room"):
        raise duckdb.IOException("Could not write file: No space left on device")
    with pytest.raises(duckdb.IOException, match="permission"), disk_full("make room"):
        raise duckdb.IOException("permission denied")
