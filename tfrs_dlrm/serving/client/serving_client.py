"""A client for TF Serving and for `tfrs-dlrm serve`, over gRPC or REST."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from tfrs_dlrm.serving.client.feature_arrays import to_arrays, to_rows
from tfrs_dlrm.serving.client.transport import ModelSpec, Transport, VersionStatus
from tfrs_dlrm.serving.protocol import DEFAULT_SIGNATURE, InvalidRequest, NotFound
from tfrs_dlrm.serving.runtime.signature import Signature

_SCHEMES = ("grpc", "grpcs", "http", "https")


class ServingClient:
    """Asks one model of one server; threads may share it.

        with ServingClient("grpc://127.0.0.1:8500", "clicks") as client:
            client.predict({"price": [1.5, None], "site": ["a", "b"]})["probability"]

    The client asks the server once for the types of the model's inputs, and converts values to them: text to bytes, and
    None to the missing value (NaN, "" or -1).

    Args:
      address: `grpc://HOST:PORT`, `http://HOST:PORT`, or `grpcs://` and `https://` with TLS.
      model: the name of the model.
      timeout: seconds to wait for an answer.
      bearer_token: if the server needs one.
      certificate: a PEM file with the server's certificate or its authority, if the system does not trust it.

    Raises:
      ValueError: the address has another form.
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
        signature: str = DEFAULT_SIGNATURE,
        version: int | None = None,
        label: str | None = None,
        request_id: str | None = None,
    ) -> dict[str, np.ndarray]:
        """Scores rows.

        Args:
          features: by name, arrays or lists of one value a row.
          signature: of the model.
          version: of the model; by default the newest.
          label: of a version, instead of its number.
          request_id: the id of the request in the server's request log, with which labels are joined later; by default
            the server makes one.

        Returns:
          The outputs by name.

        Raises:
          ServingError: see its subclasses in `protocol`.
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
          k: the number of best candidates to return; by default all are returned.
          request_id: see `predict`.

        Returns:
          Without `k`, `scores` float32 [N] in the order of the candidates and `order` int32 [N], best first. With `k`,
          `scores` [K] and `indices` [K] of the best, best first.

        Raises:
          ServingError: see its subclasses in `protocol`.
        """
        features = {name: [value] for name, value in {**context, **candidates}.items()}
        if k is not None:
            features["k"] = [k]
        outputs = self.predict(features, "rank" if k is None else "rank_top_k", request_id=request_id)
        return {name: value[0] for name, value in outputs.items()}

    def regress(self, examples: Sequence[Mapping[str, Any]], request_id: str | None = None) -> np.ndarray:
        """Returns the probabilities or predicted numbers of rows, float32 [B]. The rows are sent as tf.Examples.

        Args:
          examples: by name, the value of each feature, or a list; None is a missing value.
          request_id: see `predict`.

        Raises:
          ServingError: see its subclasses in `protocol`.
        """
        spec = ModelSpec(self.model)
        _check_id(request_id)
        return np.asarray(self._transport.regress(spec, self._rows(spec, examples), request_id), np.float32)

    def classify(
        self, examples: Sequence[Mapping[str, Any]], request_id: str | None = None
    ) -> list[list[tuple[str, float]]]:
        """Returns the class and the score of each class, per row; see `regress`."""
        spec = ModelSpec(self.model)
        _check_id(request_id)
        return self._transport.classify(spec, self._rows(spec, examples), request_id)

    def metadata(self, version: int | None = None, label: str | None = None) -> dict[str, Signature]:
        """Returns the signatures of the model by name, with the types and shapes of their inputs and outputs.

        Raises:
          ServingError: see its subclasses in `protocol`.
        """
        return dict(self._info(ModelSpec(self.model, version, label)))

    def status(self) -> list[VersionStatus]:
        """Returns the versions of the model, and whether they are served.

        Raises:
          ServingError: see its subclasses in `protocol`.
        """
        return self._transport.status(ModelSpec(self.model))

    def close(self) -> None:
        """Closes the connections."""
        self._transport.close()

    def __enter__(self) -> ServingClient:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _info(self, spec: ModelSpec) -> dict[str, Signature]:
        if spec not in self._signatures:
            self._signatures[spec] = self._transport.signatures(spec)
        return self._signatures[spec]

    def _rows(self, spec: ModelSpec, examples: Sequence[Mapping[str, Any]]) -> list[dict[str, np.ndarray]]:
        """Converts rows to the types of the raw features, which the inputs of `serving_default` have."""
        raw = self._info(spec).get(DEFAULT_SIGNATURE)
        return to_rows(examples, raw.inputs if raw else {})


def _check_id(request_id: str | None) -> None:
    """Raises InvalidRequest unless an HTTP header and gRPC metadata can hold the id."""
    if request_id and not (request_id.isascii() and request_id.isprintable() and request_id == request_id.strip()):
        raise InvalidRequest(f"request_id={request_id!r}; printable ASCII is needed, without spaces at its ends")


def _connect(address: str, timeout: float, bearer_token: str | None, certificate: str | None) -> Transport:
    parts = urlsplit(address)
    if parts.scheme not in _SCHEMES or not parts.netloc:
        raise ValueError(f"address {address!r} is none of {', '.join(f'{s}://HOST:PORT' for s in _SCHEMES)}")
    if parts.scheme in ("grpc", "grpcs"):
        from tfrs_dlrm.serving.client.grpc_transport import GrpcTransport

        return GrpcTransport(parts.netloc, parts.scheme == "grpcs", timeout, bearer_token, certificate)
    from tfrs_dlrm.serving.client.rest_transport import RestTransport

    return RestTransport(address, timeout, bearer_token, certificate)
