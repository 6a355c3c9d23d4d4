"""The local copy of one address in the cache: its directories, its locks, and its state.

Copies are kept in `TFRS_DLRM_CACHE`, by default `~/.cache/tfrs_dlrm`:

cache/KIND/BUCKET/PREFIX/
  copy-ID/     the copy of the publication with this id, or of files that are to be published
  state.json   which directory is the copy, and the stamps of its files when it last equalled what is published
  lock         held while a process pulls or pushes
  use          held, together with others, by processes that read the copy
  writer       held by the one process that writes the copy, if any
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import urllib.parse
from collections.abc import Iterator, Mapping
from typing import Any

from tfrs_dlrm.stores.files import read_json, write_json
from tfrs_dlrm.stores.listing import Listing
from tfrs_dlrm.stores.lock import InUseError, Lock
from tfrs_dlrm.stores.urls import StoreUrl

CACHE_VARIABLE = "TFRS_DLRM_CACHE"
# The copies that this process uses, each with the lock that says so.
_USED: dict[str, Lock] = {}


class CachedCopy:
    """The local copy of one address.

    Args:
      address: a URL in a store.

    Raises:
      ValueError: the address is of an unknown kind.
    """

    def __init__(self, address: str):
        self.address, self.home = address, _home(StoreUrl.parse(address))
        self._writer = Lock(os.path.join(self.home, "writer"), address, "works on it")

    def state(self) -> dict[str, Any]:
        """Returns what `remember` wrote last: `id`, `version`, `directory` and `files`."""
        path = os.path.join(self.home, "state.json")
        if os.path.isfile(path):
            try:
                state = read_json(path)
                if os.path.isdir(os.path.join(self.home, state["directory"])):
                    return {name: state[name] for name in ("id", "version", "directory", "files")}
            except (ValueError, KeyError, TypeError):
                pass  # what is published is fetched again
        return {"id": "", "version": "", "directory": "copy-new", "files": {}}

    def remember(self, listing: Listing, directory: str, stamps: Mapping[str, list[int]]) -> None:
        """Writes down that a directory equals a listing, with the stamps of its files."""
        state = {"id": listing.id, "version": listing.version, "directory": directory, "files": stamps}
        write_json(os.path.join(self.home, "state.json"), state)

    @contextlib.contextmanager
    def transfer_lock(self) -> Iterator[None]:
        """Lets one process of this machine at a time transfer the copy."""
        with Lock(os.path.join(self.home, "lock"), self.address, "transfers it") as lock:
            lock.acquire(wait=lambda owner: True)
            yield

    def write_alone(self) -> None:
        """Keeps other processes of this machine from changing the copy until this process ends.

        Raises:
          InUseError: another process writes the copy already.
        """
        self._writer.acquire()

    def done_writing(self) -> None:
        """Releases the lock of `write_alone`."""
        self._writer.release()

    def is_written(self) -> bool:
        """Whether another process has called `write_alone`."""
        return self._writer.is_taken()


def use_copy(path: str) -> None:
    """Keeps other processes from removing a copy, a directory of `CachedCopy`, until this process ends."""
    if path not in _USED:
        lock = _use(path, shared=True)
        lock.acquire(wait=lambda owner: True)
        _USED[path] = lock


def forget_copy(path: str) -> bool:
    """Removes a copy that `local_copy` returned, unless other processes use it; returns whether it is gone."""
    if used := _USED.pop(path, None):
        used.release()
    with _use(path) as lock:
        try:
            lock.acquire()
        except InUseError:
            return False
        shutil.rmtree(path, ignore_errors=True)
        return True


def _use(path: str, shared: bool = False) -> Lock:
    return Lock(os.path.join(os.path.dirname(path), "use"), path, "removes it", shared=shared)


def cache_directory() -> str:
    """Returns the directory of what this machine keeps, which may not exist yet."""
    return os.environ.get(CACHE_VARIABLE) or os.path.join(os.path.expanduser("~"), ".cache", "tfrs_dlrm")


def _home(url: StoreUrl) -> str:
    # The same bucket at another endpoint is another bucket.
    names = {"s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"), "gs": ("STORAGE_EMULATOR_HOST",)}[url.scheme]
    endpoint = next(filter(None, map(os.environ.get, names)), "")
    kind = f"{url.scheme}-{_digest(endpoint)}" if endpoint else url.scheme
    name = urllib.parse.quote(url.prefix, safe="") or "%2F"
    if len(name) > 200:  # file systems allow 255
        name = f"{name[:180]}-{_digest(name)}"
    return os.path.join(cache_directory(), kind, url.bucket, name)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
