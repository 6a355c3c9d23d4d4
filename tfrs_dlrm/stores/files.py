"""Files that appear whole or not at all, and are on disk once they have appeared."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import re
import secrets
import tempfile
import time
from collections.abc import Iterator
from typing import IO, Any

import google_crc32c

from tfrs_dlrm.stores.store import CHUNK_BYTES, Store
from tfrs_dlrm.stores.urls import is_store_url, split_object

_UNFINISHED = re.compile(r"\.[0-9a-f]{8}\.tmp$")


def unfinished(path: str) -> str:
    """Returns a new name next to `path`, for a file that is to become it: no two processes get the same."""
    return f"{path}.{secrets.token_hex(4)}.tmp"


@contextlib.contextmanager
def whole_file(path: str | os.PathLike[str], mode: str = "w") -> Iterator[IO[Any]]:
    """Opens a file for writing, which becomes `path` at the end of the block; after an error it is removed.

    Args:
      path: a local path.
      mode: "w" for text in UTF-8, "wb" for bytes.

    Raises:
      ValueError: the path is the URL of an object store.
    """
    path = local_path(path)
    temporary = unfinished(path)
    try:
        with open(temporary, mode, encoding=None if "b" in mode else "utf-8") as f:
            yield f
        put(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.remove(temporary)
        raise


def put(written: str, path: str) -> None:
    """Gives a written file or directory its name; content and name are on disk when this returns."""
    to_disk(written)
    os.replace(written, path)
    to_disk(os.path.dirname(os.path.abspath(path)), alone=True)


def to_disk(path: str, alone: bool = False) -> None:
    """Waits until a file is on disk; a directory with all that is below it, or `alone`, which is the names in it."""
    if os.path.isdir(path) and not alone:
        for entry in os.scandir(path):
            to_disk(entry.path)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as e:
        if e.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that does that itself
            raise
    finally:
        os.close(descriptor)


def remove_unfinished(directory: str, older_than: float = 0.0) -> None:
    """Removes what killed processes left of `whole_file` in a directory.

    Args:
      directory: the directory, without those below it.
      older_than: in seconds; younger files may be written by a process that lives.
    """
    with contextlib.suppress(FileNotFoundError):
        for entry in os.scandir(directory):
            with contextlib.suppress(FileNotFoundError):
                if _UNFINISHED.search(entry.name) and time.time() - entry.stat().st_mtime >= older_than:
                    os.remove(entry.path)


@contextlib.contextmanager
def unwritable(path: str) -> Iterator[None]:
    """Turns an error of a place that cannot be written into one that names the place and says what to do."""
    try:
        yield
    except (PermissionError, NotADirectoryError, FileExistsError, IsADirectoryError) as e:
        raise _unwritable(path, e) from e
    except OSError as e:
        if e.errno not in (errno.EROFS, errno.ENOENT, errno.ELOOP, errno.ENAMETOOLONG):
            raise
        raise _unwritable(path, e) from e


def _unwritable(path: str, e: OSError) -> OSError:
    return type(e)(f"{path}: cannot be written: {e.strerror or e}; choose another place, or change its permissions")


def check_writable(directory: str) -> None:
    """Makes sure, before the work, that files can be written to a directory or that it can be made.

    Raises:
      OSError: it cannot be written; the message says why.
    """
    path = os.path.abspath(local_path(directory))
    while not os.path.lexists(path):
        path = os.path.dirname(path)
    if not os.path.isdir(path):
        raise NotADirectoryError(f"{directory or os.curdir}: cannot be written: {path} is a file; choose another place")
    with unwritable(directory or os.curdir), tempfile.TemporaryFile(dir=path):
        pass


def check_writable_place(path: str) -> None:
    """Makes sure that a directory can be written, as `check_writable`; a store says so itself."""
    if not is_store_url(path):
        check_writable(path)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a text in UTF-8.

    Raises:
      ValueError: the path is the URL of an object store.
    """
    with whole_file(path) as f:
        f.write(text)


def write_json(path: str, data: Any) -> None:
    """Writes indented JSON; NaN and infinities become null."""
    write_text(path, json.dumps(finite(data), indent=2, allow_nan=False) + "\n")


def local_path(path: str | os.PathLike[str]) -> str:
    """Returns the path if it is a local one.

    Raises:
      ValueError: it is the URL of an object store, which would become a directory of that name.
    """
    path = os.fspath(path)
    if is_store_url(path):
        raise ValueError(f"{path}: this is written to a disk only, not to an object store; give a local path")
    return path


def exists(path: str) -> bool:
    """Whether a file exists, on a disk or in an object store.

    Raises:
      StoreError: the store cannot be reached or refuses.
    """
    if not is_store_url(path):
        return os.path.isfile(path)
    base, name = split_object(path)
    return Store(base).find(name) is not None


def read_text(path: str | os.PathLike[str]) -> str:
    """Reads a file on a disk or in an object store.

    Raises:
      FileNotFoundError: the file does not exist.
      ValueError: it is no UTF-8; the message names the file.
      StoreError: the store cannot be reached or refuses.
    """
    path = os.fspath(path)
    if is_store_url(path):
        base, name = split_object(path)
        data = Store(base).read(name)
    else:
        with open(path, "rb") as f:
            data = f.read()
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as e:
        raise ValueError(f"{path}: not a text in UTF-8: {e}") from e


def read_json(path: str, then: str = "") -> Any:
    """Reads a JSON file on a disk or in an object store.

    Args:
      path: the file.
      then: what to do if the file is damaged.

    Raises:
      FileNotFoundError: the file does not exist.
      ValueError: it is no JSON; the message names the file.
    """
    text = read_text(path)
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError) as e:
        found = "the file is empty" if not text.strip() else f"not valid JSON: {e}"
        raise ValueError(f"{path}: {found}{then and f'; {then}'}") from e


def read_json_lines(path: str, then: str, may_be_cut: bool = False) -> Iterator[dict[str, Any]]:
    """Yields the objects of a file of JSON lines on a disk.

    Args:
      path: the file.
      then: what to do if the file is damaged.
      may_be_cut: whether to pass over a last line without an end, which a killed process leaves.

    Raises:
      FileNotFoundError: the file does not exist.
      ValueError: a line is no JSON object; the message names file and line.
    """
    with open(path, "rb") as f:
        for number, line in enumerate(f, 1):
            if may_be_cut and not line.endswith(b"\n"):
                return
            try:
                found = json.loads(line)
            except (ValueError, RecursionError) as e:
                raise ValueError(f"{path}: line {number} is not valid JSON: {e}; {then}") from e
            if not isinstance(found, dict):
                raise ValueError(f"{path}: line {number} is no JSON object; {then}")
            yield found


@contextlib.contextmanager
def well_formed(path: str, then: str) -> Iterator[None]:
    """Turns the errors of taking the content of a JSON file apart into one that names the file.

    Args:
      path: the file.
      then: what to do about it.

    Raises:
      ValueError: the content has another form than expected.
    """
    try:
        yield
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as e:
        what = f"no field {e}" if isinstance(e, KeyError) else e
        raise ValueError(f"{path}: damaged, or written by another version: {what}; {then}") from e


@contextlib.contextmanager
def disk_full(path: str, then: str = "run the same command again") -> Iterator[None]:
    """Turns "no space left" into an OSError with errno ENOSPC, which names `path` and what to do `then`."""
    try:
        yield
    except Exception as e:  # DuckDB's errors are no OSError
        if getattr(e, "errno", None) != errno.ENOSPC and "No space left on device" not in str(e):
            raise
        text = "the disk is full; nothing half-written has its final name"
        raise OSError(errno.ENOSPC, f"{text}. {path}: free some space, then {then}") from e


def crc32c(path: str) -> str:
    """Computes the CRC32C of a local file, in hexadecimal."""
    crc = google_crc32c.Checksum()
    with open(path, "rb") as f:
        while chunk := f.read(CHUNK_BYTES):
            crc.update(chunk)
    return crc.digest().hex()


def finite(data: Any) -> Any:
    """Converts NumPy arrays and scalars to plain values, and NaN and infinities to None."""
    if isinstance(data, dict):
        return {key: finite(value) for key, value in data.items()}
    if hasattr(data, "tolist"):  # NumPy arrays and scalars
        data = data.tolist()
    if isinstance(data, (list, tuple)):
        return [finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data
