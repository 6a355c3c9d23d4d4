"""Asks PredictionService and ModelService over gRPC."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tfrs_dlrm.messages import install_command
from tfrs_dlrm.serving.client.transport import ModelSpec, VersionStatus, read_status
from tfrs_dlrm.serving.protocol import REQUEST_ID, from_code
from tfrs_dlrm.serving.runtime import protos
from tfrs_dlrm.serving.runtime.requests import to_example
from tfrs_dlrm.serving.runtime.signature import Signature, read_signatures
from tfrs_dlrm.serving.runtime.tensors import from_proto, to_proto

try:
    import grpc
except ImportError as e:
    raise ImportError(f"the client needs grpcio for grpc:// addresses: {install_command('serving')}") from e

# The server limits the size of messages.
_OPTIONS = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]


class GrpcTransport:
    """The `Transport` for gRPC.

    Args:
      address: as `127.0.0.1:8500`.
      tls: whether to encrypt.
      timeout: of each call, in seconds.
      bearer_token: sent with each call.
      certificate: a PEM file to trust instead of the system's authorities.
    """

    def __init__(self, address: str, tls: bool, timeout: float, bearer_token: str | None, certificate: str | None):
        self._timeout = timeout
        self._metadata = [("authorization", f"Bearer {bearer_token}")] if bearer_token else []
        if tls:
            roots = None
            if certificate:
                with open(certificate, "rb") as f:
                    roots = f.read()
            self._channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(roots), options=_OPTIONS)
        else:
            self._channel = grpc.insecure_channel(address, options=_OPTIONS)
        prediction, model = protos.services()
        self._prediction = prediction.PredictionServiceStub(self._channel)
        self._model = model.ModelServiceStub(self._channel)

    def predict(
        self,
        spec: ModelSpec,
        signature: str,
        inputs: Mapping[str, np.ndarray],
        info: Signature | None,
        request_id: str | None,
    ) -> dict[str, np.ndarray]:
        """Returns the outputs by name."""
        del info  # tensors have types
        request = protos.predict.PredictRequest(model_spec=_spec(spec, signature))
        for name, array in inputs.items():
            request.inputs[name].CopyFrom(to_proto(array))
        response = self._call(self._prediction.Predict, request, request_id)
        return {name: from_proto(tensor) for name, tensor in response.outputs.items()}

    def regress(self, spec: ModelSpec, rows: Sequence[Mapping[str, np.ndarray]], request_id: str | None) -> list[float]:
        """Returns one value per row."""
        request = protos.regression.RegressionRequest(model_spec=_spec(spec, "regress"), input=_input(rows))
        response = self._call(self._prediction.Regress, request, request_id)
        return [r.value for r in response.result.regressions]

    def classify(
        self, spec: ModelSpec, rows: Sequence[Mapping[str, np.ndarray]], request_id: str | None
    ) -> list[list[tuple[str, float]]]:
        """Returns the class and the score of each class, per row."""
        request = protos.classification.ClassificationRequest(model_spec=_spec(spec, "classify"), input=_input(rows))
        response = self._call(self._prediction.Classify, request, request_id)
        return [[(c.label, c.score) for c in row.classes] for row in response.result.classifications]

    def signatures(self, spec: ModelSpec) -> dict[str, Signature]:
        """Returns the signatures by name."""
        request = protos.metadata.GetModelMetadataRequest(model_spec=_spec(spec), metadata_field=["signature_def"])
        response = self._call(self._prediction.GetModelMetadata, request)
        signature_defs = protos.metadata.SignatureDefMap()
        response.metadata["signature_def"].Unpack(signature_defs)
        return read_signatures(signature_defs.signature_def)

    def status(self, spec: ModelSpec) -> list[VersionStatus]:
        """Returns the status of the versions that the server knows."""
        request = protos.status.GetModelStatusRequest(model_spec=_spec(spec))
        return read_status(self._call(self._model.GetModelStatus, request))

    def close(self) -> None:
        """Closes the connections."""
        self._channel.close()

    def _call(self, method: Callable[..., Any], request: Any, request_id: str | None = None) -> Any:
        metadata = [*self._metadata, (REQUEST_ID, request_id)] if request_id else self._metadata
        try:
            return method(request, timeout=self._timeout, metadata=metadata)
        except grpc.RpcError as e:
            raise from_code(e.code().name, e.details() or "") from e


def _spec(spec: ModelSpec, signature: str = "") -> Any:
    proto = protos.model.ModelSpec(name=spec.name, signature_name=signature)
    if spec.version is not None:
        proto.version.value = spec.version
    if spec.label is not None:
        proto.version_label = spec.label
    return proto


def _input(rows: Sequence[Mapping[str, np.ndarray]]) -> Any:
    examples = protos.input_.ExampleList(examples=[to_example(row) for row in rows])
    return protos.input_.Input(example_list=examples)
