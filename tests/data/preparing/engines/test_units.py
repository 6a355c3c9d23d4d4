"""Units of work begin in the middle of a file, and hold exactly the blocks that reading it from the beginning gives."""

import bz2
import gzip
import itertools
import lzma
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tfrs_dlrm.data.preparing import job as prepare_job
from tfrs_dlrm.data.preparing.engines.units import WorkUnit, look, stretches, units
from tfrs_dlrm.data.raw import sources
from tfrs_dlrm.data.raw.sources import BlockStart
from tfrs_dlrm.schema import DenseFeature, Label, Schema, TextFormat

SCHEMA = Schema(Label("y"), dense=(DenseFeature("x"),))
NO_HEADER = Schema(Label("y"), dense=(DenseFeature("x"),), text=TextFormat(columns=("y", "x")))


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(sources, "BLOCK_BYTES", 64)
    monkeypatch.setattr(sources, "BLOCK_ROWS", 10)
    monkeypatch.setattr(prepare_job, "BLOCKS_PER_SEGMENT", 3)


def units_of(path, schema):
    size = path.stat().st_size
    answer = [x for s in stretches([str(path)], [size]) for x in look(str(path), s)]
    return units(7, str(path), size, answer, not schema.text.columns)


def blocks_of(path, schema, unit):
    blocks = sources.blocks(str(path), schema, start=unit.start)
    return list(itertools.islice(blocks, prepare_job.BLOCKS_PER_SEGMENT) if unit.start else blocks)


def assert_units_hold_the_file(path, schema):
    """Returns how many units there are."""
    found = units_of(path, schema)
    whole = list(sources.blocks(str(path), schema))
    parts = [blocks_of(path, schema, unit) for unit in found]
    assert list(itertools.chain(*parts)) == whole
    assert sum(unit.size for unit in found) <= path.stat().st_size
    for unit, blocks in zip(found, parts, strict=True):
        assert unit.first_segment == prepare_job.segment_name(7, prepare_job.segment_of(blocks[0]))
        if unit.start:
            assert len({prepare_job.segment_of(block) for block in blocks}) == 1
    return len(found)


def test_by_hand(tmp_path):
    (tmp_path / "log.tsv").write_text("y\tx\n" + 100 * "1\t2345\n")  # 4 + 700 bytes, 64 to a piece
    first, second, *_ = units_of(tmp_path / "log.tsv", SCHEMA)
    # Three pieces hold 192 bytes, of which 4 + 26 * 7 = 186 are whole lines; the next line is the 28th.
    assert first == WorkUnit(7, BlockStart(0, 2, 0, 0), 186)
    assert second.start == BlockStart(3, 28, 186, 192)


@pytest.mark.parametrize("schema", [SCHEMA, NO_HEADER])
def test_text_of_any_shape(tmp_path, schema):
    rng, counts = random.Random(5), []
    for case in range(120):
        lines = [b"y\tx"] if not schema.text.columns else []
        # A line of 63 bytes and its break fill a piece; longer ones leave pieces without any break.
        widths = rng.choices([0, 1, 5, 20, 57, 58, 59], k=rng.randint(1, 60))
        lines += [b"1\t" + b"2" * width + b"\r" * rng.randint(0, 1) if width else b"" for width in widths]
        text = b"\xef\xbb\xbf" * (case % 3 == 0) + b"\n".join(lines) + b"\n" * (case % 2)
        path = tmp_path / f"{case}.tsv"
        path.write_bytes(text)
        try:
            list(sources.blocks(str(path), schema))
        except ValueError as e:  # such as a header and no rows: the unit has to say the same
            with pytest.raises(ValueError) as info:
                [blocks_of(path, schema, unit) for unit in units_of(path, schema)]
            assert str(info.value) == str(e)
            continue
        counts.append(assert_units_hold_the_file(path, schema))
    assert len(counts) > 90 and max(counts) > 5 and min(counts) == 1


def test_parquet_with_row_groups_of_any_size(tmp_path):
    path = tmp_path / "log.parquet"
    with pq.ParquetWriter(path, pa.schema([("y", pa.int8()), ("x", pa.int32())])) as writer:
        for group, rows in enumerate([25, 1, 9, 10, 64, 3]):
            table = pa.table([[group % 2] * rows, list(range(rows))], ["y", "x"])
            writer.write_table(table.cast(writer.schema), row_group_size=rows)
    assert assert_units_hold_the_file(path, SCHEMA) == 5  # 3 + 1 + 1 + 1 + 7 + 1 blocks
    found = units_of(path, SCHEMA)
    assert [u.start for u in found[:2]] == [BlockStart(0, 1, 0, 0), BlockStart(3, 26, 1, 0)]
    assert found[3].start == BlockStart(9, 76, 4, 3)


@pytest.mark.parametrize(
    "pack", [gzip.compress, bz2.compress, lzma.compress, lambda data: data.decode().encode("utf-16")]
)
def test_what_is_read_from_its_beginning_only_is_one_unit(tmp_path, pack):
    text = b"y\tx\n" + 100 * b"1\t2345\n"
    (tmp_path / "part-00000").write_bytes(pack(text))
    (tmp_path / "plain").write_bytes(text)
    assert len(units_of(tmp_path / "plain", SCHEMA)) > 3
    (unit,) = units_of(tmp_path / "part-00000", SCHEMA)
    assert unit == WorkUnit(7, None, (tmp_path / "part-00000").stat().st_size)
    found, expected = ([b.data for b in sources.blocks(str(tmp_path / n), SCHEMA)] for n in ("part-00000", "plain"))
    assert b"".join(found) == b"".join(expected)


def test_what_cannot_be_read_is_one_unit(tmp_path):
    (tmp_path / "log.parquet").write_bytes(b"no Parquet")
    (tmp_path / "log.tsv.gz").write_bytes(b"no gzip" * 100)
    assert units_of(tmp_path / "log.parquet", SCHEMA) == [WorkUnit(7, None, 10)]
    assert units_of(tmp_path / "log.tsv.gz", SCHEMA) == [WorkUnit(7, None, 700)]
