"""A local directory and what is published of it in a store: `pull` brings it up to date, `push` publishes changes.

Everything works on the local copy, which stays in the cache, so that a second run downloads nothing.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from absl import logging

from tfrs_dlrm.stores.cache import CachedCopy, use_copy
from tfrs_dlrm.stores.errors import StoreError
from tfrs_dlrm.stores.files import crc32c
from tfrs_dlrm.stores.listing import PUBLISHED_FILE, Listing, PublishedFile
from tfrs_dlrm.stores.publish import check_free, remove_empty, visible_files
from tfrs_dlrm.stores.store import Store
from tfrs_dlrm.stores.transfer import Progress, download_all, upload_all
from tfrs_dlrm.stores.urls import is_store_url

# What is published may change while it is read, and a file vanish while it is written, as old checkpoints do.
_ATTEMPTS = 5


class Mirror:
    """A local directory and its published state.

    Args:
      address: the URL of the published directory.
      fixed: whether the file of a name never changes once it is written; by default true of all. Others may grow.
      progress: called with the progress of transfers.

    Raises:
      ValueError: the address is of an unknown kind.
    """

    def __init__(
        self, address: str, fixed: Callable[[str], bool] = lambda name: True, progress: Progress | None = None
    ):
        self.address = address.rstrip("/")
        self._copy = CachedCopy(self.address)
        self._fixed, self._progress = fixed, progress

    @property
    def path(self) -> str:
        """The local directory, which may not exist yet."""
        return os.path.join(self._copy.home, self._copy.state()["directory"])

    def listing(self) -> Listing | None:
        """Reads the list of published files."""
        return Listing.read(Store(self.address))

    def write_alone(self) -> None:
        """Keeps other processes of this machine from changing the copy until this process ends.

        Raises:
          ValueError: another process writes the copy already.
        """
        self._copy.write_alone()

    def done_writing(self) -> None:
        """Releases the lock of `write_alone`."""
        self._copy.done_writing()

    def pull(self) -> bool:
        """Brings the local directory up to what is published; returns whether anything is published.

        Local files that are newer than the last publication stay, unless another machine has published since: a run
        that was killed before it could publish resumes from them. Files that another process of this machine is
        writing stay as well.

        Raises:
          ValueError: the published files are gone, or damaged.
          StoreError: the store cannot be reached or refuses.
        """
        with self._copy.transfer_lock():
            for attempt in range(1, _ATTEMPTS + 1):
                listing, state = self.listing(), self._copy.state()
                if listing is None:
                    self._check_not_gone(state)
                    return False
                if self._copy.is_written() and state["id"] == listing.id:
                    return True
                try:
                    self._bring(listing, state)
                    return True
                except (FileNotFoundError, ValueError):
                    if attempt == _ATTEMPTS or self.listing() == listing:
                        raise  # otherwise another publication has replaced it
        raise AssertionError("not reached")

    def push(self) -> None:
        """Publishes all changes of the local directory at once.

        Raises:
          FileExistsError: the address holds something else.
          ValueError: another process has published at the address since, or the local directory lost files.
          StoreError: the store cannot be reached or refuses; the published files stay as they were.
        """
        with self._copy.transfer_lock():
            store, state = Store(self.address), self._copy.state()
            before = self._check_mine(Listing.read(store), state)
            old = before.files if before else {}
            files, stamps = self._upload(store, old, state["files"])
            if before and files == old and stamps == state["files"]:
                return
            self._check_mine(Listing.read(store), state)
            listing = Listing(before.id if before else secrets.token_hex(8), secrets.token_hex(8), files)
            listing.write(store)
            self._copy.remember(listing, state["directory"], stamps)
            kept = {entry.object or name for name, entry in files.items()}
            for name in {entry.object or name for name, entry in old.items()} - kept:
                try:
                    store.remove(name)
                except StoreError as e:
                    logging.warning("%s: no longer needed, but could not be removed: %s", name, e)

    def _bring(self, listing: Listing, state: dict[str, Any]) -> None:
        same = (state["id"], state["version"]) == (listing.id, listing.version)
        directory = state["directory"] if state["id"] == listing.id else f"copy-{listing.id}"
        path = os.path.join(self._copy.home, directory)
        stamps = state["files"] if state["id"] == listing.id else {}
        missing = {n: e for n, e in listing.files.items() if not _has(os.path.join(path, n), n, e, stamps, same)}
        os.makedirs(path, exist_ok=True)
        download_all(Store(self.address), path, missing, self._progress)
        if not same:
            for name in set(visible_files(path)) - set(listing.files):
                os.remove(os.path.join(path, name))
            remove_empty(path)
        if missing or not same:
            known = {n: _stamp(os.path.join(path, n)) for n in listing.files}
            # Files that have grown since they were published are still to be published.
            growing = {n for n, e in listing.files.items() if same and e.crc32c is None} - missing.keys()
            grown = {n: stamps[n] for n in growing if n in stamps}
            self._copy.remember(listing, directory, known | grown)

    def _check_not_gone(self, state: Mapping[str, Any]) -> None:
        if state["id"]:
            raise ValueError(
                f"{self.address}: the files published at this address are gone. Its local copy is {self.path}; save"
                f" what is needed from it, then remove {self._copy.home} to start again"
            )

    def _check_mine(self, found: Listing | None, state: Mapping[str, Any]) -> Listing | None:
        """Returns what is published, if this copy equals it or is a change of it."""
        if found and (found.id, found.version) != (state["id"], state["version"]):
            raise ValueError(f"{self.address}: another process has published at this address; is it running twice?")
        return found

    def _upload(
        self, store: Store, old: Mapping[str, PublishedFile], known: Mapping[str, Any]
    ) -> tuple[dict[str, PublishedFile], dict[str, list[int]]]:
        """Uploads changed files; returns all published files, and their stamps from before they were read."""
        for attempt in range(1, _ATTEMPTS + 1):
            names = list(visible_files(self.path))
            lost = self._directories(old) - self._directories(names)
            if lost:
                raise ValueError(
                    f"{self.path}: {', '.join(sorted(lost))} is missing in the local copy, but still published; run the"
                    " same command again to restore it"
                )
            if not old:
                check_free(store, names)
            try:
                stamps = {n: _stamp(os.path.join(self.path, n)) for n in names}
                changed = [n for n in names if n not in old or known.get(n) != stamps[n]]
                # Objects that others may be reading are not overwritten, unless they may grow.
                objects = {n: f"{n}.{secrets.token_hex(4)}" for n in changed if n in old and self._fixed(n)}
                uploaded = upload_all(store, self.path, changed, self._progress, objects)
            except FileNotFoundError:
                if attempt == _ATTEMPTS:
                    raise
                continue
            uploaded = {n: e if self._fixed(n) else PublishedFile(e.bytes, None) for n, e in uploaded.items()}
            return {name: uploaded.get(name) or old[name] for name in names}, stamps
        raise AssertionError("not reached")

    def _directories(self, names: Iterable[str]) -> set[str]:
        """The top-level directories of the fixed files."""
        return {name.split("/")[0] for name in names if "/" in name and self._fixed(name)}


def local_copy(path: str, progress: Progress | None = None) -> str:
    """Returns a local directory with what is published at an address; a local path is returned unchanged.

    Raises:
      FileNotFoundError: nothing is published at the address.
      ValueError: the published files are gone or damaged, or the address is of an unknown kind.
      StoreError: the store cannot be reached or refuses.
    """
    if not is_store_url(path):
        return path
    mirror = Mirror(path, progress=progress)
    if not mirror.pull():
        Store(path).files()  # raises if the bucket does not exist
        raise FileNotFoundError(f"{path}: nothing is published at this address (no {PUBLISHED_FILE})")
    found = mirror.path
    use_copy(found)
    return found


def _has(path: str, name: str, entry: PublishedFile, stamps: Mapping[str, Any], same: bool) -> bool:
    """Whether a local file equals the published one."""
    if not os.path.isfile(path):
        return False
    if entry.crc32c is None:  # the local file is newer if nothing was published since
        return same
    if os.path.getsize(path) != entry.bytes:
        return False
    return stamps.get(name) == _stamp(path) or crc32c(path) == entry.crc32c


def _stamp(path: str) -> list[int]:
    found = os.stat(path)
    return [found.st_size, found.st_mtime_ns]
