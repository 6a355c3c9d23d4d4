"""The interface that the gRPC and the REST transport implement."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from tfrs_dlrm.serving.protocol import InvalidRequest
from tfrs_dlrm.serving.runtime.signature import Signature


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """The model that is asked: its newest version, unless a version or a label is given."""

    name: str
    version: int | None = None
    label: str | None = None

    def __post_init__(self) -> None:
        if self.version is not None and self.label is not None:
            raise ValueError(f"version={self.version} and label={self.label!r}: give one of them")
        if self.version is not None and not -(2**63) <= self.version < 2**63:
            raise InvalidRequest(f"version={self.version}; versions are numbers of 64 bits, at most {2**63 - 1}")


@dataclasses.dataclass(frozen=True)
class VersionStatus:
    """The status of one version.

    Attributes:
      version: the number.
      state: `START`, `LOADING`, `AVAILABLE`, `UNLOADING` or `END`.
      error: why it is not served, or empty.
    """

    version: int
    state: str
    error: str


class Transport(Protocol):
    """Takes arrays to a server and back; raises the errors of `protocol`.

    A `request_id` is sent as the header or the metadata `REQUEST_ID`.
    """

    def predict(
        self,
        spec: ModelSpec,
        signature: str,
        inputs: Mapping[str, np.ndarray],
        info: Signature | None,
        request_id: str | None,
    ) -> dict[str, np.ndarray]:
        """Returns the outputs by name."""

    def regress(self, spec: ModelSpec, rows: Sequence[Mapping[str, np.ndarray]], request_id: str | None) -> list[float]:
        """Returns one value per row."""

    def classify(
        self, spec: ModelSpec, rows: Sequence[Mapping[str, np.ndarray]], request_id: str | None
    ) -> list[list[tuple[str, float]]]:
        """Returns the class and the score of each class, per row."""

    def signatures(self, spec: ModelSpec) -> dict[str, Signature]:
        """Returns the signatures by name."""

    def status(self, spec: ModelSpec) -> list[VersionStatus]:
        """Returns the status of the versions that the server knows."""

    def close(self) -> None:
        """Closes the connections."""


def read_status(response: Any) -> list[VersionStatus]:
    """Reads a GetModelStatusResponse."""
    return [
        VersionStatus(v.version, type(v).State.Name(v.state), v.status.error_message)
        for v in response.model_version_status
    ]
