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


def read_json(path: str) -> Any:
    """Reads a JSON file on a disk or in an object store.

    Raises:
      FileNotFoundError: the file does not exist.
      ValueError: it is no JSON; the message names the file.
    """
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as e:
        raise ValueError(f"{path}: not valid JSON: {e}") from e


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
