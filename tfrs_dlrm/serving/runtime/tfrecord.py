"""Reads and writes TFRecord files without TensorFlow's Python.

A record is the length (uint64), the masked CRC32C of the length, the bytes, and the masked CRC32C of the bytes
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
    """Frames bytes as one record of a file."""
    length = struct.pack("<Q", len(data))
    return length + _masked(length) + data + _masked(data)


def read_records(path: str) -> Iterator[bytes]:
    """Yields the records of a file.

    Raises:
      ValueError: the file ends within a record, or a checksum is wrong.
      OSError: the file cannot be read.
    """
    with open(path, "rb") as f:
        number = 0
        while prefix := f.read(12):
            where = f"{path}: record {number}"
            if len(prefix) < 12 or prefix[8:] != _masked(prefix[:8]):
                raise ValueError(f"{where} is broken: its length has a wrong checksum, or the file is cut off")
            (length,) = struct.unpack("<Q", prefix[:8])
            data = _read(f, length, where)
            if _read(f, 4, where) != _masked(data):
                raise ValueError(f"{where} is broken: its checksum is wrong")
            yield data
            number += 1


def whole_bytes(path: str) -> int:
    """Returns the number of bytes, from the beginning of a file, that are whole records.

    Raises:
      OSError: the file cannot be read.
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
