"""A model whose versions are found on a disk or in a store, loaded, and unloaded."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from concurrent.futures import Executor

from absl import logging

from tfrs_dlrm.messages.log_rate import LogRate
from tfrs_dlrm.serving.bundle.versions import fetch_newest, fetch_versions, find_versions
from tfrs_dlrm.serving.protocol import InvalidRequest, NotFound
from tfrs_dlrm.serving.runtime.saved_model import SavedModel
from tfrs_dlrm.serving.server.batching import Batcher
from tfrs_dlrm.serving.server.loading import NoRoomError, has_room, load
from tfrs_dlrm.serving.server.model_config import VersionPolicy
from tfrs_dlrm.serving.server.resting import Resting, fingerprint, look
from tfrs_dlrm.serving.server.served_version import ServedVersion, State
from tfrs_dlrm.serving.server.uninterrupted import uninterrupted
from tfrs_dlrm.stores import StoreError, forget_copy, is_store_url

SECONDS_BETWEEN_LISTINGS = 30.0  # of a store, which charges for each


class ServedModel:
    """A model and its versions.

    Args:
      name: of the model.
      path: the directory of its versions, or their address in a store.
      policy: which versions to serve.
      loader: the threads that load and unload.
      batcher: makes the batcher of a version.
      changed: called with a version that was loaded or unloaded.

    Attributes:
      policy: which versions to serve; a configuration changes it.
      labels: the numbers of versions by label, which are served as well.
      versions: that are or were loaded, by number.
    """

    def __init__(
        self,
        name: str,
        path: str,
        policy: VersionPolicy,
        loader: Executor,
        batcher: Callable[[SavedModel], Batcher],
        changed: Callable[[ServedModel, ServedVersion], None],
    ):
        self.name, self.path = name, path
        self.labels: dict[str, int] = {}
        self.versions: dict[int, ServedVersion] = {}
        self.policy = policy
        self._loader, self._batcher, self._changed = loader, batcher, changed
        self._unloading: set[asyncio.Task[None]] = set()
        self._found: dict[int, str] = {}
        self._next_listing = 0.0
        self._resting, self._waits_for_files = Resting(), LogRate(30)

    def available(self) -> list[ServedVersion]:
        """Returns the versions that answer requests, newest first."""
        found = [version for version in self.versions.values() if version.state == State.AVAILABLE]
        return sorted(found, key=lambda version: -version.number)

    def choose(self, number: int | None = None, label: str | None = None) -> ServedVersion:
        """Returns the version of a number or label, by default the newest.

        Raises:
          InvalidRequest: the label is unknown.
          NotFound: the version is not loaded, or none is.
        """
        if label is not None:
            if label not in self.labels:
                raise InvalidRequest(
                    f"Unrecognized servable version label: {label}; model {self.name!r} has {sorted(self.labels)}"
                )
            number = self.labels[label]
        found = self.available()
        for version in found:
            if number in (None, version.number):
                return version
        asked = f"Latest({self.name})" if number is None else f"Specific({self.name}, {number})"
        loaded = ", ".join(str(version.number) for version in found) or "none, and its status says why"
        raise NotFound(f"Servable not found for request: {asked}; versions loaded: {loaded}")

    async def poll(self) -> None:
        """Loads new versions, the newest first, and then unloads versions that are not served any more."""
        loop = asyncio.get_running_loop()
        on_disk = await loop.run_in_executor(self._loader, self._find)
        wanted: set[int] = set()
        for number, path in sorted(on_disk.items(), reverse=True):
            if not self.policy.takes(number, len(wanted)) and number not in self.labels.values():
                continue
            if number not in self.versions or self.versions[number].state in (State.END, State.AVAILABLE):
                await self._look_again(number, path)
            known = self.versions.get(number)
            if known is not None and known.state == State.AVAILABLE:
                wanted.add(number)
        if wanted:  # if all versions on disk are gone or broken, the loaded ones stay
            for version in self.available():
                if version.number not in wanted and version.number not in self.labels.values():
                    self._retire(version)
        self._resting.keep(on_disk)
        for number, version in list(self.versions.items()):
            if version.state == State.END and number not in on_disk:
                del self.versions[number]

    def _find(self) -> dict[int, str]:
        """Returns the directories of the versions by number; from a store, local copies of the newest."""
        if not is_store_url(self.path):
            return find_versions(self.path)
        if time.monotonic() >= self._next_listing:
            try:
                takes = self.policy.takes
                self._found = fetch_versions(self.path, takes, set(self.labels.values()))
            except StoreError as e:
                if not self._found:
                    raise
                logging.error("%s; the loaded versions keep answering", e)
            self._next_listing = time.monotonic() + SECONDS_BETWEEN_LISTINGS
        return self._found

    async def close(self) -> None:
        """Unloads all versions after their last requests; what fails is logged."""
        for version in self.available():
            self._retire(version)
        for result in await asyncio.gather(*self._unloading, return_exceptions=True):
            if isinstance(result, Exception):
                logging.error("%s: a version could not be unloaded", self.name, exc_info=result)

    async def _look_again(self, number: int, path: str) -> None:
        """Loads a version that is new, or whose files changed since they were loaded or refused, once they rest."""
        loop = asyncio.get_running_loop()
        known = self.versions.get(number)
        if known is not None and known.fingerprint == await loop.run_in_executor(self._loader, fingerprint, path):
            waits = known.bytes_needed and not has_room(known.bytes_needed)
            refused = (known.error or known.warning) and not known.bytes_needed
            # An old version that was unloaded is loaded again if no newer one can be served.
            if waits or refused or (known.state == State.AVAILABLE and not known.bytes_needed):
                return
        seen = await loop.run_in_executor(self._loader, look, path)
        # A copy from a store appears whole.
        if not is_store_url(self.path) and not self._resting.reached(number, seen):
            why = "%s: version %d is not whole yet, and is not loaded while its files change: %s"
            if self._waits_for_files.due():
                logging.info(why, self.name, number, seen.missing)
            return
        fresh = ServedVersion(self.name, number, path, seen.fingerprint)
        if known is None or known.state == State.END:
            self.versions[number] = fresh
            await self._load(fresh)
        else:
            await self._replace(known, fresh)

    async def _replace(self, served: ServedVersion, fresh: ServedVersion) -> None:
        """Loads the changed files of a version, which answers from what was loaded until then."""
        await self._load(fresh)
        if fresh.state == State.AVAILABLE:
            self.versions[fresh.number] = fresh
            self._retire(served)
        else:
            served.fingerprint, served.bytes_needed = fresh.fingerprint, fresh.bytes_needed
            served.warning = f"its files changed since it was loaded, and are refused; the former answer: {fresh.error}"

    async def _load(self, version: ServedVersion) -> None:
        self._changed(self, version)
        logging.info("%s: loading version %d", self.name, version.number)
        work = asyncio.get_running_loop().run_in_executor(self._loader, load, version.path)
        try:
            model, manifest = await uninterrupted(work)
        except asyncio.CancelledError:  # the server ends
            version.state = State.END
            if work.exception() is None:
                self._loader.submit(work.result()[0].close)
            raise
        except Exception as e:
            version.error, version.state = str(e), State.END
            version.bytes_needed = e.needed if isinstance(e, NoRoomError) else 0
            logging.error("%s: version %d is refused: %s", self.name, version.number, e)
        else:
            version.model, version.manifest, version.batcher = model, manifest, self._batcher(model)
            version.state = State.AVAILABLE
            unchecked = "" if manifest else "; it has no bundle.json, so neither files nor scores could be checked"
            logging.info("%s: version %d is loaded%s", self.name, version.number, unchecked)
        self._changed(self, version)

    def _retire(self, version: ServedVersion) -> None:
        version.state = State.UNLOADING
        task = asyncio.get_running_loop().create_task(self._unload(version))
        self._unloading.add(task)
        task.add_done_callback(self._unloading.discard)

    async def _unload(self, version: ServedVersion) -> None:
        await version.idle()
        model, version.model, version.batcher = version.loaded, None, None
        await asyncio.get_running_loop().run_in_executor(self._loader, model.close)
        if is_store_url(self.path) and version.path not in self._found.values():
            await asyncio.get_running_loop().run_in_executor(self._loader, forget_copy, version.path)
        version.state = State.END
        logging.info("%s: version %d is unloaded", self.name, version.number)
        if self.versions.get(version.number) is version:  # not if its files were loaded again
            self._changed(self, version)


def holds_models(root: str) -> bool:
    """Returns whether `root` is a directory of models, not the model itself."""
    return not is_store_url(root) and not find_versions(root)


def find_models(root: str) -> dict[str, str]:
    """Returns paths by name: of the one model whose versions `root` holds, or of the models in it.

    Raises:
      ValueError: the directory holds no model.
    """
    if is_store_url(root):
        if not fetch_newest(root, 1):
            raise ValueError(
                f"{root}: no version is published, as tfrs-dlrm export --output={root} makes; of a store"
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
