"""The local copy of what is published under an address.

Everything works on the copy. `pull` brings it up to what is published, `push` publishes what changed in it. It is kept
in `TFRS_DLRM_CACHE`, by default `~/.cache/tfrs_dlrm`, so that a second run downloads nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import shutil
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import google_crc32c

from tfrs_dlrm.files import read_json, write_json
from tfrs_dlrm.stores.address import Address, is_address
from tfrs_dlrm.stores.listing import Entry, Listing
from tfrs_dlrm.stores.publish import check_free, visible_files
from tfrs_dlrm.stores.store import CHUNK_BYTES, Store
from tfrs_dlrm.stores.transfer import Progress, download_all, upload_all

CACHE_VARIABLE = "TFRS_DLRM_CACHE"
# A file may vanish while it is written to the store, as old checkpoints do; then the rest is another directory.
_ATTEMPTS = 5


class Mirror:
    """A local directory and what is published of it.

    Args:
      address: in a store.
      fixed: tells names of files that never change once they are there; by default all. Others may grow.
      progress: is told how far a transfer is.

    Attributes:
      path: the local directory; there may be none yet.

    Raises:
      ValueError: another kind of address.
    """

    def __init__(self, address: str, fixed: Callable[[str], bool] | None = None, progress: Progress | None = None):
        self.address, self.path = address.rstrip("/"), _local_path(Address.parse(address))
        self._all_fixed, self._fixed = fixed is None, fixed or (lambda name: True)
        self._progress = progress

    def listing(self) -> Listing | None:
        """What is published."""
        return Listing.read(Store(self.address))

    def pull(self) -> bool:
        """Makes the local directory what is published, and returns whether anything is.

        What is newer there than what was published last stays: a run that was killed before it could publish it goes
        on from it, unless another machine went on meanwhile.

        Raises:
          ValueError: what was published is gone, or damaged.
          StoreError: the store cannot be reached or refuses.
        """
        with self._lock():
            listing, known = self.listing(), self._known()
            if listing is None:
                if known["id"]:
                    raise ValueError(
                        f"{self.address}: what was published there is gone. Its local copy is {self.path}; remove that"
                        " to begin anew, or take from it what is needed"
                    )
                return False
            same = (known["id"], known["version"]) == (listing.id, listing.version)
            if same and not self._all_fixed:
                return True
            if known["id"] != listing.id:
                shutil.rmtree(self.path, ignore_errors=True)
            missing = {n: e for n, e in listing.files.items() if not self._has(n, e, known["files"], same)}
            os.makedirs(self.path, exist_ok=True)
            download_all(Store(self.address), self.path, missing, self._progress)
            if not same:
                for name in set(visible_files(self.path)) - set(listing.files):
                    os.remove(os.path.join(self.path, name))
                _remove_empty(self.path)
                self._remember(listing, {n: _stamp(os.path.join(self.path, n)) for n in listing.files})
            return True

    def push(self) -> None:
        """Publishes what changed in the local directory since the last time; all of it at once.

        Raises:
          FileExistsError: something else is at the address.
          ValueError: another process published something there meanwhile.
          StoreError: the store cannot be reached or refuses; what was published before stays as it was.
        """
        with self._lock():
            store, known = Store(self.address), self._known()
            before = Listing.read(store)
            if before and (before.id, before.version) != (known["id"], known["version"]):
                raise ValueError(f"{self.address}: another process has published something there; is it running twice?")
            old = before.files if before else {}
            files, stamps = self._upload(store, old, known["files"])
            if before and files == old and stamps == known["files"]:
                return
            listing = Listing(before.id if before else secrets.token_hex(8), before.version + 1 if before else 1, files)
            listing.write(store)
            self._remember(listing, stamps)
            for name in old.keys() - files.keys():
                store.remove(name)

    def _upload(
        self, store: Store, old: Mapping[str, Entry], known: Mapping[str, Any]
    ) -> tuple[dict[str, Entry], dict[str, list[int]]]:
        """What is in the store then, and what the files were just before they were read: they may grow meanwhile."""
        for attempt in range(1, _ATTEMPTS + 1):
            names = list(visible_files(self.path))
            if not old:
                check_free(store, names)
            try:
                stamps = {n: _stamp(os.path.join(self.path, n)) for n in names}
                changed = [n for n in names if n not in old or known.get(n) != stamps[n]]
                uploaded = upload_all(store, self.path, changed, self._progress)
            except FileNotFoundError:
                if attempt == _ATTEMPTS:
                    raise
                continue
            uploaded = {n: e if self._fixed(n) else Entry(e.bytes, None) for n, e in uploaded.items()}
            return {name: uploaded.get(name) or old[name] for name in names}, stamps
        raise AssertionError("not reached")

    def _has(self, name: str, entry: Entry, known: Mapping[str, Any], same: bool) -> bool:
        path = os.path.join(self.path, name)
        if not os.path.isfile(path) or (entry.crc32c is not None and os.path.getsize(path) != entry.bytes):
            return False
        if entry.crc32c is None:
            return same
        return (same and known.get(name) == _stamp(path)) or _crc32c(path) == entry.crc32c

    def _known(self) -> dict[str, Any]:
        """What the local directory was when it was last equal to what is published."""
        path = f"{self.path}.json"
        if os.path.isfile(path) and os.path.isdir(self.path):
            return read_json(path)
        return {"id": "", "version": 0, "files": {}}

    def _remember(self, listing: Listing, stamps: Mapping[str, list[int]]) -> None:
        write_json(f"{self.path}.json", {"id": listing.id, "version": listing.version, "files": stamps})

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        """Of several processes of this machine, one at a time."""
        os.makedirs(os.path.dirname(self.path), exist_ok=True)
        with open(f"{self.path}.lock", "w", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def local_copy(path: str, progress: Progress | None = None) -> str:
    """A local directory with what is published at an address; a local path is returned as it is.

    Raises:
      FileNotFoundError: nothing is published there.
      ValueError: what was published is gone or damaged, or it is another kind of address.
      StoreError: the store cannot be reached or refuses.
    """
    if not is_address(path):
        return path
    mirror = Mirror(path, progress=progress)
    if not mirror.pull():
        raise FileNotFoundError(f"{path}: nothing is published there (there is no published.json)")
    return mirror.path


def forget_copy(path: str) -> None:
    """Removes what `local_copy` returned for an address."""
    shutil.rmtree(path, ignore_errors=True)
    for ending in (".json", ".lock"):
        with contextlib.suppress(FileNotFoundError):
            os.remove(path + ending)


def _local_path(address: Address) -> str:
    root = os.environ.get(CACHE_VARIABLE) or os.path.join(os.path.expanduser("~"), ".cache", "tfrs_dlrm")
    # The same bucket at another endpoint is another one.
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    kind = f"s3-{_digest(endpoint)}" if address.scheme == "s3" and endpoint else address.scheme
    name = urllib.parse.quote(address.prefix, safe="") or "%2F"
    if len(name) > 200:  # file systems allow 255
        name = f"{name[:180]}-{_digest(name)}"
    return os.path.join(root, kind, address.bucket, name)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _stamp(path: str) -> list[int]:
    found = os.stat(path)
    return [found.st_size, found.st_mtime_ns]


def _crc32c(path: str) -> str:
    crc = google_crc32c.Checksum()
    with open(path, "rb") as f:
        while chunk := f.read(CHUNK_BYTES):
            crc.update(chunk)
    return crc.digest().hex()


def _remove_empty(directory: str) -> None:
    for root, _, _ in os.walk(directory, topdown=False):
        if root != directory:
            with contextlib.suppress(OSError):
                os.rmdir(root)
