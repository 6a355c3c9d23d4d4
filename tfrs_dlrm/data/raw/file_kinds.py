"""The kind of a raw file, by its first bytes: text or Parquet, how it is compressed, and what else it may be.

The name of a file decides two things only: the delimiter that text usually has, and what to say if the content differs.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from typing import Literal

from tfrs_dlrm.data.raw import raw_files
from tfrs_dlrm.data.raw.other_kinds import name_other_kind
from tfrs_dlrm.data.raw.unpacking import Packing, read_start
from tfrs_dlrm.stores import StoreError

_HEAD = 512  # bytes; a tar archive says what it is at byte 257
_ENDINGS = re.compile(r"\.(gz|gzip|bz2|bzip2|xz|lzma|zst|zstd|lz4|zip)$")
_PACKINGS: tuple[tuple[bytes, Packing], ...] = (
    (b"\x1f\x8b", "gzip"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"PK\x03\x04", "zip"),
)
_BZIP2 = re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)")
# UTF-32 first: its mark in little endian begins with that of UTF-16.
_MARKS = (
    *((b"\xff\xfe\0\0", "utf-32-le"), (b"\0\0\xfe\xff", "utf-32-be")),
    *((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")),
)


@dataclasses.dataclass(frozen=True)
class FileKind:
    """The kind of a raw file.

    Attributes:
      content: `text` or `parquet`, after decompression.
      packing: how the file is compressed as a whole; empty if it is not.
      encoding: of a text.
    """

    content: Literal["text", "parquet"]
    packing: Packing = ""
    encoding: str = "utf-8"

    @property
    def splittable(self) -> bool:
        """Whether the file can be read from the middle."""
        return not self.packing and self.encoding == "utf-8"


def kind_of(path: str) -> FileKind:
    """Returns the kind of a file.

    Raises:
      ValueError: the file is damaged, or of a kind that is not read; the message names both and what to do.
      FileNotFoundError: the file does not exist.
      StoreError: an object store cannot be reached or refuses.
    """
    return _kind(path, raw_files.identity(path), *raw_files.stat(path))


@functools.lru_cache(1 << 16)
def _kind(path: str, identity: str, size: int, modified_ns: int) -> FileKind:
    """Returns the kind; the arguments after the path change with the content of the file."""
    try:
        head = raw_files.first_bytes(path, _HEAD)
    except StoreError:
        raise
    except OSError as e:
        raise ValueError(f"{path}: cannot be read: {e}") from e
    packing: Packing = "bz2" if _BZIP2.match(head) else ""
    packing = next((name for magic, name in _PACKINGS if head.startswith(magic)), packing)
    if packing:
        head = read_start(path, packing, _HEAD)
        if _BZIP2.match(head) or any(head.startswith(magic) for magic, _ in _PACKINGS):
            raise ValueError(f"{path}: it is compressed twice; decompress it once")
    if _is_parquet(head, path):
        return FileKind("parquet", packing)
    encoding = next((name for mark, name in _MARKS if head.startswith(mark)), "utf-8")
    if what := name_other_kind(path, head, encoding, packing):
        raise ValueError(f"{path}: {what}")
    return FileKind("text", packing, encoding)


def _is_parquet(head: bytes, path: str) -> bool:
    """Whether a file is Parquet: `PAR1`, and then no text, unless the name of the file says so."""
    return head.startswith(b"PAR1") and (says_parquet(path) or any(byte < 9 or 13 < byte < 32 for byte in head[4:64]))


def says_parquet(path: str) -> bool:
    """Whether the name of a file ends like that of a Parquet file."""
    return _without_ending(path).endswith((".parquet", ".pq", ".parq"))


def usual_delimiter(path: str) -> str:
    """The delimiter of text files of this name: a comma in .csv, a tab in others."""
    return "," if _without_ending(path).endswith(".csv") else "\t"


def _without_ending(path: str) -> str:
    """Returns a name in small letters without the ending that says how the file is compressed."""
    return _ENDINGS.sub("", path.lower())
