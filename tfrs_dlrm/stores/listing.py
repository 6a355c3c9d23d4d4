"""`published.json`: what is published under an address, and by which it becomes visible."""

from __future__ import annotations

import dataclasses
import json

from tfrs_dlrm.stores.address import join
from tfrs_dlrm.stores.store import Store

PUBLISHED_FILE = "published.json"


@dataclasses.dataclass(frozen=True)
class PublishedFile:
    """One object.

    Attributes:
      bytes: its size.
      crc32c: its checksum in hexadecimal; None for one that is written anew while others stay, such as metrics.
      object: its name in the store, where that is not the file's.
    """

    bytes: int
    crc32c: str | None
    object: str = ""


@dataclasses.dataclass(frozen=True)
class Listing:
    """What belongs together.

    Attributes:
      id: of what is published there; another, where that was removed and something else came to its place.
      version: of it, another whenever something changes.
      files: by their names below the address.
    """

    id: str
    version: str
    files: dict[str, PublishedFile]

    @classmethod
    def read(cls, store: Store) -> Listing | None:
        """What is published, or None.

        Raises:
          ValueError: the list is damaged.
          StoreError: as of `Store`.
        """
        try:
            data = store.read(PUBLISHED_FILE)
        except FileNotFoundError:
            return None
        try:
            plain = json.loads(data)
            files = {name: PublishedFile(**entry) for name, entry in plain["files"].items()}
            for name in (*files, *(entry.object for entry in files.values() if entry.object)):
                if any(part in ("", ".", "..") for part in name.split("/")):
                    raise ValueError(f"{name!r} is no name of a file")
            return cls(plain["id"], plain["version"], files)
        except (ValueError, KeyError, TypeError, AttributeError) as e:
            raise ValueError(f"{join(store.address, PUBLISHED_FILE)}: not a list of published files: {e}") from e

    def write(self, store: Store) -> None:
        """Makes it what is published."""
        store.write(PUBLISHED_FILE, (json.dumps(dataclasses.asdict(self), indent=1) + "\n").encode())
