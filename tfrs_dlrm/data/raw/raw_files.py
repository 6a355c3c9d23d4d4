"""Raw log files on a disk or in an object store: which ones a pattern names, their kind, their size, their bytes."""

from __future__ import annotations

import fnmatch
import glob
import os
import re
from collections.abc import Sequence

import pyarrow as pa

from tfrs_dlrm.stores import RemoteFile, Store, StoreUrl, is_store_url, join, split_object

_WILD = re.compile(r"[*?\[]")


def expand(patterns: Sequence[str]) -> list[str]:
    """Returns the files of paths and glob patterns, each once: patterns in the given order, their matches sorted.

    Raises:
      FileNotFoundError: a path or pattern names no file.
      StoreError: an object store cannot be reached or refuses.
      ValueError: a file is empty, or no pattern is given.
    """
    if isinstance(patterns, str):
        patterns = [patterns]
    if not patterns:
        raise ValueError("no input files: give at least one path or glob pattern")
    files: dict[str, str] = {}
    for pattern in patterns:
        for path in matching(os.fspath(pattern)):
            files.setdefault(identity(path), path)
    for path in files.values():
        if size(path) == 0:
            raise ValueError(f"{path}: the file is empty; leave it out")
    return list(files.values())


def matching(pattern: str) -> list[str]:
    """Returns the files that a path or glob pattern names, sorted; `*` does not match `/`.

    Raises:
      FileNotFoundError: no file matches.
      ValueError: the URL is of an unknown kind.
      StoreError: a store cannot be reached or refuses.
    """
    if is_store_url(pattern):
        return _matching_objects(pattern)
    pattern = os.path.expanduser(os.fspath(pattern))
    matches = [pattern] if os.path.isfile(pattern) else sorted(filter(os.path.isfile, glob.glob(pattern)))
    if not matches:
        hint = f"; it is a directory, write {os.path.join(pattern, '*')!r}" if os.path.isdir(pattern) else ""
        raise FileNotFoundError(f"no file matches {pattern!r} (looked from {os.getcwd()}){hint}")
    return matches


def is_parquet(path: str) -> bool:
    """Whether a file is Parquet, by its name; every other file is text."""
    return path.lower().endswith((".parquet", ".pq"))


def is_compressed(path: str) -> bool:
    """Whether a text file is compressed by gzip, by its name."""
    return path.lower().endswith(".gz")


def usual_delimiter(path: str) -> str:
    """The delimiter of text files of this name: a comma in .csv, a tab in others."""
    return "," if path.lower().removesuffix(".gz").endswith(".csv") else "\t"


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


def _fits(name: str, pattern: str) -> bool:
    """Whether a name matches a pattern; as in a shell, no wildcard matches a leading dot."""
    return fnmatch.fnmatchcase(name, pattern) and (pattern.startswith(".") or not name.startswith("."))


def _matching_objects(pattern: str) -> list[str]:
    address = StoreUrl.parse(pattern)
    if address.prefix and Store(split_object(pattern)[0]).find(split_object(pattern)[1]):
        return [pattern]
    parts = address.prefix.split("/")
    fixed = next((i for i, part in enumerate(parts) if _WILD.search(part)), len(parts) - 1)
    base = "/".join([f"{address.scheme}://{address.bucket}", *parts[:fixed]])
    wanted = parts[fixed:]
    found = []
    for name in Store(base).files():
        given = name.split("/")
        if len(given) == len(wanted) and all(map(_fits, given, wanted)):
            found.append(join(base, name))
    if not found:
        below = Store(pattern).files() if fixed == len(parts) - 1 and not _WILD.search(parts[-1]) else {}
        hint = f"; it has objects below it: write {join(pattern, '*')!r}" if below else ""
        raise FileNotFoundError(f"no object matches {pattern!r}{hint}")
    return sorted(found)
