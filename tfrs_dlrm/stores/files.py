"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
from collections.abc import Iterator
from typing import Any

from tfrs_dlrm.stores.address import is_store_url, split_object
from tfrs_dlrm.stores.store import Store


def write_json(path: str, data: Any) -> None:
    """Writes indented JSON; numbers that are not finite become null."""
    with open(f"{local_path(path)}.tmp", "w", encoding="utf-8") as f:
        f.write(json.dumps(finite(data), indent=2, allow_nan=False) + "\n")
    os.replace(f"{path}.tmp", path)


def local_path(path: str | os.PathLike[str]) -> str:
    """The path itself.

    Raises:
      ValueError: it is the address of an object store, which would become a directory of that name.
    """
    path = os.fspath(path)
    if is_store_url(path):
        raise ValueError(f"{path}: this is written to a disk only, not to an object store; give a local path")
    return path


def exists(path: str) -> bool:
    """Whether there is a file of that name, on a disk or in an object store.

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
      FileNotFoundError: there is none.
      ValueError: naming the file, where it is no UTF-8.
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
      FileNotFoundError: there is none.
      ValueError: naming the file, where it holds no JSON.
    """
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as e:
        raise ValueError(f"{path}: not valid JSON: {e}") from e


@contextlib.contextmanager
def disk_full(advice: str) -> Iterator[None]:
    """Turns "no space left" into an OSError that says what to do.

    Raises:
      OSError: with errno ENOSPC.
    """
    try:
        yield
    except Exception as e:  # DuckDB's errors are no OSError
        if getattr(e, "errno", None) != errno.ENOSPC and "No space left on device" not in str(e):
            raise
        raise OSError(errno.ENOSPC, f"the disk is full; nothing half-written has its final name. {advice}") from e


def finite(data: Any) -> Any:
    """The same data with NumPy's as plain ones, and null for numbers that are not finite."""
    if isinstance(data, dict):
        return {key: finite(value) for key, value in data.items()}
    if hasattr(data, "tolist"):  # NumPy arrays and scalars
        data = data.tolist()
    if isinstance(data, (list, tuple)):
        return [finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data
