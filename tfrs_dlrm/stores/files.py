"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
from collections.abc import Iterator
from typing import Any

from tfrs_dlrm.stores.store import Store
from tfrs_dlrm.stores.urls import is_store_url, split_object


def write_text(path: str, text: str) -> None:
    """Writes a text in UTF-8.

    Raises:
      ValueError: the path is the URL of an object store.
    """
    with open(f"{local_path(path)}.tmp", "w", encoding="utf-8") as f:
        f.write(text)
    os.replace(f"{path}.tmp", path)


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


def finite(data: Any) -> Any:
    """Converts NumPy arrays and scalars to plain values, and NaN and infinities to None."""
    if isinstance(data, dict):
        return {key: finite(value) for key, value in data.items()}
    if hasattr(data, "tolist"):  # NumPy arrays and scalars
        data = data.tolist()
    if isinstance(data, (list, tuple)):
        return [finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data
