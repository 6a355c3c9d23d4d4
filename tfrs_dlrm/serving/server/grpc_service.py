"""TF Serving's PredictionService and ModelService.

Requests arrive as bytes and are parsed here: bytes that cannot be parsed are INVALID_ARGUMENT, where gRPC would answer
INTERNAL.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import numpy as np
from absl import logging
from google.protobuf.message import DecodeError

from tfrs_dlrm.serving.protocol import DEFAULT_SIGNATURE, REQUEST_ID, InvalidRequest, ServingError, request_id
from tfrs_dlrm.serving.runtime import protos, requests
from tfrs_dlrm.serving.runtime.tensors import to_proto
from tfrs_dlrm.serving.server import answers
from tfrs_dlrm.serving.server.inference import Inference
from tfrs_dlrm.serving.server.served_model import ServedModel
from tfrs_dlrm.serving.server.served_version import ServedVersion

PREDICTION, MODEL = "tensorflow.serving.PredictionService", "tensorflow.serving.ModelService"
_Handler = Callable[[Any, str], Awaitable[Any]]


def handlers(service: Inference) -> list[grpc.GenericRpcHandler]:
    """Returns the handlers of a gRPC server."""
    api = _GrpcApi(service)
    prediction = {
        "Predict": (api.predict, protos.predict.PredictRequest),
        "Regress": (api.regress, protos.regression.RegressionRequest),
        "Classify": (api.classify, protos.classification.ClassificationRequest),
        "GetModelMetadata": (api.metadata, protos.metadata.GetModelMetadataRequest),
    }
    model = {
        "GetModelStatus": (api.status, protos.status.GetModelStatusRequest),
        "HandleReloadConfigRequest": (api.reload, protos.management.ReloadConfigRequest),
    }
    return [
        grpc.method_handlers_generic_handler(
            name,
            {
                method: grpc.unary_unary_rpc_method_handler(_guarded(service, method, handler, message))
                for method, (handler, message) in methods.items()
            },
        )
        for name, methods in ((PREDICTION, prediction), (MODEL, model))
    ]


def _guarded(service: Inference, method: str, handler: _Handler, message: Any) -> Callable[[bytes, Any], Any]:
    async def answer(data: bytes, context: grpc.aio.ServicerContext) -> bytes:
        try:
            with service.request("grpc", method.lower()):
                identity = request_id(dict(context.invocation_metadata() or ()).get(REQUEST_ID))
                context.set_trailing_metadata(((REQUEST_ID, identity),))
                try:
                    request = message.FromString(data)
                except DecodeError as e:
                    raise InvalidRequest(f"the request is no {message.DESCRIPTOR.full_name}: {e}") from e
                return (await handler(request, identity)).SerializeToString()
        except ServingError as e:
            code, text = getattr(grpc.StatusCode, e.code), answers.error_text(e)
        except Exception:
            logging.exception("gRPC %s failed", method)
            code, text = grpc.StatusCode.INTERNAL, "internal error; the server's log has it"
        await context.abort(code, text)
        raise AssertionError("abort raises")

    return answer


class _GrpcApi:
    def __init__(self, service: Inference):
        self._service = service

    def _version(self, spec: Any) -> tuple[ServedModel, ServedVersion]:
        if not spec.name:
            raise InvalidRequest("model_spec.name is missing")
        model = self._service.model(spec.name)
        number = spec.version.value if spec.HasField("version") else None
        return model, model.choose(number, spec.version_label or None)

    async def predict(self, request: Any, identity: str) -> Any:
        model, chosen = self._version(request.model_spec)
        name = request.model_spec.signature_name or DEFAULT_SIGNATURE
        with chosen.in_use() as version:
            signature = version.signature(name)
            for output in request.output_filter:
                if output not in signature.outputs:
                    raise InvalidRequest(
                        f"unknown output {output!r} in output_filter; the outputs are {', '.join(signature.outputs)}"
                    )
            outputs = await self._service.run(version, name, requests.predict_inputs(request), identity)
        response = protos.predict.PredictResponse()
        _fill_spec(response.model_spec, model, chosen, name)
        for output in request.output_filter or outputs:
            response.outputs[output].CopyFrom(to_proto(outputs[output], as_bytes=False))
        return response

    async def regress(self, request: Any, identity: str) -> Any:
        response = protos.regression.RegressionResponse()
        outputs = await self._score_examples("regress", request, response, identity)
        for value in outputs["outputs"].ravel().tolist():
            response.result.regressions.add(value=value)
        return response

    async def classify(self, request: Any, identity: str) -> Any:
        response = protos.classification.ClassificationResponse()
        for row in answers.classes(await self._score_examples("classify", request, response, identity)):
            added = response.result.classifications.add()
            for label, score in row:
                added.classes.add(label=label, score=score)
        return response

    async def _score_examples(self, method: str, request: Any, response: Any, identity: str) -> dict[str, np.ndarray]:
        model, chosen = self._version(request.model_spec)
        name = request.model_spec.signature_name or DEFAULT_SIGNATURE
        with chosen.in_use() as version:
            examples = requests.serialized_examples(request.input)
            inputs = requests.example_inputs(method, name, version.signature(name), examples)
            _fill_spec(response.model_spec, model, version, name)
            return await self._service.run(version, name, inputs, identity)

    async def metadata(self, request: Any, identity: str) -> Any:
        fields = list(request.metadata_field)
        if not fields or fields != ["signature_def"]:
            raise InvalidRequest(f"metadata_field must be ['signature_def']; it is {fields}")
        model, version = self._version(request.model_spec)
        return answers.metadata(model.name, version)

    async def status(self, request: Any, identity: str) -> Any:
        spec = request.model_spec
        number = spec.version.value if spec.HasField("version") else None
        return answers.status(self._service.model(spec.name), number, spec.version_label or None)

    async def reload(self, request: Any, identity: str) -> Any:
        """Sets version labels. The models and their paths cannot change while the server runs."""
        changes: list[tuple[ServedModel, dict[str, int]]] = []
        for config in request.config.model_config_list.config:
            model, labels = self._service.model(config.name), dict(config.version_labels)
            if config.base_path and config.base_path.rstrip("/") != model.path:
                raise InvalidRequest(
                    f"model {model.name!r} is served from {model.path}; another base_path needs another start"
                )
            for number in labels.values():
                model.choose(number)
            changes.append((model, labels))
        for model, labels in changes:
            model.labels = labels
        return protos.management.ReloadConfigResponse()


def _fill_spec(spec: Any, model: ServedModel, version: ServedVersion, signature: str) -> None:
    spec.name, spec.signature_name = model.name, signature
    spec.version.value = version.number
