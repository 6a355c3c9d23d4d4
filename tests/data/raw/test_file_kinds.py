"""A file is what its first bytes say, whatever its name: packed in any way it gives the same blocks, or it is named."""

import bz2
import gzip
import io
import json
import lzma
import pickle
import re
import sqlite3
import struct
import tarfile
import zipfile

import duckdb
import google_crc32c
import numpy as np
import pandas
import polars
import pyarrow as pa
import pyarrow.feather
import pyarrow.orc
import pyarrow.parquet as pq
import pytest

from tfrs_dlrm.data.raw import sources, unpacking
from tfrs_dlrm.data.raw.file_kinds import FileKind, kind_of
from tfrs_dlrm.data.raw.infer import infer_schema
from tfrs_dlrm.schema import CategoricalFeature, Label, Schema, TextFormat

SCHEMA = Schema(Label("y"), categorical=(CategoricalFeature("c"),), text=TextFormat(delimiter=","))
TEXT = "y,c\n" + "".join(f"{i % 2},välue {i:0{1 + i % 17}d}\n" for i in range(200))


def arrow_packed(data, codec):
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, codec) as out:
        out.write(data)
    return sink.getvalue().to_pybytes()


def zipped(**members):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


PACK = {
    "": lambda data: data,
    "gzip": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zstd": lambda data: arrow_packed(data, "zstd"),
    "lz4": lambda data: arrow_packed(data, "lz4"),
    "zip": lambda data: zipped(**{"log.csv": data, "__MACOSX/._log.csv": b"\0"}),
}
IN_PIECES = ("gzip", "bz2", "xz", "zstd")


def _parquet():
    out = io.BytesIO()
    pq.write_table(pa.table({"y": [i % 2 for i in range(21)], "c": [f"v{i}" for i in range(21)]}), out)
    return out.getvalue()


def blocks_of(path, data, schema=SCHEMA):
    path.write_bytes(data)
    positions = []
    found = list(sources.blocks(str(path), schema, positions.append))
    assert positions == sorted(positions) and 0 < positions[-1] <= len(data)
    return [(b.index, b.first_row, b.rows, b.data, b.columns, b.delimiter) for b in found]


@pytest.mark.parametrize("packing", PACK)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_text_in_every_packing_gives_the_same_blocks(tmp_path, monkeypatch, packing, encoding):
    monkeypatch.setattr(sources, "BLOCK_BYTES", 64)
    text = TEXT if encoding in ("utf-8", "utf-8-sig") else f"\ufeff{TEXT}"
    expected = blocks_of(
        tmp_path / "plain", text.replace("\ufeff", "").encode("utf-8" if text == TEXT else "utf-8-sig")
    )
    if encoding == "utf-8-sig":
        expected = blocks_of(tmp_path / "marked", TEXT.encode("utf-8-sig"))
    data = text.encode(encoding)
    assert blocks_of(tmp_path / "part-00000", PACK[packing](data)) == expected and len(expected) > 50
    assert b"".join(block[3] for block in expected).decode() == TEXT.partition("\n")[2]
    name = "utf-8" if encoding == "utf-8-sig" else encoding
    assert kind_of(str(tmp_path / "part-00000")) == FileKind("text", packing, name)


@pytest.mark.parametrize("packing", IN_PIECES)
def test_packed_files_that_are_joined(tmp_path, packing):
    half = len(TEXT.encode()) // 2
    parts = [PACK[packing](part) for part in (TEXT.encode()[:half], TEXT.encode()[half:])]
    assert blocks_of(tmp_path / "log", b"".join(parts)) == blocks_of(tmp_path / "plain", TEXT.encode())


@pytest.mark.parametrize("packing", PACK)
@pytest.mark.parametrize("name", ["part-00000", "df.parquet.gzip", "log.csv"])
def test_parquet_under_any_name_and_in_any_packing(tmp_path, monkeypatch, packing, name):
    monkeypatch.setattr(unpacking, "_IN_MEMORY", 100)  # so that it is unpacked to a file
    assert blocks_of(tmp_path / name, PACK[packing](_parquet())) == blocks_of(tmp_path / "a.parquet", _parquet())
    assert infer_schema(str(tmp_path / name), label="y").notes["y"] == "0 or 1; 47.6% are 1"


@pytest.mark.parametrize("packing", [p for p in PACK if p])
@pytest.mark.parametrize("content", [TEXT.encode() * 50, _parquet()], ids=["text", "parquet"])
def test_damaged_packings_are_named(tmp_path, packing, content):
    whole = PACK[packing](content)
    flipped = bytearray(whole)
    flipped[-6] ^= 1  # in a checksum or a directory at the end
    for data in (whole[:-1], whole[: len(whole) // 2], whole[:20], bytes(flipped)):
        if packing == "lz4" and data == flipped:
            continue
        (tmp_path / "log").write_bytes(data)
        with pytest.raises(ValueError, match=r"log: the \w+ file is damaged or ends in the middle: ."):
            list(sources.blocks(str(tmp_path / "log"), SCHEMA))


def test_texts_that_begin_like_something_else(tmp_path):
    for header in ("PAR1", "ORCID", "BZh9", "PKID", "Objects", "RDX", "FEA1"):
        (tmp_path / "log").write_text(f"{header},y\na,0\n")
        schema = Schema(Label("y"), categorical=(CategoricalFeature(header),), text=TextFormat(delimiter=","))
        assert [b.columns for b in sources.blocks(str(tmp_path / "log"), schema)] == [(header, "y")]


def _record(data):
    def crc(of):
        value = google_crc32c.value(of)
        return struct.pack("<I", ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF)

    length = struct.pack("<Q", len(data))
    return length + crc(length) + data + crc(data)


def _write_others(directory):
    """Writes a table in formats that are not read."""
    table = pa.table({"y": [0, 1, 1], "c": ["a", "b", "c"]})
    pa.orc.write_table(table, directory / "log.orc")
    pa.feather.write_feather(table, directory / "log.feather")
    pa.feather.write_feather(table, directory / "log.v1", version=1)
    with pa.ipc.new_stream(directory / "log.arrows", table.schema) as out:
        out.write_table(table)
    polars.from_arrow(table).write_avro(directory / "log.avro")
    table.to_pandas().to_pickle(directory / "log.pkl")
    table.to_pandas().to_json(directory / "log.jsonl", orient="records", lines=True)
    table.to_pandas().to_json(directory / "log.json", orient="records", indent=1)
    with sqlite3.connect(directory / "log.db") as connection:
        table.to_pandas().to_sql("NAME", connection, index=False)
    connection.close()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("log.orc", "an ORC file, which is not read"),
        ("log.feather", r"an Arrow \(Feather\) file, which is not read"),
        ("log.v1", "a Feather file"),
        ("log.arrows", "a stream of Arrow batches"),
        ("log.avro", "an Avro file"),
        ("log.pkl", "a pickle, which may run code"),
        ("log.jsonl", "JSON, which is read in streams only"),
        ("log.json", "JSON, which is read in streams only"),
        ("log.db", "an SQLite database"),
    ],
)
def test_other_kinds_are_named_and_converted_as_the_message_says(tmp_path, monkeypatch, name, kind):
    monkeypatch.chdir(tmp_path)
    _write_others(tmp_path)
    with pytest.raises(ValueError, match=rf"{re.escape(name)}: this is {kind}.*convert it to Parquet: ") as info:
        infer_schema(name)
    expression = str(info.value).partition("convert it to Parquet: ")[2]
    eval(expression, {"pyarrow": pa, "pandas": pandas, "polars": polars, "duckdb": duckdb, "sqlite3": sqlite3})
    table = pq.read_table("log.parquet").to_pydict()
    assert table == {"y": [0, 1, 1], "c": ["a", "b", "c"]}


def _tar():
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        info = tarfile.TarInfo("log.csv")
        info.size = len(TEXT.encode())
        archive.addfile(info, io.BytesIO(TEXT.encode()))
    return out.getvalue()


def _npy():
    out = io.BytesIO()
    np.save(out, np.arange(10))
    return out.getvalue()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (_tar(), r"a tar archive, which is not read; unpack it \(tar -xf"),
        (gzip.compress(_tar()), "a tar archive"),
        (bz2.compress(pickle.dumps({"a": 1}, 4)), "a pickle, .*; if you trust it, decompress it, then convert"),
        (zipped(a=b"1", b=b"2"), "a zip archive of 2 files, one is needed; unpack it into a directory and give that"),
        (zipped(**{"[Content_Types].xml": b"<", "xl/workbook.xml": b"<"}), "an Excel file, .*save it as CSV"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(99), "an Excel file"),
        (_record(b"example") * 3, "a TFRecord file"),
        (_npy(), "an array of NumPy"),
        (b"7z\xbc\xaf\x27\x1c\0\4", "a 7z archive, .*decompress it, such as by 7z x"),
        (b"<!DOCTYPE html>\n<html>", "a web page or XML, as a failed download leaves; download the file again"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "a pointer of Git LFS, not the file; run"),
        (TEXT.encode("utf-16-le"), "it holds zero bytes, .* if it is UTF-16 without a mark, convert it: iconv"),
        (b"\xff\xfe" + TEXT.encode("utf-16-le")[:-1], "its mark says UTF-16-LE, but it is damaged or cut off"),
        (gzip.compress(gzip.compress(TEXT.encode())), "it is compressed twice; decompress it once"),
    ],
)
def test_other_files_are_named(tmp_path, data, message):
    (tmp_path / "log.csv").write_bytes(data)
    with pytest.raises(ValueError, match=rf"log\.csv: (this is )?{message}"):
        list(sources.blocks(str(tmp_path / "log.csv"), SCHEMA))
    with pytest.raises(ValueError, match=rf"log\.csv: (this is )?{message}"):
        infer_schema(str(tmp_path / "log.csv"), label="y")


def test_a_zip_archive_is_unpacked_as_its_message_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "two.zip").write_bytes(zipped(**{"a.csv": TEXT, "b.csv": TEXT}))
    with pytest.raises(ValueError, match=r"python -m zipfile -e 'two\.zip' DIRECTORY"):
        infer_schema("two.zip")
    zipfile.main(["-e", "two.zip", "DIRECTORY"])
    assert infer_schema("DIRECTORY", label="y").rows == 400


def test_a_changed_file_is_looked_at_again(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(TEXT.encode())
    assert kind_of(str(path)).packing == ""
    path.write_bytes(gzip.compress(TEXT.encode()))
    assert kind_of(str(path)).packing == "gzip"


def test_no_json_is_taken_for_text(tmp_path):
    (tmp_path / "log").write_text(json.dumps([{"y": 1}], indent=2))
    with pytest.raises(ValueError, match="this is JSON"):
        kind_of(str(tmp_path / "log"))
    (tmp_path / "text").write_text('{x},"{y}"\n1,2\n')
    assert kind_of(str(tmp_path / "text")) == FileKind("text")
