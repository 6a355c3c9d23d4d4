"""TFRecord files without TensorFlow: its own reader and writer are in its Python, which a server has no use for.

A record is its length (uint64), the masked CRC32C of that, the bytes, and the masked CRC32C of those
(tensorflow/core/lib/io/record_writer.h).
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator
from typing import BinaryIO

import google_crc32c

_FRAME = 16  # bytes around the data of a record


def record(data: bytes) -> bytes:
    """One record, to be written to a file."""
    length = struct.pack("<Q", len(data))
    return length + _masked(length) + data + _masked(data)


def read_records(path: str) -> Iterator[bytes]:
    """The records of a file.

    Raises:
      ValueError: the file ends within a record, or a checksum is wrong.
      OSError: it cannot be read.
    """
    with open(path, "rb") as f:
        number = 0
        while head := f.read(12):
            where = f"{path}: record {number}"
            if len(head) < 12 or head[8:] != _masked(head[:8]):
                raise ValueError(f"{where} is broken: its length has a wrong checksum, or the file is cut off")
            (length,) = struct.unpack("<Q", head[:8])
            data = _read(f, length, where)
            if _read(f, 4, where) != _masked(data):
                raise ValueError(f"{where} is broken: its checksum is wrong")
            yield data
            number += 1


def whole_bytes(path: str) -> int:
    """How much of a file, from its beginning, is whole records.

    Raises:
      OSError: it cannot be read.
    """
    size = 0
    with contextlib.suppress(ValueError):
        for data in read_records(path):
            size += _FRAME + len(data)
    return size


def _read(f: BinaryIO, size: int, where: str) -> bytes:
    data = f.read(size)
    if len(data) < size:
        raise ValueError(f"{where} is broken: the file is cut off")
    return data


def _masked(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
