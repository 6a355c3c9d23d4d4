"""One version of a model: loaded in the background, unloaded after its last request."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from tfrs_dlrm.serving.bundle.manifest import BundleManifest
from tfrs_dlrm.serving.protocol import InvalidRequest, Unavailable
from tfrs_dlrm.serving.runtime import protos
from tfrs_dlrm.serving.runtime.saved_model import SavedModel
from tfrs_dlrm.serving.runtime.signature import Signature
from tfrs_dlrm.serving.server.batching import Batcher
from tfrs_dlrm.serving.server.request_checks import Limits, unknown
from tfrs_dlrm.serving.server.row_plan import RowPlan

State = protos.status.ModelVersionStatus


class ServedVersion:
    """One version. Only the event loop changes it.

    Attributes:
      model_name: of its model.
      number: the name of its directory.
      path: of its directory.
      fingerprint: of its files, when they were loaded or last refused.
      state: LOADING, AVAILABLE, UNLOADING or END, of ModelVersionStatus.
      error: why it was refused.
      bytes_needed: of memory, if it was refused for lack of them; else 0.
      warning: why its files, which changed since it was loaded, were refused.
      manifest: of the bundle; None for a SavedModel that is no bundle.
      model: while it is loaded; see `loaded`.
      batcher: that runs it.
    """

    def __init__(self, model_name: str, number: int, path: str, fingerprint: tuple[Any, ...]):
        self.model_name = model_name
        self.number, self.path, self.fingerprint = number, path, fingerprint
        self.state = State.LOADING
        self.error = self.warning = ""
        self.bytes_needed = 0
        self.manifest: BundleManifest | None = None
        self.model: SavedModel | None = None
        self.batcher: Batcher | None = None
        self._plans: dict[str, RowPlan | None] = {}
        self._uses = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @contextlib.contextmanager
    def in_use(self) -> Iterator[ServedVersion]:
        """Keeps the version loaded until the end of the block."""
        self._uses += 1
        self._idle.clear()
        try:
            yield self
        finally:
            self._uses -= 1
            if not self._uses:
                self._idle.set()

    async def idle(self) -> None:
        """Waits until no request uses the version, and no run for a caller that gave up."""
        await self._idle.wait()
        if self.batcher:
            await self.batcher.idle()

    def signature(self, name: str, error: type[InvalidRequest] = InvalidRequest) -> Signature:
        """Returns a signature, or raises `error` if the model has none of that name."""
        found = self.loaded.signatures.get(name)
        if found is None:
            hint = unknown("signature", name, "the model", self.loaded.signatures)
            raise error(f'Serving signature name: "{name[:200]}" not found in signature def; {hint}')
        return found

    def row_plan(self, name: str, limits: Limits) -> RowPlan | None:
        """Returns the plan of a signature that the model has, made at its first use; None if there can be none.

        Args:
          name: of the signature.
          limits: of one request, always the same.
        """
        if name not in self._plans:
            signature = self.signature(name)
            possible = RowPlan.is_possible(name, signature)
            self._plans[name] = RowPlan(signature, self.manifest, limits) if possible else None
        return self._plans[name]

    async def run(self, name: str, inputs: dict[str, np.ndarray], rows: int) -> dict[str, np.ndarray]:
        """Returns the outputs of a signature for inputs that were checked.

        Raises:
          RunError: TensorFlow refuses them.
          Unavailable: the version is not loaded.
        """
        if self.batcher is None:
            raise self._unloaded()
        return await self.batcher.run(name, inputs, rows)

    @property
    def loaded(self) -> SavedModel:
        """The model; raises Unavailable if it is not loaded."""
        if self.model is None:
            raise self._unloaded()
        return self.model

    def _unloaded(self) -> Unavailable:
        return Unavailable(f"model {self.model_name!r}: version {self.number} is not loaded; ask for the newest")
