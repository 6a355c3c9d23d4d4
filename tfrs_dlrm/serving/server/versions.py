"""The versions of a model: found on disk, loaded in the background, unloaded after their last request."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from typing import Any

import numpy as np
from absl import logging

from tfrs_dlrm.serving.bundle.versions import fetch_newest
from tfrs_dlrm.serving.runtime import protos
from tfrs_dlrm.serving.runtime.runtime import SavedModel, Signature
from tfrs_dlrm.serving.server import loading
from tfrs_dlrm.serving.server.batching import Batcher
from tfrs_dlrm.serving.server.errors import NotFound, Unavailable
from tfrs_dlrm.serving.server.request_checks import shared_inputs, unknown
from tfrs_dlrm.stores import StoreError, forget_copy, is_store_url

# A listing has its price.
SECONDS_BETWEEN_LISTINGS = 30.0
State = protos.status.ModelVersionStatus


class Version:
    """One version. Only the event loop changes it.

    Attributes:
      model_name: of its model.
      number: its directory's name.
      path: its directory.
      state: LOADING, AVAILABLE, UNLOADING or END, of ModelVersionStatus.
      error: why it was refused.
      manifest: its bundle.json, or empty.
      model: while it is loaded; `loaded` where it has to be.
      batcher: what runs it.
    """

    def __init__(self, model_name: str, number: int, path: str, fingerprint: tuple[Any, ...]):
        self.model_name = model_name
        self.number, self.path, self.fingerprint = number, path, fingerprint
        self.state = State.LOADING
        self.error = ""
        self.manifest: dict[str, Any] = {}
        self.model: SavedModel | None = None
        self.batcher: Batcher | None = None
        self._uses = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @contextlib.contextmanager
    def in_use(self) -> Iterator[Version]:
        """As long as it lasts, the version is not unloaded."""
        self._uses += 1
        self._idle.clear()
        try:
            yield self
        finally:
            self._uses -= 1
            if not self._uses:
                self._idle.set()

    async def idle(self) -> None:
        """Returns when no request uses it, and nothing is run for a caller that gave up."""
        await self._idle.wait()
        if self.batcher:
            await self.batcher.idle()

    @property
    def context(self) -> frozenset[str]:
        """The inputs that the candidates of a request share."""
        return shared_inputs(self.manifest)

    def signature(self, name: str) -> Signature:
        """Raises InvalidRequest where there is none of that name."""
        found = self.loaded.signatures.get(name)
        if found is None:
            raise unknown("signature", name, "the model", self.loaded.signatures)
        return found

    async def run(self, name: str, inputs: dict[str, np.ndarray], rows: int) -> dict[str, np.ndarray]:
        """The outputs of a signature for inputs that were checked.

        Raises:
          RunError: TensorFlow refuses them.
          Unavailable: the version is not loaded.
        """
        if self.batcher is None:
            raise self._gone()
        return await self.batcher.run(name, inputs, rows)

    @property
    def loaded(self) -> SavedModel:
        """The model; raises Unavailable where it is not loaded."""
        if self.model is None:
            raise self._gone()
        return self.model

    def _gone(self) -> Unavailable:
        return Unavailable(f"model {self.model_name!r}: version {self.number} is not loaded; ask for the newest")


class Model:
    """A model's base path and what of it is loaded.

    Args:
      name: of the model.
      path: the directory of its versions, or their address in a store.
      keep: how many of the newest versions to serve.
      loader: the threads that load and unload.
      batcher: makes what runs a version.
      changed: called with a version that was loaded or unloaded.
    """

    def __init__(
        self,
        name: str,
        path: str,
        keep: int,
        loader: Executor,
        batcher: Callable[[SavedModel], Batcher],
        changed: Callable[[Model, Version], None],
    ):
        self.name, self.path = name, path
        self.labels: dict[str, int] = {}
        self.versions: dict[int, Version] = {}
        self._keep, self._loader, self._batcher, self._changed = keep, loader, batcher, changed
        self._unloading: set[asyncio.Task[None]] = set()
        self._found: dict[int, str] = {}
        self._next_look = 0.0

    def available(self) -> list[Version]:
        """The versions that answer requests, newest first."""
        found = [version for version in self.versions.values() if version.state == State.AVAILABLE]
        return sorted(found, key=lambda version: -version.number)

    def choose(self, number: int | None = None, label: str | None = None) -> Version:
        """The version of that number or label; the newest where neither is given.

        Raises:
          NotFound: it is not loaded.
          Unavailable: none is.
        """
        if label is not None:
            if label not in self.labels:
                raise NotFound(f"model {self.name!r} has no version label {label!r}; it has {sorted(self.labels)}")
            number = self.labels[label]
        found = self.available()
        if not found:
            raise Unavailable(f"model {self.name!r}: no version is loaded; its status says why")
        for version in found:
            if number in (None, version.number):
                return version
        raise NotFound(
            f"model {self.name!r} has no version {number} loaded; it has {', '.join(str(v.number) for v in found)}"
        )

    async def poll(self) -> None:
        """Loads what is new on disk, newest first, and then unloads what is too old."""
        loop = asyncio.get_running_loop()
        on_disk = await loop.run_in_executor(self._loader, self._look)
        wanted: set[int] = set()
        for number, path in sorted(on_disk.items(), reverse=True):
            if len(wanted) == self._keep:
                break
            known = self.versions.get(number)
            if known is None or known.state == State.END:
                fingerprint = await loop.run_in_executor(self._loader, _fingerprint, path)
                # A refused version is tried again once it changed; an old one where nothing newer is fit.
                if known is None or not known.error or known.fingerprint != fingerprint:
                    known = self.versions[number] = Version(self.name, number, path, fingerprint)
                    await self._load(known)
            if known.state == State.AVAILABLE:
                wanted.add(number)
        if wanted:  # where everything on disk is gone or broken, what is in memory stays
            for version in self.available():
                if version.number not in wanted and version.number not in self.labels.values():
                    self._retire(version)
        for number, version in list(self.versions.items()):
            if version.state == State.END and number not in on_disk:
                del self.versions[number]

    def _look(self) -> dict[int, str]:
        """The directories of the versions by number; of those in a store, local copies of the newest."""
        if not is_store_url(self.path):
            return find_versions(self.path)
        if time.monotonic() >= self._next_look:
            try:
                self._found = fetch_newest(self.path, self._keep)
            except StoreError as e:
                if not self._found:
                    raise
                logging.error("%s; what is loaded goes on answering", e)
            self._next_look = time.monotonic() + SECONDS_BETWEEN_LISTINGS
        return self._found

    async def close(self) -> None:
        """Unloads everything, after the last requests."""
        for version in self.available():
            self._retire(version)
        await asyncio.gather(*self._unloading)

    async def _load(self, version: Version) -> None:
        self._changed(self, version)
        logging.info("%s: loading version %d", self.name, version.number)
        try:
            model, manifest = await asyncio.get_running_loop().run_in_executor(self._loader, loading.load, version.path)
        except Exception as e:
            version.error, version.state = str(e), State.END
            logging.error("%s: version %d is refused: %s", self.name, version.number, e)
        else:
            version.model, version.manifest, version.batcher = model, manifest, self._batcher(model)
            version.state = State.AVAILABLE
            logging.info("%s: version %d is loaded", self.name, version.number)
        self._changed(self, version)

    def _retire(self, version: Version) -> None:
        version.state = State.UNLOADING
        task = asyncio.get_running_loop().create_task(self._unload(version))
        self._unloading.add(task)
        task.add_done_callback(self._unloading.discard)

    async def _unload(self, version: Version) -> None:
        await version.idle()
        model, version.model, version.batcher = version.loaded, None, None
        await asyncio.get_running_loop().run_in_executor(self._loader, model.close)
        if is_store_url(self.path) and version.path not in self._found.values():
            await asyncio.get_running_loop().run_in_executor(self._loader, forget_copy, version.path)
        version.state = State.END
        logging.info("%s: version %d is unloaded", self.name, version.number)
        self._changed(self, version)


def find_versions(path: str) -> dict[int, str]:
    """The directories, by number."""
    found: dict[int, str] = {}
    with contextlib.suppress(OSError), os.scandir(path) as entries:
        for entry in entries:
            if entry.name.isascii() and entry.name.isdigit() and entry.is_dir():
                found[int(entry.name)] = entry.path
    return found


def _fingerprint(path: str) -> tuple[Any, ...]:
    """Of all files: it changes where a version is replaced, and as long as one is being copied."""
    parts: list[Any] = []
    for directory, _, names in sorted(os.walk(path)):
        for name in ["", *sorted(names)]:
            file = os.path.join(directory, name)
            with contextlib.suppress(OSError):
                stat = os.stat(file)
                parts.append((file, stat.st_ino, stat.st_mtime_ns, stat.st_size))
    return tuple(parts)


def find_models(root: str) -> dict[str, str]:
    """Base paths by name: of the one model whose versions `root` holds, or of those whose directories it holds.

    Raises:
      ValueError: there is none.
    """
    if is_store_url(root):
        if not fetch_newest(root, 1):
            raise ValueError(
                f"{root}: no version is published there, as tfrs-dlrm export --output={root} makes; of a store"
                " one model is served, so give the address of its versions"
            )
        return {root.rstrip("/").rpartition("/")[2]: root.rstrip("/")}
    root = os.path.abspath(root)
    if find_versions(root):
        return {os.path.basename(root): root}
    if os.path.exists(os.path.join(root, "saved_model.pb")):
        raise ValueError(f"{root} is one version; give the directory of the versions, {os.path.dirname(root)}")
    if not os.path.isdir(root):
        raise ValueError(f"{root} is no directory; give a model's directory of versions (1/, 2/, ...)")
    found = {entry.name: entry.path for entry in os.scandir(root) if entry.is_dir() and find_versions(entry.path)}
    if not found:
        raise ValueError(f"{root} has no version: a directory whose name is an integer, as tfrs-dlrm export makes")
    return dict(sorted(found.items()))
