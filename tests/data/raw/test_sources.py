"""How files are cut into blocks."""

import errno
import gzip
import os
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tfrs_dlrm.data.raw import sources, text_layout
from tfrs_dlrm.data.raw.sniffing import read_first_rows
from tfrs_dlrm.schema import CategoricalFeature, Label, Schema, TextFormat

SCHEMA = Schema(Label("y"), categorical=(CategoricalFeature("c"),))


@pytest.mark.parametrize("name", ["log.csv", "log.csv.gz"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_text_is_cut_at_lines_and_nothing_is_lost(tmp_path, monkeypatch, name, end):
    monkeypatch.setattr(sources, "BLOCK_BYTES", 64)
    lines = [f"{i % 2},value {i:0{1 + i % 17}d}" for i in range(200)]
    raw = b"\xef\xbb\xbf" + end.join(["y,c", *lines]).encode()  # a BOM, and no line break at the end
    path = tmp_path / name
    path.write_bytes(gzip.compress(raw) if name.endswith("gz") else raw)
    positions = []
    blocks = list(sources.blocks(str(path), SCHEMA, positions.append))
    assert [b.index for b in blocks] == list(range(len(blocks))) and len(blocks) > 50
    assert b"".join(b.data for b in blocks) == (end.join(lines) + "\n").encode()
    assert max(len(b.data) for b in blocks) < 2 * 64
    first_row = 2
    for block in blocks:
        assert block.first_row == first_row and block.columns == ("y", "c") and block.delimiter == ","
        assert block.texts([first_row]) == [lines[first_row - 2]]
        first_row += block.data.count(b"\n")
    assert positions == sorted(positions) and positions[-1] == os.path.getsize(path)


def test_parquet_is_cut_by_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "BLOCK_ROWS", 4)
    table = pa.table({"unused": ["u"] * 21, "c": [f"v{i}" for i in range(21)], "y": [i % 2 for i in range(21)]})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=10)
    blocks = list(sources.blocks(str(tmp_path / "a.parquet"), SCHEMA))
    assert [(b.first_row, b.data.num_rows) for b in blocks] == [
        (1, 4),
        (5, 4),
        (9, 2),
        (11, 4),
        (15, 4),
        (19, 2),
        (21, 1),
    ]
    assert [v for b in blocks for v in b.data["c"].to_pylist()] == table["c"].to_pylist()
    assert blocks[1].texts([6]) == ["{'y': 1, 'c': 'v5'}"]


@pytest.mark.parametrize(
    ("text", "message"), [(b"x,", "line 1 is longer than 200000 bytes; is this a text"), (b"x\r", "carriage returns")]
)
@pytest.mark.parametrize("schema", [None, SCHEMA, replace(SCHEMA, text=TextFormat(columns=("y", "c")))])
def test_a_file_without_a_line_end_is_read_up_to_a_bound_and_no_further(tmp_path, monkeypatch, text, message, schema):
    monkeypatch.setattr(sources, "BLOCK_BYTES", 200_000)
    read, real = [], text_layout.chunks

    def count(*args):
        for piece in real(*args):
            read.append(len(piece))
            yield piece

    monkeypatch.setattr(text_layout, "chunks", count)
    path = tmp_path / "log.csv"
    path.write_bytes(text * 2_000_000)
    with pytest.raises(ValueError, match=message):
        sources.check(str(path), schema) if schema else read_first_rows([str(path)], (), None, 10)
    assert sum(read) < 2_000_000


def test_no_room_for_an_unpacked_copy_is_no_damage_of_the_file(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "no room in '/tmp' to unpack")

    pq.write_table(pa.table({"y": [1], "c": ["a"]}), tmp_path / "log.parquet")
    monkeypatch.setattr(sources, "open_parquet", full)
    with pytest.raises(OSError, match="no room in '/tmp' to unpack"):
        sources.columns_of(str(tmp_path / "log.parquet"), TextFormat())
