"""Publishes a directory that becomes visible in a store all at once, and never changes."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Collection, Iterator

from tfrs_dlrm.stores.listing import PUBLISHED_FILE, Listing
from tfrs_dlrm.stores.lock import LOCK_FILE
from tfrs_dlrm.stores.store import Store
from tfrs_dlrm.stores.transfer import Progress, upload_all
from tfrs_dlrm.stores.urls import join

# Directories that are being written, replaced or removed.
_UNFINISHED = ("unfinished", "replaced-", "removed-")
_HALF_WRITTEN = re.compile(r"\.tmp$|\.part-[0-9a-f]{8}$")


def publish(directory: str, address: str, last: Collection[str] = (), progress: Progress | None = None) -> None:
    """Publishes a directory under an address where nothing is published yet.

    Args:
      directory: a local directory.
      address: the URL to publish under.
      last: names of files that are written after all others, before `published.json`. Readers that do not know
        `published.json` may take them for the sign that everything is complete.
      progress: called with the progress.

    Raises:
      FileExistsError: something is published at the address already.
      StoreError: the store cannot be reached or refuses.
    """
    store = Store(address)
    if Listing.read(store) is not None:
        raise FileExistsError(f"{address}: something is published at this address already; choose another address")
    names = list(visible_files(directory))
    check_free(store, names)
    files = upload_all(store, directory, [n for n in names if n not in last], progress)
    files |= upload_all(store, directory, [n for n in names if n in last], None)
    if Listing.read(store) is not None:
        raise FileExistsError(f"{address}: another process has just published at this address; choose another address")
    Listing(secrets.token_hex(8), secrets.token_hex(8), files).write(store)


def unpublish(address: str, first: Collection[str] = ()) -> None:
    """Removes the files that `publish` wrote, and no other. If interrupted, call it again.

    Args:
      address: the URL that the files are published under.
      first: names of files to remove before all others. `published.json` is removed last.

    Raises:
      FileNotFoundError: nothing is published at this address.
      StoreError: the store cannot be reached or refuses.
    """
    store = Store(address)
    listing = Listing.read(store)
    if listing is None:
        raise FileNotFoundError(f"{address}: nothing is published at this address (no {PUBLISHED_FILE})")
    names = [entry.object or name for name, entry in listing.files.items()]
    for name in (*(n for n in names if n in first), *(n for n in names if n not in first), PUBLISHED_FILE):
        store.remove(name)


def visible_files(directory: str) -> Iterator[str]:
    """Yields the names of the finished files in a directory, at any depth, sorted."""
    for root, directories, files in os.walk(directory):
        directories[:] = sorted(d for d in directories if not d.startswith(_UNFINISHED))
        for name in sorted(files):
            path = os.path.relpath(os.path.join(root, name), directory).replace(os.sep, "/")
            if not _HALF_WRITTEN.search(name) and name != LOCK_FILE and path != PUBLISHED_FILE:
                yield path


def remove_empty(directory: str) -> None:
    """Removes empty directories below a directory."""
    for root, _, _ in os.walk(directory, topdown=False):
        if root != directory:
            with contextlib.suppress(OSError):
                os.rmdir(root)


def check_free(store: Store, names: Collection[str]) -> None:
    """Makes sure that a place in a store holds no other objects.

    Raises:
      FileExistsError: it holds objects other than `names`, which an earlier attempt may have left.
    """
    others = sorted(set(store.files()) - set(names) - {PUBLISHED_FILE})
    if others:
        raise FileExistsError(
            f"{store.address}: holds something else, such as {join(store.address, others[0])}; choose another address"
        )
