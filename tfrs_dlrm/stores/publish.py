"""A directory that becomes visible in a store at once, and stays as it is."""

from __future__ import annotations

import os
import secrets
from collections.abc import Collection, Iterator

from tfrs_dlrm.stores.address import join
from tfrs_dlrm.stores.listing import PUBLISHED_FILE, Listing
from tfrs_dlrm.stores.store import Store
from tfrs_dlrm.stores.transfer import Progress, upload_all

# What is being written, replaced or removed; nobody reads it on a disk either.
_UNFINISHED = ("unfinished", "replaced-", "removed-")


def publish(directory: str, address: str, last: Collection[str] = (), progress: Progress | None = None) -> None:
    """Writes a directory to a place where nothing is published yet.

    Args:
      directory: local.
      address: where to.
      last: names of files that are written after all others, before `published.json`: readers who do not know that
        may take them for the sign that all is there.
      progress: is told how far it is.

    Raises:
      FileExistsError: something is there already.
      StoreError: the store cannot be reached or refuses.
    """
    store = Store(address)
    if Listing.read(store) is not None:
        raise FileExistsError(f"{address}: something is published there already; choose another place")
    names = list(visible_files(directory))
    check_free(store, names)
    files = upload_all(store, directory, [n for n in names if n not in last], progress)
    files |= upload_all(store, directory, [n for n in names if n in last], None)
    Listing(secrets.token_hex(8), 1, files).write(store)


def unpublish(address: str, first: Collection[str] = ()) -> None:
    """Removes what `publish` wrote: first what makes it visible.

    Args:
      address: where it is.
      first: names of files to remove before all others, after `published.json`.

    Raises:
      StoreError: the store cannot be reached or refuses.
    """
    store = Store(address)
    names = store.files()
    for name in (PUBLISHED_FILE, *first, *(n for n in names if n != PUBLISHED_FILE and n not in first)):
        store.remove(name)


def visible_files(directory: str) -> Iterator[str]:
    """The names of the finished files in a directory, at any depth, sorted."""
    for root, directories, files in os.walk(directory):
        directories[:] = sorted(d for d in directories if not d.startswith(_UNFINISHED))
        for name in sorted(files):
            if not name.endswith(".tmp") and ".part-" not in name:
                yield os.path.relpath(os.path.join(root, name), directory).replace(os.sep, "/")


def check_free(store: Store, names: Collection[str]) -> None:
    """Makes sure that nothing else would be mixed with files of these names.

    Raises:
      FileExistsError: there are other objects, which no earlier attempt to write these left.
    """
    others = sorted(set(store.files()) - set(names) - {PUBLISHED_FILE})
    if others:
        raise FileExistsError(
            f"{store.address}: holds something else, such as {join(store.address, others[0])}; choose another place"
        )
