"""Raw log files, on a disk or in an object store: which there are, how large, and their bytes."""

from __future__ import annotations

import fnmatch
import glob
import os
import re

import pyarrow as pa

from tfrs_dlrm.stores import RemoteFile, Store, StoreUrl, is_store_url, join, split_object

_WILD = re.compile(r"[*?\[]")


def matching(pattern: str) -> list[str]:
    """The files that a path or glob pattern names, sorted; `*` does not go across `/`.

    Raises:
      FileNotFoundError: none.
      ValueError: an address of an unknown kind.
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


def identity(path: str) -> str:
    """The same for two paths of one file."""
    return path if is_store_url(path) else os.path.realpath(path)


def absolute(path: str) -> str:
    """As processes in other working directories find it."""
    return path if is_store_url(path) else os.path.abspath(path)


def stat(path: str) -> tuple[int, int]:
    """The size in bytes, and the time of modification in nanoseconds since 1970.

    Raises:
      FileNotFoundError: there is no such file.
    """
    if not is_store_url(path):
        found = os.stat(path)
        return found.st_size, found.st_mtime_ns
    base, name = split_object(path)
    there = Store(base).find(name)
    if there is None:
        raise FileNotFoundError(f"{path}: there is no such object")
    return there.bytes, there.modified_ns


def size(path: str) -> int:
    """In bytes."""
    return stat(path)[0]


def open_file(path: str) -> pa.NativeFile:
    """For reading, from anywhere in it.

    Raises:
      OSError: it cannot be opened; for an object, `StoreError` also where it cannot be read later.
    """
    return pa.PythonFile(RemoteFile(path), "r") if is_store_url(path) else pa.OSFile(path)


def _fits(name: str, pattern: str) -> bool:
    """As in a shell, no wildcard stands for a leading dot."""
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
        hint = f"; there are objects below it, write {join(pattern, '*')!r}" if below else ""
        raise FileNotFoundError(f"no object matches {pattern!r}{hint}")
    return sorted(found)
