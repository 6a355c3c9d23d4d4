"""A file of JSON lines that goes with the checkpoints: lines of what is done again are dropped first."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

from tfrs_dlrm.stores.files import finite


class Records:
    """One JSON object a line, in the order of a number that each of them has.

    Args:
      path: the file; made by the first line.
      key: the name of the number: a step, or a window.
    """

    def __init__(self, path: str, key: str = "step"):
        self._path, self._key = path, key

    def __iter__(self) -> Iterator[dict[str, Any]]:
        if not os.path.exists(self._path):
            return
        with open(self._path, encoding="utf-8") as f:
            for line in f:
                if line.endswith("\n"):  # the last may have been cut by a kill
                    yield json.loads(line)

    def append(self, record: dict[str, Any]) -> None:
        """Adds a line; numbers that are not finite become null."""
        # A run killed before the checkpoint is whole comes by here again, and `forget_after` drops the line.
        with open(self._path, "a", encoding="utf-8") as f:
            f.write(json.dumps(finite(record)) + "\n")

    def forget_after(self, number: int) -> None:
        """Drops the lines of higher numbers."""
        if not os.path.exists(self._path):
            return
        with open(self._path + ".tmp", "w", encoding="utf-8") as f:
            f.writelines(json.dumps(record) + "\n" for record in self if record[self._key] <= number)
        os.replace(self._path + ".tmp", self._path)
