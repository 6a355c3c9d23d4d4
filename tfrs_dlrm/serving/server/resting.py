"""When the files of a version may be read: once they are whole, or have not changed for a while.

A copy by `cp -r`, tar, rsync or kubectl writes file after file. A manifest that agrees with all files proves that they
are whole. Otherwise only time shows whether more is to come.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Collection
from typing import Any

from tfrs_dlrm.serving.bundle.manifest import MANIFEST, read_manifest
from tfrs_dlrm.serving.bundle.wholeness import unfinished

# How long a directory without a manifest must not have changed: it may be a copy whose manifest comes last.
REST_SECONDS = 10.0


@dataclasses.dataclass(frozen=True)
class Look:
    """The files of a version at a moment.

    Attributes:
      fingerprint: changes with the files.
      changed: the time of the last change, in seconds since 1970.
      missing: why the files cannot be whole; empty if they are as bundle.json lists them.
      has_manifest: whether there is a bundle.json.
    """

    fingerprint: tuple[Any, ...]
    changed: float
    missing: str
    has_manifest: bool


def fingerprint(path: str) -> tuple[Any, ...]:
    """Returns facts of all files that change when a version is replaced, or while it is copied."""
    return _facts(path)[0]


def look(path: str) -> Look:
    """Looks at the files of the version at `path`."""
    facts, changed = _facts(path)
    has_manifest = os.path.exists(os.path.join(path, MANIFEST))
    try:
        missing = unfinished(path, read_manifest(path))
    except (OSError, ValueError) as e:
        missing = str(e)
    return Look(facts, changed, missing, has_manifest)


class Resting:
    """Which versions of a model rest, of all looks at versions that are still there."""

    def __init__(self) -> None:
        self._since: dict[int, tuple[tuple[Any, ...], float]] = {}

    def reached(self, number: int, seen: Look) -> bool:
        """Returns whether a version may be read now.

        It may if it is whole, or if nothing changed for `REST_SECONDS`. With a manifest that does not agree, which is
        refused, it is enough that nothing changed since the last look.
        """
        if not seen.missing:
            return True
        # The time of the last change of the inode: copies may keep the older time of the content.
        if time.time() - seen.changed >= REST_SECONDS:
            return True
        now = time.monotonic()
        facts, since = self._since.get(number, (None, now))
        if facts != seen.fingerprint:
            self._since[number] = seen.fingerprint, now
            return False
        return seen.has_manifest or now - since >= REST_SECONDS

    def keep(self, numbers: Collection[int]) -> None:
        """Forgets the looks at all versions but these."""
        self._since = {number: seen for number, seen in self._since.items() if number in numbers}


def _facts(path: str) -> tuple[tuple[Any, ...], float]:
    facts: list[Any] = []
    changed = 0.0
    for directory, _, names in sorted(os.walk(path)):
        for name in ["", *sorted(names)]:
            file = os.path.join(directory, name)
            with contextlib.suppress(OSError):
                stat = os.stat(file)
                facts.append((file, stat.st_ino, stat.st_mtime_ns, stat.st_size))
                changed = max(changed, stat.st_ctime)
    return tuple(facts), changed
