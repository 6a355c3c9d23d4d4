"""Raw log files on a disk or in an object store: their names, their sizes, their bytes."""

from __future__ import annotations

import os

import pyarrow as pa

from tfrs_dlrm.stores import RemoteFile, Store, is_store_url, split_object


def identity(path: str) -> str:
    """Returns the same text for all paths of one file."""
    return path if is_store_url(path) else os.path.realpath(path)


def absolute(path: str) -> str:
    """Makes a path valid in other working directories."""
    return path if is_store_url(path) else os.path.abspath(path)


def stat(path: str) -> tuple[int, int]:
    """Returns the size in bytes, and the time of modification in nanoseconds since 1970.

    Raises:
      FileNotFoundError: the file does not exist.
    """
    if not is_store_url(path):
        status = os.stat(path)
        return status.st_size, status.st_mtime_ns
    base, name = split_object(path)
    found = Store(base).find(name)
    if found is None:
        raise FileNotFoundError(f"{path}: the object does not exist")
    return found.bytes, found.modified_ns


def size(path: str) -> int:
    """Returns the size in bytes."""
    return stat(path)[0]


def open_file(path: str) -> pa.NativeFile:
    """Opens a file for reading at any position.

    Raises:
      OSError: it cannot be opened. For an object, a later read may raise `StoreError`.
    """
    return pa.PythonFile(RemoteFile(path), "r") if is_store_url(path) else pa.OSFile(path)


def first_bytes(path: str, count: int) -> bytes:
    """Reads the first bytes, fewer if the file is shorter.

    Raises:
      OSError: the file cannot be opened; a `StoreError` where an object store cannot be reached or refuses.
    """
    if is_store_url(path):
        base, name = split_object(path)
        return Store(base).read_at(name, 0, count)[0]
    with open(path, "rb") as file:
        return file.read(count)
