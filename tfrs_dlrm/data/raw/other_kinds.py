"""Names files of kinds that are not read, by their first bytes, and says how to convert them."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable

import google_crc32c

_TO_PARQUET = "convert it to Parquet: "


def _arrow(reader: str) -> Callable[[str], str]:
    """Advice to convert with a function of pyarrow that returns a table."""
    return lambda path: f"pyarrow.parquet.write_table({reader.format(repr(path))}, {_new_name(path)!r})"


def _frame(reader: str, method: str = "to_parquet") -> Callable[[str], str]:
    """Advice to convert with a function of pandas or polars that returns a frame."""
    return lambda path: f"{reader.format(repr(path))}.{method}({_new_name(path)!r})"


def _new_name(path: str) -> str:
    return f"{os.path.splitext(os.path.basename(path))[0]}.parquet"


# Of each kind: its first bytes, its name, and an expression that converts a file. The first bytes of ORC are letters.
_KINDS: tuple[tuple[bytes, str, Callable[[str], str]], ...] = (
    (b"ORC", "an ORC file", _arrow("pyarrow.orc.read_table({})")),
    (b"ARROW1", "an Arrow (Feather) file", _arrow("pyarrow.feather.read_table({})")),
    (b"FEA1", "a Feather file", _arrow("pyarrow.feather.read_table({})")),
    (b"\xff\xff\xff\xff", "a stream of Arrow batches", _arrow("pyarrow.ipc.open_stream({}).read_all()")),
    (b"Obj\x01", "an Avro file", _frame("polars.read_avro({})", "write_parquet")),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Excel file", _frame("pandas.read_excel({})")),
    (b"SQLite format 3\0", "an SQLite database", _frame("pandas.read_sql('SELECT * FROM NAME', sqlite3.connect({}))")),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file", _frame("pandas.read_hdf({})")),
    (b"\x93NUMPY", "an array of NumPy", _arrow("pyarrow.table(dict(enumerate(numpy.load({}).T)))")),
    (b"RDX", "a file of R", _frame("pyreadr.read_r({})[None]")),
)
_UNPACK: tuple[tuple[bytes, str, str], ...] = (
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "7z x"),
    (b"Rar!\x1a\x07", "a rar archive", "unrar x"),
    (b"\x1f\x9d", "compressed by compress", "uncompress"),
    (b"\xff\x06\0\0sNaPpY", "compressed by Snappy", "snzip -d"),
    (b"\x89LZO\0\r\n\x1a\n", "compressed by LZO", "lzop -d"),
)
_PICKLE = re.compile(rb"\x80[\x02-\x05]")
_JSON = re.compile(rb'\s*(\[\s*)?\{\s*("|\})')
_HTML = re.compile(rb"\s*<(!doctype html|html|\?xml)", re.IGNORECASE)


def name_other_kind(path: str, head: bytes, encoding: str, packing: str) -> str:
    """Returns what a file is that is neither text nor Parquet, and what to do; empty for a text.

    Args:
      path: the file, for the advice.
      head: its first bytes, decompressed.
      encoding: of the text that it may be.
      packing: how the file is compressed; empty if it is not.
    """
    first = f"decompress it, then {_TO_PARQUET}" if packing else _TO_PARQUET
    binary = any(byte < 9 or 13 < byte < 32 for byte in head)
    for magic, name, convert in _KINDS:
        if head.startswith(magic) and binary:
            return f"this is {name}, which is not read; {first}{convert(path)}"
    for magic, name, command in _UNPACK:
        if head.startswith(magic):
            return f"this is {name}, which is not read; decompress it, such as by {command} {path!r}"
    if head[257:262] == b"ustar":
        return f"this is a tar archive, which is not read; unpack it (tar -xf {path!r}) and give its files"
    if head[8:12] == b"DUCK":
        return "this is a DuckDB database; write a table as Parquet: COPY NAME TO 'log.parquet'"
    if head.startswith(b"PARE"):
        return "this is an encrypted Parquet file, which is not read; write it without encryption"
    if _PICKLE.match(head):
        expression = _frame("pandas.read_pickle({})")(path)
        return f"this is a pickle, which may run code when it is read; if you trust it, {first}{expression}"
    if _is_records(head):
        return "this is a TFRecord file; give the log that it was made of, or write its examples as Parquet"
    return "" if encoding != "utf-8" else _odd_text(path, head, first)


def _odd_text(path: str, head: bytes, first: str) -> str:
    """Names texts that are no rows, and bytes that are no text."""
    if _JSON.match(head):
        what = f"duckdb.read_json({path!r}).write_parquet({_new_name(path)!r})"
        return f"this is JSON, which is read in streams only; {first}{what}"
    if _HTML.match(head):
        return "this is a web page or XML, as a failed download leaves; download the file again"
    if head.startswith(b"version https://git-lfs"):
        return f"this is a pointer of Git LFS, not the file; run: git lfs pull --include={os.path.basename(path)!r}"
    if head.count(0) * 8 >= len(head) > 0:
        return (
            "it holds zero bytes, so it is no text in UTF-8; if it is UTF-16 without a mark, convert it: iconv -f"
            f" UTF-16LE -t UTF-8 {path!r}"
        )
    return ""


def _is_records(head: bytes) -> bool:
    """Whether bytes begin a TFRecord: a length and its masked CRC32C."""
    if len(head) < 12 or head[:8] == bytes(8):
        return False
    crc = google_crc32c.value(head[:8])
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    return bool(masked == struct.unpack("<I", head[8:12])[0])
