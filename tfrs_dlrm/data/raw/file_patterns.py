"""Which raw files a path, a directory or a glob pattern names, on a disk and in an object store.

`*` matches within one part of a path, `**` any number of directories. A directory stands for all data files below it.
Markers of Spark, hidden and empty files are skipped, unless a file is given by its exact name.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterator, Sequence

from absl import logging

from tfrs_dlrm.data.raw.raw_files import identity, size
from tfrs_dlrm.stores import Store, StoreUrl, is_store_url, join, split_object

_WILD = re.compile(r"[*?\[]")
# Files and directories that Spark, Hive, Databricks and Delta write beside the data.
_MARKERS = ("_SUCCESS", "_committed*", "_started*", "_metadata", "_common_metadata", "*.crc", "*._COPYING_")
_MARKER_DIRECTORIES = ("_temporary", "_delta_log", "_spark_metadata", "_change_data")
_DELTA = "_delta_log"


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
    for pattern in map(os.fspath, patterns):
        found = matching(pattern)
        if found == [os.path.expanduser(pattern)] and size(found[0]) == 0:  # patterns skip empty files
            raise ValueError(f"{found[0]}: the file is empty; leave it out")
        for path in found:
            files.setdefault(identity(path), path)
    return list(files.values())


def matching(pattern: str) -> list[str]:
    """Returns the files that a path, directory or glob pattern names, sorted.

    Raises:
      FileNotFoundError: no data file matches.
      ValueError: the URL is of an unknown kind.
      StoreError: a store cannot be reached or refuses.
    """
    if is_store_url(pattern):
        return _matching_objects(pattern)
    pattern = os.path.expanduser(os.fspath(pattern))
    if os.path.isfile(pattern):
        return [pattern]
    if os.path.isdir(pattern):
        found = list(_below(pattern))
    else:
        found = list(_local("/" if pattern.startswith("/") else "", _parts(pattern)))
    matches = sorted({path for path in found if os.path.getsize(path)})
    if not matches:
        what = f"no file matches {pattern!r} (looked from {os.getcwd()})"
        if os.path.isdir(pattern):
            what += "; the directory holds no data files"
            found += _walk(pattern)
        raise FileNotFoundError(what + _only_skipped(found))
    return matches


def _matching_objects(pattern: str) -> list[str]:
    address = StoreUrl.parse(pattern)
    if address.prefix and Store(split_object(pattern)[0]).find(split_object(pattern)[1]):
        return [pattern]
    parts = _parts(address.prefix)
    fixed = next((i for i, part in enumerate(parts) if _WILD.search(part)), len(parts))
    base = "/".join([f"{address.scheme}://{address.bucket}", *parts[:fixed]])
    objects = {name: found.bytes for name, found in Store(base).files().items()}
    matches = [name for name, size in objects.items() if size and _matches(name.split("/"), parts[fixed:])]
    for root in {name.partition(f"{_DELTA}/")[0] for name in objects if f"/{_DELTA}/" in f"/{name}"}:
        if any(name.startswith(root) for name in matches):
            _warn_of_delta(join(base, root) if root else base)
    if not matches:
        skipped = [] if parts[fixed:] else [join(base, name) for name in objects]
        raise FileNotFoundError(f"no object matches {pattern!r}{_only_skipped(skipped)}")
    return sorted(join(base, name) for name in matches)


def _only_skipped(paths: Sequence[str]) -> str:
    if not paths:
        return ""
    shown = os.path.basename(min(paths))
    return f"; only markers, hidden and empty files are there, such as {shown!r}: to read one, give its exact name"


def _parts(pattern: str) -> list[str]:
    """Splits a pattern at slashes; several `**` in a row are one."""
    parts = [part for part in pattern.split("/") if part]
    return [part for i, part in enumerate(parts) if part != "**" or parts[i - 1 : i] != ["**"]]


def _is_skipped(name: str) -> bool:
    """Whether directories and wildcards pass over a name."""
    return name.startswith(".") or any(fnmatch.fnmatchcase(name, m) for m in (*_MARKERS, *_MARKER_DIRECTORIES))


def _fits(name: str, pattern: str) -> bool:
    """Whether a part of a path matches a part of a pattern; markers and hidden names need a pattern that says so."""
    if name.startswith("."):
        return pattern.startswith(".") and fnmatch.fnmatchcase(name, pattern)
    said = (name[0] == pattern[0] == "_") or pattern.endswith((".crc", "._COPYING_"))
    return fnmatch.fnmatchcase(name, pattern) and (said or not _is_skipped(name))


def _matches(path: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a pattern matches a path, or a directory above it."""
    if not pattern:
        return not any(map(_is_skipped, path))
    if pattern[0] != "**":
        return bool(path) and _fits(path[0], pattern[0]) and _matches(path[1:], pattern[1:])
    below = bool(path) and not _is_skipped(path[0]) and _matches(path[1:], pattern)
    return _matches(path, pattern[1:]) or below


def _local(base: str, pattern: Sequence[str]) -> Iterator[str]:
    """Yields the files below `base` that a pattern matches, some twice; lists only directories that it needs."""
    if not pattern:
        if os.path.isfile(base):
            yield base
        elif os.path.isdir(base or "."):
            yield from _below(base)
    elif pattern[0] == "**":
        yield from _local(base, pattern[1:])
        for name in _names(base):
            if not _is_skipped(name) and os.path.isdir(path := os.path.join(base, name)) and not _is_loop(path):
                yield from _local(path, pattern) if len(pattern) > 1 else ()
    elif not _WILD.search(pattern[0]):
        yield from _local(os.path.join(base, pattern[0]), pattern[1:])
    else:
        for name in _names(base):
            if _fits(name, pattern[0]):
                yield from _local(os.path.join(base, name), pattern[1:])


def _names(directory: str) -> list[str]:
    """The names in a directory; a directory that cannot be read raises, or rows would be lost."""
    return sorted(os.listdir(directory or ".")) if os.path.isdir(directory or ".") else []


def _is_loop(path: str) -> bool:
    """Whether a link leads to a directory above it."""
    return os.path.islink(path) and os.path.abspath(path).startswith(os.path.join(os.path.realpath(path), ""))


def _below(directory: str) -> Iterator[str]:
    """Yields the data files in a directory and all directories below it."""
    names = _names(directory)
    if _DELTA in names:
        _warn_of_delta(directory)
    for name in names:
        path = os.path.join(directory, name)
        if _is_skipped(name):
            continue
        if os.path.isfile(path):
            yield path
        elif os.path.isdir(path) and not _is_loop(path):
            yield from _below(path)


def _walk(directory: str) -> Iterator[str]:
    """Yields all files below a directory."""
    return (os.path.join(root, name) for root, _, names in os.walk(directory) for name in names)


def _warn_of_delta(directory: str) -> None:
    logging.warning(
        "%s is a Delta table: all its data files are read, also those that its current version no longer has; to read"
        " that version only, write it as Parquet first",
        directory,
    )
