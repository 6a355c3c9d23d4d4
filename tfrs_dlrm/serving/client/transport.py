"""What a transport does; gRPC and REST are the two."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from tfrs_dlrm.serving.runtime.runtime import Signature, read_signature

REQUEST_ID = "x-request-id"


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """Which model is asked: the newest version, unless a version or a label is given."""

    name: str
    version: int | None = None
    label: str | None = None

    def __post_init__(self) -> None:
        if self.version is not None and self.label is not None:
            raise ValueError(f"version={self.version} and label={self.label!r}: give one of them")


@dataclasses.dataclass(frozen=True)
class VersionStatus:
    """Of one version.

    Attributes:
      version: its number.
      state: `START`, `LOADING`, `AVAILABLE`, `UNLOADING` or `END`.
      error: why it is not served; empty where nothing is wrong.
    """

    version: int
    state: str
    error: str


class Transport(Protocol):
    """Takes arrays to a server and back; raises the errors of `errors`.

    Requests bear a `request_id` where one is given, as the header or the metadata `REQUEST_ID`.
    """

    def predict(
        self,
        spec: ModelSpec,
        signature: str,
        inputs: Mapping[str, np.ndarray],
        info: Signature | None,
        request_id: str | None,
    ) -> dict[str, np.ndarray]:
        """The outputs by name."""

    def regress(self, spec: ModelSpec, rows: Sequence[Mapping[str, np.ndarray]], request_id: str | None) -> list[float]:
        """One value a row."""

    def classify(
        self, spec: ModelSpec, rows: Sequence[Mapping[str, np.ndarray]], request_id: str | None
    ) -> list[list[tuple[str, float]]]:
        """Class and score, of each class, for each row."""

    def signatures(self, spec: ModelSpec) -> dict[str, Signature]:
        """What can be asked, by name."""

    def status(self, spec: ModelSpec) -> list[VersionStatus]:
        """Of the versions that the server knows of."""

    def close(self) -> None:
        """Ends its connections."""


def read_signatures(signature_defs: Any) -> dict[str, Signature]:
    """Of a SignatureDefMap."""
    return {name: read_signature(s) for name, s in signature_defs.signature_def.items() if not name.startswith("__")}


def read_status(response: Any) -> list[VersionStatus]:
    """Of a GetModelStatusResponse."""
    return [
        VersionStatus(v.version, type(v).State.Name(v.state), v.status.error_message)
        for v in response.model_version_status
    ]
