"""Reads raw files as the bytes of a text in UTF-8, or as a Parquet file, however they are compressed and encoded."""

from __future__ import annotations

import codecs
import contextlib
import errno
import lzma
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Literal, Protocol

import pyarrow as pa

from tfrs_dlrm.data.raw import raw_files
from tfrs_dlrm.stores import StoreError

Packing = Literal["", "gzip", "bz2", "xz", "zstd", "lz4", "zip"]
_DAMAGED = (
    *(OSError, EOFError, lzma.LZMAError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError),
    pa.ArrowInvalid,  # for a seek to before the beginning, in a cut zip archive
)
_NAMES = {"gzip": "gz", "zstd": "zst"}
_PIECE = 1 << 20
# A Parquet file within another compression is unpacked into memory up to this size, and then to a temporary file.
_IN_MEMORY = 64 << 20


class Bytes(Protocol):
    """Anything that bytes can be read of."""

    def read(self, size: int, /) -> bytes:
        """Reads at most `size` bytes; none at the end."""


def chunks(
    path: str, packing: Packing, encoding: str, size: int, report: Callable[[int], None], begin: int = 0
) -> Iterator[bytes]:
    """Yields the bytes of a text in UTF-8, in pieces of `size`; the last is shorter.

    Args:
      path: the file.
      packing: how it is compressed.
      encoding: of the text; a mark at its beginning stays.
      size: of the pieces.
      report: called with the number of bytes of the file read so far.
      begin: the byte to begin at, in a file that is neither compressed nor encoded.

    Raises:
      ValueError: the file is damaged; the message names it.
    """
    with explained(path, packing), raw_files.open_file(path) as raw:
        raw.seek(begin)
        with _unpacked(path, raw, packing) as stream:
            text: Bytes = stream if encoding == "utf-8" else _Recoded(path, stream, encoding)
            while chunk := read_full(text, size):
                report(raw.tell())
                yield chunk


def read_start(path: str, packing: Packing, size: int) -> bytes:
    """Reads the first bytes of a compressed file, decompressed.

    Raises:
      ValueError: the file is damaged, or an archive of several files.
    """
    with explained(path, packing), raw_files.open_file(path) as raw, _unpacked(path, raw, packing) as stream:
        return read_full(stream, size)


def open_parquet(path: str, packing: Packing) -> pa.NativeFile:
    """Opens a Parquet file for reading at any position; if it is compressed as a whole, an unpacked copy.

    The copy vanishes when it is closed.

    Raises:
      ValueError: the file is damaged; the message names it.
      OSError: the file cannot be opened, or there is no room for the copy.
    """
    if not packing:
        return raw_files.open_file(path)
    copy = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 (closed with the file that is returned)
    with explained(path, packing), raw_files.open_file(path) as raw, _unpacked(path, raw, packing) as stream:
        while piece := read_full(stream, _PIECE):
            copy.write(piece)
    copy.seek(0)
    return pa.PythonFile(copy, "r")


@contextlib.contextmanager
def explained(path: str, packing: Packing) -> Iterator[None]:
    """Turns what decompressors raise into a ValueError that names the file."""
    try:
        yield
    except StoreError:
        raise
    except _DAMAGED as e:
        if getattr(e, "errno", None) == errno.ENOSPC:
            where = f"no room in {tempfile.gettempdir()!r} to unpack a Parquet file that is compressed as a whole"
            raise OSError(errno.ENOSPC, f"{path}: {where}; unpack it, or set TMPDIR to a larger disk") from e
        what = f"the {_NAMES.get(packing, packing)} file is damaged or ends in the middle"
        raise ValueError(f"{path}: {what if packing else 'cannot be read'}: {e}") from e


def read_full(stream: Bytes, size: int) -> bytes:
    """Reads exactly `size` bytes, fewer only at the end; a decompressor may return fewer per call."""
    parts, missing = [], size
    while missing > 0 and (part := stream.read(missing)):
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


@contextlib.contextmanager
def _unpacked(path: str, raw: pa.NativeFile, packing: Packing) -> Iterator[Bytes]:
    if packing == "":
        yield raw
    elif packing == "xz":
        with lzma.LZMAFile(raw) as stream:
            yield stream
    elif packing == "zip":
        with zipfile.ZipFile(raw) as archive, archive.open(_only_member(path, archive)) as member:
            yield member
    else:
        with pa.CompressedInputStream(raw, packing) as stream:
            yield stream


def _only_member(path: str, archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    """Returns the one file in an archive.

    Raises:
      ValueError: it is encrypted, a document, or there are several.
    """
    # Finder of macOS adds the second and third.
    members = [m for m in archive.infolist() if not m.is_dir() and not m.filename.startswith("__MACOSX/")]
    members = [m for m in members if m.filename.rpartition("/")[2] != ".DS_Store"]
    names = [m.filename for m in members]
    if "[Content_Types].xml" in names:
        raise ValueError(
            f"{path}: this is an Excel file, which is not read; save it as CSV, or convert it to Parquet:"
            f" pandas.read_excel({path!r}).to_parquet('log.parquet')"
        )
    if len(members) != 1:
        raise ValueError(
            f"{path}: a zip archive of {len(members)} files, one is needed; unpack it into a directory and give that:"
            f" python -m zipfile -e {path!r} DIRECTORY"
        )
    if members[0].flag_bits & 1:
        raise ValueError(f"{path}: the zip archive is encrypted, which is not read; unpack it with its password")
    return members[0]


class _Recoded:
    """The bytes of a text in UTF-8, of a stream in another encoding."""

    def __init__(self, path: str, stream: Bytes, encoding: str):
        self._path, self._stream, self._encoding = path, stream, encoding
        self._decoder: Any = codecs.getincrementaldecoder(encoding)()
        self._rest, self._over = b"", False

    def read(self, size: int, /) -> bytes:
        """Reads at most `size` bytes; none at the end."""
        while not self._rest and not self._over:
            piece = read_full(self._stream, _PIECE)
            self._over = not piece
            try:
                self._rest = self._decoder.decode(piece, self._over).encode("utf-8", "replace")
            except UnicodeDecodeError as e:
                name = self._encoding.upper()
                raise ValueError(f"{self._path}: its mark says {name}, but it is damaged or cut off: {e}") from e
        found, self._rest = self._rest[:size], self._rest[size:]
        return found
