"""TF Serving's PredictionService and ModelService.

Requests arrive as bytes and are parsed here: bytes that cannot be parsed are INVALID_ARGUMENT, where gRPC would answer
INTERNAL. The memory of a request is counted before it is taken; `grpc_receiving` says why the methods are streams.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

import grpc
import numpy as np
from absl import logging
from google.protobuf.message import DecodeError

from tfrs_dlrm.serving.protocol import (
    DEFAULT_SIGNATURE,
    REQUEST_ID,
    FailedPrecondition,
    InvalidRequest,
    ServingError,
    request_id,
)
from tfrs_dlrm.serving.runtime import protos, requests
from tfrs_dlrm.serving.runtime.signature import Signature
from tfrs_dlrm.serving.runtime.tensors import to_proto
from tfrs_dlrm.serving.server import answers
from tfrs_dlrm.serving.server.access_log import TRACEPARENT, traceparent
from tfrs_dlrm.serving.server.admission import Call
from tfrs_dlrm.serving.server.grpc_receiving import MessageReceiver
from tfrs_dlrm.serving.server.inference import Inference
from tfrs_dlrm.serving.server.request_checks import Inputs, check_names
from tfrs_dlrm.serving.server.served_model import ServedModel
from tfrs_dlrm.serving.server.served_version import ServedVersion

PREDICTION, MODEL = "tensorflow.serving.PredictionService", "tensorflow.serving.ModelService"
_Handler = Callable[[Any, Call], Awaitable[Any]]
_Fill = Callable[[Any, Mapping[str, np.ndarray]], None]
_RESULT_MEMORY = 64  # bytes of a message that holds one number of the answer
_MESSAGE_MEMORY = 4  # bytes in protobuf's form per byte of a message, at most for what is not made to be large


def handlers(service: Inference) -> list[grpc.GenericRpcHandler]:
    """Returns the handlers of a gRPC server."""
    api, options = _GrpcApi(service), service.options
    # Messages that are on their way might all be of the largest size; they take at most half of the memory.
    at_once = max(1, options.max_memory_bytes // 2 // options.max_request_bytes)
    receiver = MessageReceiver(at_once, options.max_concurrent, options.receive_seconds, options.max_request_bytes)
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
                method: grpc.stream_unary_rpc_method_handler(_guarded(service, receiver, method, handler, message))
                for method, (handler, message) in methods.items()
            },
        )
        for name, methods in ((PREDICTION, prediction), (MODEL, model))
    ]


def _guarded(
    service: Inference, receiver: MessageReceiver, method: str, handler: _Handler, message: Any
) -> Callable[[AsyncIterator[bytes], Any], Any]:
    async def answer(messages: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> bytes:
        try:
            with service.request("grpc", method.lower()) as call:
                metadata = dict(context.invocation_metadata() or ())
                call.identity, call.peer = request_id(metadata.get(REQUEST_ID)), context.peer()
                call.traceparent = traceparent(metadata.get(TRACEPARENT))
                trace = ((TRACEPARENT, call.traceparent),) if call.traceparent else ()
                context.set_trailing_metadata(((REQUEST_ID, call.identity), *trace))
                data = await receiver.receive(messages, call)
                call.take((1 + _MESSAGE_MEMORY) * len(data))
                call.begin()
                try:
                    request = await service.off_loop(len(data), message.FromString, data)
                except DecodeError as e:
                    raise InvalidRequest(f"the request is no {message.DESCRIPTOR.full_name}: {e}") from e
                response = await handler(request, call)
                return await service.off_loop(response.ByteSize(), response.SerializeToString)
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

    def _version(self, spec: Any, call: Call) -> tuple[ServedModel, ServedVersion]:
        if not spec.name:
            raise InvalidRequest("ModelSpec has no name specified. Give model_spec.name")
        number = spec.version.value if spec.HasField("version") else None
        return self._service.choose(call, spec.name, number, spec.version_label or None)

    async def predict(self, request: Any, call: Call) -> Any:
        model, chosen = self._version(request.model_spec, call)
        name = request.model_spec.signature_name or DEFAULT_SIGNATURE
        with chosen.in_use() as version:
            signature = version.signature(name, FailedPrecondition)
            _check_filter(request.output_filter, signature)
            size = request.ByteSize()
            memory = await self._service.off_loop(size, _memory_of_inputs, request, name, signature)
            call.take(memory)
            inputs = await self._service.off_loop(max(size, memory), requests.predict_inputs, request)
            outputs = await self._service.run(version, name, Inputs(inputs, memory), call)
        response = protos.predict.PredictResponse()
        _fill_spec(response.model_spec, model, chosen, name)
        chosen_outputs = {output: outputs[output] for output in request.output_filter or outputs}
        size = sum(array.nbytes for array in chosen_outputs.values())
        await self._service.off_loop(size, _fill_outputs, response, chosen_outputs)
        return response

    async def regress(self, request: Any, call: Call) -> Any:
        response = protos.regression.RegressionResponse()
        outputs = await self._score_examples("regress", request, response, call)
        await self._fill_result(_fill_regressions, response, outputs)
        return response

    async def classify(self, request: Any, call: Call) -> Any:
        response = protos.classification.ClassificationResponse()
        outputs = await self._score_examples("classify", request, response, call)
        await self._fill_result(_fill_classifications, response, outputs)
        return response

    async def _fill_result(self, fill: _Fill, response: Any, outputs: Mapping[str, np.ndarray]) -> None:
        size = _RESULT_MEMORY * sum(array.size for array in outputs.values())
        await self._service.off_loop(size, fill, response, outputs)

    async def _score_examples(self, method: str, request: Any, response: Any, call: Call) -> dict[str, np.ndarray]:
        model, chosen = self._version(request.model_spec, call)
        name = request.model_spec.signature_name or DEFAULT_SIGNATURE
        with chosen.in_use() as version:
            inputs = await self._service.example_inputs(version, method, name, request.input, call)
            _fill_spec(response.model_spec, model, version, name)
            return await self._service.run(version, name, inputs, call)

    async def metadata(self, request: Any, call: Call) -> Any:
        fields = list(request.metadata_field)
        if not fields:
            raise InvalidRequest("GetModelMetadataRequest must specify at least one metadata_field: 'signature_def'")
        for field in fields:
            if field != "signature_def":
                raise InvalidRequest(f"Metadata field {field[:200]} is not supported; 'signature_def' is")
        model, version = self._version(request.model_spec, call)
        return answers.metadata(model.name, version)

    async def status(self, request: Any, call: Call) -> Any:
        if not request.HasField("model_spec"):
            raise InvalidRequest("Missing ModelSpec")
        spec = request.model_spec
        number = spec.version.value if spec.HasField("version") else None
        return answers.status(self._service.models, spec.name, number, spec.version_label or None)

    async def reload(self, request: Any, call: Call) -> Any:
        """Serves the models, versions and labels of a configuration."""
        if self._service.options.processes > 1:
            raise FailedPrecondition(
                f"this server has {self._service.options.processes} processes, of which only one would learn of the"
                " configuration: write it to the file of --model_config_file and restart, or serve with --processes=1"
            )
        await self._service.served.reload(request.config)
        return protos.management.ReloadConfigResponse()


def _memory_of_inputs(request: Any, name: str, signature: Signature) -> int:
    """Returns the bytes that the inputs take at most, once their names are known to be few."""
    check_names(name, signature, request.inputs)
    return requests.memory_of_inputs(request)


def _check_filter(names: Sequence[str], signature: Signature) -> None:
    for place, name in enumerate(names):
        if name not in signature.outputs:
            raise InvalidRequest(
                f"output tensor alias not found in signature: {name[:200]} Outputs expected to be in the set"
                f" {{{','.join(sorted(signature.outputs))}}}."
            )
        if name in names[:place]:
            raise InvalidRequest(f"duplicate output tensor alias: {name}")


def _fill_outputs(response: Any, outputs: Mapping[str, np.ndarray]) -> None:
    for name, array in outputs.items():
        response.outputs[name].CopyFrom(to_proto(array, as_bytes=False))


def _fill_regressions(response: Any, outputs: Mapping[str, np.ndarray]) -> None:
    for value in outputs["outputs"].ravel().tolist():
        response.result.regressions.add(value=value)


def _fill_classifications(response: Any, outputs: Mapping[str, np.ndarray]) -> None:
    for row in answers.classes(outputs):
        added = response.result.classifications.add()
        for label, score in row:
            added.classes.add(label=label, score=score)


def _fill_spec(spec: Any, model: ServedModel, version: ServedVersion, signature: str) -> None:
    spec.name, spec.signature_name = model.name, signature
    spec.version.value = version.number
