"""`published.json`: the list of published files, which makes them visible."""

from __future__ import annotations

import dataclasses
import json

from tfrs_dlrm.stores.store import Store
from tfrs_dlrm.stores.urls import join

PUBLISHED_FILE = "published.json"


@dataclasses.dataclass(frozen=True)
class PublishedFile:
    """One published file.

    Attributes:
      bytes: its size.
      crc32c: its checksum in hexadecimal; None for a file that may grow, such as metrics.
      object: the name of its object in the store; empty if it is the file's name.
    """

    bytes: int
    crc32c: str | None
    object: str = ""


@dataclasses.dataclass(frozen=True)
class Listing:
    """All files that are published under an address.

    Attributes:
      id: identifies the publication; it changes if the files are removed and others are published in their place.
      version: changes with each change of the files.
      files: by their names below the address.
    """

    id: str
    version: str
    files: dict[str, PublishedFile]

    @classmethod
    def read(cls, store: Store) -> Listing | None:
        """Reads what is published; None if nothing is.

        Raises:
          ValueError: the list is damaged.
          StoreError: see `Store`.
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
        """Publishes the list."""
        store.write(PUBLISHED_FILE, (json.dumps(dataclasses.asdict(self), indent=1) + "\n").encode())
