"""A client for TF Serving and for `tfrs-dlrm serve`, over gRPC or REST."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from tfrs_dlrm.serving.client.conversion import to_arrays, to_rows
from tfrs_dlrm.serving.client.errors import InvalidRequest, NotFound
from tfrs_dlrm.serving.client.transport import ModelSpec, Transport, VersionStatus
from tfrs_dlrm.serving.runtime.runtime import Signature

_SCHEMES = ("grpc", "grpcs", "http", "https")


class Client:
    """Asks one model of one server; threads may share it.

        with Client("grpc://127.0.0.1:8500", "clicks") as client:
            client.predict({"price": [1.5, None], "site": ["a", "b"]})["probability"]

    It asks the server once for the types of the model's inputs and converts to them: text to bytes, and None to what a
    missing value is (NaN, "" or -1).

    Args:
      address: `grpc://HOST:PORT`, `http://HOST:PORT`, or `grpcs://` and `https://` with TLS.
      model: its name.
      timeout: seconds to wait for an answer.
      bearer_token: where the server wants one.
      certificate: a PEM file, of a server's own certificate or of its authority, where the system does not trust it.

    Raises:
      ValueError: the address is none of these.
      ImportError: grpcio or httpx is not installed.
    """

    def __init__(
        self,
        address: str,
        model: str,
        timeout: float = 5.0,
        bearer_token: str | None = None,
        certificate: str | None = None,
    ):
        self.model = model
        self._transport = _connect(address, timeout, bearer_token, certificate)
        self._signatures: dict[ModelSpec, dict[str, Signature]] = {}

    def predict(
        self,
        features: Mapping[str, Any],
        signature: str = "serving_default",
        version: int | None = None,
        label: str | None = None,
        request_id: str | None = None,
    ) -> dict[str, np.ndarray]:
        """Scores rows.

        Args:
          features: by name, arrays or lists of one value a row.
          signature: which of the model's signatures to ask.
          version: of the model; by default the newest.
          label: of a version, instead of its number.
          request_id: what the server's log of requests names this one by, for labels to be joined with it later; by
            default the server makes one.

        Returns:
          The outputs by name.

        Raises:
          ServingError: see its subclasses in `errors`.
        """
        spec = ModelSpec(self.model, version, label)
        _check_id(request_id)
        try:
            info = self._info(spec).get(signature)
            inputs = to_arrays(features, info.inputs if info else {})
            return self._transport.predict(spec, signature, inputs, info, request_id)
        except (InvalidRequest, NotFound):
            self._signatures.clear()  # a new version of the model may have other inputs
            raise

    def rank(
        self,
        context: Mapping[str, Any],
        candidates: Mapping[str, Any],
        k: int | None = None,
        request_id: str | None = None,
    ) -> dict[str, np.ndarray]:
        """Scores the candidates of one context.

        Args:
          context: by name, the one value of each feature that all candidates share.
          candidates: by name, one value a candidate.
          k: how many of the best to return; by default all are scored.
          request_id: see `predict`.

        Returns:
          Without `k`, `scores` float32 [N] in the order of the candidates and `order` int32 [N], best first; with it,
          `scores` [K] and `indices` [K] of the best, best first.

        Raises:
          ServingError: see its subclasses in `errors`.
        """
        features = {name: [value] for name, value in {**context, **candidates}.items()}
        if k is not None:
            features["k"] = [k]
        outputs = self.predict(features, "rank" if k is None else "rank_top_k", request_id=request_id)
        return {name: value[0] for name, value in outputs.items()}

    def regress(self, examples: Sequence[Mapping[str, Any]], request_id: str | None = None) -> np.ndarray:
        """The probabilities or predicted numbers, float32 [B], of rows, which are sent as tf.Examples.

        Args:
          examples: by name, the value of each feature, or a list; what is None is left out, and counts as missing.
          request_id: see `predict`.

        Raises:
          ServingError: see its subclasses in `errors`.
        """
        spec = ModelSpec(self.model)
        _check_id(request_id)
        return np.asarray(self._transport.regress(spec, self._rows(spec, examples), request_id), np.float32)

    def classify(
        self, examples: Sequence[Mapping[str, Any]], request_id: str | None = None
    ) -> list[list[tuple[str, float]]]:
        """Class and score, of each class, for each row; see `regress`."""
        spec = ModelSpec(self.model)
        _check_id(request_id)
        return self._transport.classify(spec, self._rows(spec, examples), request_id)

    def metadata(self, version: int | None = None, label: str | None = None) -> dict[str, Signature]:
        """The signatures of the model by name, with the types and shapes of their inputs and outputs.

        Raises:
          ServingError: see its subclasses in `errors`.
        """
        return dict(self._info(ModelSpec(self.model, version, label)))

    def status(self) -> list[VersionStatus]:
        """The versions of the model, and whether they are served.

        Raises:
          ServingError: see its subclasses in `errors`.
        """
        return self._transport.status(ModelSpec(self.model))

    def close(self) -> None:
        """Ends its connections."""
        self._transport.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _info(self, spec: ModelSpec) -> dict[str, Signature]:
        if spec not in self._signatures:
            self._signatures[spec] = self._transport.signatures(spec)
        return self._signatures[spec]

    def _rows(self, spec: ModelSpec, examples: Sequence[Mapping[str, Any]]) -> list[dict[str, np.ndarray]]:
        """Of the types of the raw features, which `serving_default` takes by name."""
        raw = self._info(spec).get("serving_default")
        return to_rows(examples, raw.inputs if raw else {})


def _check_id(request_id: str | None) -> None:
    """What a header can hold, and REST and gRPC alike."""
    if request_id and not (request_id.isascii() and request_id.isprintable() and request_id == request_id.strip()):
        raise InvalidRequest(f"request_id={request_id!r}; printable ASCII is needed, without spaces at its ends")


def _connect(address: str, timeout: float, bearer_token: str | None, certificate: str | None) -> Transport:
    parts = urlsplit(address)
    if parts.scheme not in _SCHEMES or not parts.netloc:
        raise ValueError(f"address {address!r} is none of {', '.join(f'{s}://HOST:PORT' for s in _SCHEMES)}")
    if parts.scheme in ("grpc", "grpcs"):
        from tfrs_dlrm.serving.client.over_grpc import GrpcTransport

        return GrpcTransport(parts.netloc, parts.scheme == "grpcs", timeout, bearer_token, certificate)
    from tfrs_dlrm.serving.client.over_rest import RestTransport

    return RestTransport(address, timeout, bearer_token, certificate)
