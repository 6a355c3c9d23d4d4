"""The local copy of what is published under an address.

Everything works on the copy. `pull` brings it up to what is published, `push` publishes what changed in it. Copies are
kept in `TFRS_DLRM_CACHE`, by default `~/.cache/tfrs_dlrm`, so that a second run downloads nothing:

cache/KIND/BUCKET/PREFIX/
  copy-ID/     the copy of what was published with this id, or of what is to be published
  state.json   which of them it is, and what its files were when it was last equal to what is published
  lock         held while a process pulls or pushes
  use          held, together with others, by processes that read the copy
  writer       held by the one process that writes the copy, if any
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import os
import secrets
import shutil
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import google_crc32c
from absl import logging

from tfrs_dlrm.stores.address import StoreUrl, is_store_url
from tfrs_dlrm.stores.errors import StoreError
from tfrs_dlrm.stores.files import read_json, write_json
from tfrs_dlrm.stores.listing import PUBLISHED_FILE, Listing, PublishedFile
from tfrs_dlrm.stores.publish import check_free, remove_empty, visible_files
from tfrs_dlrm.stores.store import CHUNK_BYTES, Store
from tfrs_dlrm.stores.transfer import Progress, download_all, upload_all

CACHE_VARIABLE = "TFRS_DLRM_CACHE"
# What is published may change while it is read, and a file vanish while it is written, as old checkpoints do.
_ATTEMPTS = 5
# The copies that this process uses, each with the file whose lock says so.
_USED: dict[str, io.TextIOWrapper] = {}


class Mirror:
    """A local directory and what is published of it.

    Args:
      address: in a store.
      fixed: tells names of files that never change once they are there; by default all. Others may grow.
      progress: is told how far a transfer is.

    Raises:
      ValueError: another kind of address.
    """

    def __init__(
        self, address: str, fixed: Callable[[str], bool] = lambda name: True, progress: Progress | None = None
    ):
        self.address, self._home = address.rstrip("/"), _home(StoreUrl.parse(address))
        self._fixed, self._progress = fixed, progress
        self._writer: io.TextIOWrapper | None = None

    @property
    def path(self) -> str:
        """The local directory; there may be none yet."""
        return os.path.join(self._home, self._state()["directory"])

    def listing(self) -> Listing | None:
        """What is published."""
        return Listing.read(Store(self.address))

    def write_alone(self) -> None:
        """From now on until the process ends, other processes of this machine leave the copy as it is.

        Raises:
          ValueError: another process does that already.
        """
        os.makedirs(self._home, exist_ok=True)
        self._writer = self._writer or open(os.path.join(self._home, "writer"), "w", encoding="utf-8")  # noqa: SIM115
        try:
            fcntl.flock(self._writer, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            self._writer.close()
            self._writer = None
            raise ValueError(
                f"{self.address}: another process of this machine works on it; is it running twice?"
            ) from e

    def done_writing(self) -> None:
        """Ends what `write_alone` began."""
        if self._writer:
            self._writer.close()
            self._writer = None

    def pull(self) -> bool:
        """Makes the local directory what is published, and returns whether anything is.

        What is newer there than what was published last stays: a run that was killed before it could publish it goes
        on from it, unless another machine went on meanwhile. So does what another process of this machine writes.

        Raises:
          ValueError: what was published is gone, or damaged.
          StoreError: the store cannot be reached or refuses.
        """
        with self._lock():
            for attempt in range(1, _ATTEMPTS + 1):
                listing, state = self.listing(), self._state()
                if listing is None:
                    self._check_not_gone(state)
                    return False
                if self._is_written() and state["id"] == listing.id:
                    return True
                try:
                    self._bring(listing, state)
                    return True
                except (FileNotFoundError, ValueError):
                    if attempt == _ATTEMPTS or self.listing() == listing:
                        raise  # otherwise something else has been published meanwhile
        raise AssertionError("not reached")

    def push(self) -> None:
        """Publishes what changed in the local directory since the last time; all of it at once.

        Raises:
          FileExistsError: something else is at the address.
          ValueError: another process published something there meanwhile, or the local directory lost files.
          StoreError: the store cannot be reached or refuses; what was published before stays as it was.
        """
        with self._lock():
            store, state = Store(self.address), self._state()
            before = self._check_mine(Listing.read(store), state)
            old = before.files if before else {}
            files, stamps = self._upload(store, old, state["files"])
            if before and files == old and stamps == state["files"]:
                return
            self._check_mine(Listing.read(store), state)
            listing = Listing(before.id if before else secrets.token_hex(8), secrets.token_hex(8), files)
            listing.write(store)
            self._remember(listing, state["directory"], stamps)
            kept = {entry.object or name for name, entry in files.items()}
            for name in {entry.object or name for name, entry in old.items()} - kept:
                try:
                    store.remove(name)
                except StoreError as e:
                    logging.warning("%s: no longer needed, but still there: %s", name, e)

    def _bring(self, listing: Listing, state: dict[str, Any]) -> None:
        same = (state["id"], state["version"]) == (listing.id, listing.version)
        directory = state["directory"] if state["id"] == listing.id else f"copy-{listing.id}"
        path = os.path.join(self._home, directory)
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
            # What grew since it was published is still to be published.
            growing = {n for n, e in listing.files.items() if same and e.crc32c is None} - missing.keys()
            grown = {n: stamps[n] for n in growing if n in stamps}
            self._remember(listing, directory, known | grown)

    def _check_not_gone(self, state: Mapping[str, Any]) -> None:
        if state["id"]:
            raise ValueError(
                f"{self.address}: what was published there is gone. Its local copy is {self.path}; remove"
                f" {self._home} to begin anew, or take from it what is needed"
            )

    def _check_mine(self, found: Listing | None, state: Mapping[str, Any]) -> Listing | None:
        """What is published, if this copy is of it."""
        if found and (found.id, found.version) != (state["id"], state["version"]):
            raise ValueError(f"{self.address}: another process has published something there; is it running twice?")
        return found

    def _upload(
        self, store: Store, old: Mapping[str, PublishedFile], known: Mapping[str, Any]
    ) -> tuple[dict[str, PublishedFile], dict[str, list[int]]]:
        """What is in the store then, and what the files were just before they were read: they may grow meanwhile."""
        for attempt in range(1, _ATTEMPTS + 1):
            names = list(visible_files(self.path))
            lost = self._directories(old) - self._directories(names)
            if lost:
                raise ValueError(
                    f"{self.path}: {', '.join(sorted(lost))} is gone from the local copy, and still published; run the"
                    " same command again, and it is brought back"
                )
            if not old:
                check_free(store, names)
            try:
                stamps = {n: _stamp(os.path.join(self.path, n)) for n in names}
                changed = [n for n in names if n not in old or known.get(n) != stamps[n]]
                # What others may be reading is not overwritten, unless it may grow.
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
        """Of fixed files."""
        return {name.split("/")[0] for name in names if "/" in name and self._fixed(name)}

    def _is_written(self) -> bool:
        """Whether another process has said `write_alone`."""
        if self._writer:
            return False
        with open(os.path.join(self._home, "writer"), "a", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def _state(self) -> dict[str, Any]:
        path = os.path.join(self._home, "state.json")
        if os.path.isfile(path):
            state = read_json(path)
            if os.path.isdir(os.path.join(self._home, state["directory"])):
                return state
        return {"id": "", "version": "", "directory": "copy-new", "files": {}}

    def _remember(self, listing: Listing, directory: str, stamps: Mapping[str, list[int]]) -> None:
        state = {"id": listing.id, "version": listing.version, "directory": directory, "files": stamps}
        write_json(os.path.join(self._home, "state.json"), state)

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        """Of several processes of this machine, one at a time."""
        os.makedirs(self._home, exist_ok=True)
        with open(os.path.join(self._home, "lock"), "w", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                logging.warning("%s: waiting for another process of this machine that transfers it", self.address)
                fcntl.flock(file, fcntl.LOCK_EX)
            yield


def local_copy(path: str, progress: Progress | None = None) -> str:
    """A local directory with what is published at an address; a local path is returned as it is.

    Raises:
      FileNotFoundError: nothing is published there.
      ValueError: what was published is gone or damaged, or it is another kind of address.
      StoreError: the store cannot be reached or refuses.
    """
    if not is_store_url(path):
        return path
    mirror = Mirror(path, progress=progress)
    if not mirror.pull():
        Store(path).files()  # says so where there is no bucket
        raise FileNotFoundError(f"{path}: nothing is published there (there is no {PUBLISHED_FILE})")
    found = mirror.path
    if found not in _USED:
        _USED[found] = open(os.path.join(os.path.dirname(found), "use"), "a", encoding="utf-8")  # noqa: SIM115
        fcntl.flock(_USED[found], fcntl.LOCK_SH)
    return found


def forget_copy(path: str) -> bool:
    """Removes what `local_copy` returned for an address, unless other processes use it; returns whether it is gone."""
    home = os.path.dirname(path)
    if used := _USED.pop(path, None):
        used.close()
    with open(os.path.join(home, "use"), "a", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        shutil.rmtree(path, ignore_errors=True)
        return True


def _has(path: str, name: str, entry: PublishedFile, stamps: Mapping[str, Any], same: bool) -> bool:
    """Whether a file is what is published."""
    if not os.path.isfile(path):
        return False
    if entry.crc32c is None:  # newer here, where nothing else was published meanwhile
        return same
    if os.path.getsize(path) != entry.bytes:
        return False
    return stamps.get(name) == _stamp(path) or _crc32c(path) == entry.crc32c


def _home(address: StoreUrl) -> str:
    root = os.environ.get(CACHE_VARIABLE) or os.path.join(os.path.expanduser("~"), ".cache", "tfrs_dlrm")
    # The same bucket at another endpoint is another one.
    names = {"s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"), "gs": ("STORAGE_EMULATOR_HOST",)}[address.scheme]
    endpoint = next(filter(None, map(os.environ.get, names)), "")
    kind = f"{address.scheme}-{_digest(endpoint)}" if endpoint else address.scheme
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
