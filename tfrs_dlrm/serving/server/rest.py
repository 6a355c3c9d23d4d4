"""TF Serving's REST API, health and metrics (https://www.tensorflow.org/tfx/serving/api_rest)."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
from absl import logging
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from tfrs_dlrm.serving.bundle.versions import version_number
from tfrs_dlrm.serving.protocol import (
    DEFAULT_SIGNATURE,
    REQUEST_ID,
    InvalidRequest,
    Overloaded,
    ServingError,
    request_id,
)
from tfrs_dlrm.serving.runtime.tensors import memory
from tfrs_dlrm.serving.server import answers, json_bodies, json_examples, json_tensors, web_page
from tfrs_dlrm.serving.server.access_log import TRACEPARENT, traceparent
from tfrs_dlrm.serving.server.admission import Call
from tfrs_dlrm.serving.server.inference import Inference
from tfrs_dlrm.serving.server.request_body import decode, most_inflated, read_body
from tfrs_dlrm.serving.server.security import BearerToken, Security
from tfrs_dlrm.serving.server.served_version import ServedVersion
from tfrs_dlrm.serving.server.web_guards import CloseWhenDraining, HostGuard

_PATH = re.compile(
    r"(?P<name>[^/:]+)(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
    r"(?::(?P<method>predict|regress|classify)|(?P<metadata>/metadata))?",
    re.IGNORECASE,
)


def application(service: Inference, security: Security) -> Starlette:
    """Makes the web application.

    Args:
      service: that answers.
      security: who may ask; a token is not needed for /healthz, /readyz and the files of the page.
    """
    api, token = _RestApi(service), security.token()
    routes = [
        Route("/v1/models/{path:path}", api.models, methods=["GET", "POST"]),
        Route("/v1/models", api.no_model),
        Route("/healthz", api.healthy),
        Route("/readyz", api.ready),
        Route("/metrics", api.metrics),
        Route("/monitoring/prometheus/metrics", api.tf_serving_metrics),
        *web_page.routes(service),
    ]
    middleware = [
        Middleware(CloseWhenDraining, draining=lambda: service.draining),
        Middleware(HostGuard, security=security),
    ]
    if security.cors_origins:
        headers = ["authorization", "content-encoding", "content-type", REQUEST_ID, TRACEPARENT]
        middleware.append(
            Middleware(
                CORSMiddleware,
                allow_origins=security.cors_origins,
                allow_methods=["GET", "POST"],
                allow_headers=headers,
                expose_headers=[REQUEST_ID, TRACEPARENT],
            )
        )
    if token:
        middleware.append(Middleware(BearerToken, token=token, open_paths=web_page.OPEN_PATHS))
    return Starlette(routes=routes, middleware=middleware)


def to_response(content: Any, status: int = 200) -> Response:
    """Returns a response of JSON in which NaN is a number, as in TF Serving."""
    return Response(json.dumps(content).encode(), status, media_type="application/json")


class _RestApi:
    def __init__(self, service: Inference):
        self._service = service

    async def healthy(self, request: Request) -> Response:
        """Answers whether the server runs, and does not end."""
        ending = self._service.draining
        return PlainTextResponse("ending\n" if ending else "ok\n", 503 if ending else 200)

    async def ready(self, request: Request) -> Response:
        """Answers whether every model has a version loaded."""
        ready = self._service.ready()
        return PlainTextResponse("ready\n" if ready else "not ready\n", 200 if ready else 503)

    async def metrics(self, request: Request) -> Response:
        """Answers with Prometheus' text."""
        return Response(self._service.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    async def tf_serving_metrics(self, request: Request) -> Response:
        """Answers with Prometheus' text, also under TF Serving's names."""
        return Response(self._service.metrics.tf_serving_text(), media_type=CONTENT_TYPE_LATEST)

    async def no_model(self, request: Request) -> Response:
        """Refuses requests that name no model, as TF Serving does."""
        return to_response({"error": "Missing model name in request."}, 400)

    async def models(self, request: Request) -> Response:
        """Answers all requests under /v1/models/."""
        found = _PATH.fullmatch(request.path_params["path"])
        if found is None or (request.method == "POST") != bool(found["method"]):
            error = answers.error_text(f"Malformed request: {request.method} {request.url.path}")
            return to_response({"error": error}, 400)
        method = (found["method"] or ("metadata" if found["metadata"] else "status")).lower()
        return await self._response(request, method, found)

    async def _response(self, request: Request, method: str, found: re.Match[str]) -> Response:
        identity = ""
        trace = traceparent(request.headers.get(TRACEPARENT))
        try:
            with self._service.request("rest", method) as call:
                call.traceparent, call.peer = trace, request.client.host if request.client else ""
                identity = call.identity = request_id(request.headers.get(REQUEST_ID))
                response = await self._answer(request, method, found, call)
        except ServingError as e:
            response = to_response({"error": answers.error_text(e)}, e.status)
            if isinstance(e, Overloaded):
                response.headers["Retry-After"] = "1"
        except Exception:
            logging.exception("REST %s failed", method)
            response = to_response({"error": "internal error; the server's log has it"}, 500)
        if identity:
            response.headers[REQUEST_ID] = identity
        if trace:
            response.headers[TRACEPARENT] = trace
        return response

    async def _answer(self, request: Request, method: str, found: re.Match[str], call: Call) -> Response:
        number = version_number(found["version"]) if found["version"] else None
        if found["version"] and number is None:
            raise InvalidRequest(f"Failed to convert version: {found['version'][:40]} to numeric.")
        if method == "status":
            status = answers.status(self._service.models, found["name"], number, found["label"])
            return to_response(answers.to_json(status))
        if method == "metadata":
            model, chosen = self._service.choose(call, found["name"], number, found["label"])
            return to_response(answers.metadata_json(model.name, chosen))
        call.model = self._service.model(found["name"]).name  # an unknown one is refused before its body is read
        options = self._service.options
        received = await read_body(request, call, options.max_request_bytes, options.receive_seconds)
        call.begin()
        body = await self._decoded(received, request.headers.get("content-encoding", ""), call)
        _, chosen = self._service.choose(call, found["name"], number, found["label"])
        with chosen.in_use() as version:
            inputs, size, name, by_rows = await self._inputs(version, method, body, call)
            outputs = await self._service.run(version, name, inputs, size, call)
            size = sum(array.nbytes for array in outputs.values())
            return await self._service.off_loop(size, _encoded, method, outputs, by_rows)

    async def _decoded(self, body: bytearray, encoding: str, call: Call) -> bytearray:
        most = self._service.options.max_request_bytes
        if encoding.lower() in ("", "identity"):
            return body
        with call.holding(most_inflated(body, most)):
            decoded = await self._service.off_loop(most, decode, body, encoding, most)
        call.take(len(decoded))
        return decoded

    async def _inputs(
        self, version: ServedVersion, method: str, data: bytearray, call: Call
    ) -> tuple[dict[str, np.ndarray], int, str, bool]:
        """Returns the inputs, their bytes, which are counted, the signature, and whether the answer is by rows."""
        off_loop = self._service.off_loop
        size = await off_loop(len(data), json_bodies.memory_of_values, data)
        if method == "predict":
            with call.holding(size):
                inputs, size, name, by_rows = await off_loop(len(data), _predict_inputs, version, data)
            call.take(size)
            return inputs, size, name, by_rows
        with call.holding(size):
            name, input_ = await off_loop(len(data), _examples, data)
        inputs, size = await self._service.example_inputs(version, method, name, input_, call)
        return inputs, size, name, True


def _predict_inputs(version: ServedVersion, data: bytearray) -> tuple[dict[str, np.ndarray], int, str, bool]:
    body = json_bodies.parse(data)
    name = _signature_name(body)
    inputs, by_rows = json_tensors.predict_inputs(body, version.signature(name))
    return inputs, sum(map(memory, inputs.values())), name, by_rows


def _examples(data: bytearray) -> tuple[str, Any]:
    body = json_bodies.parse(data)
    return _signature_name(body), json_examples.examples(body)


def _encoded(method: str, outputs: dict[str, np.ndarray], by_rows: bool) -> Response:
    if method == "predict":
        return to_response(json_tensors.predict_answer(outputs, by_rows))
    if method == "regress":
        return to_response({"results": outputs["outputs"].ravel().tolist()})
    return to_response({"results": [[[label, score] for label, score in row] for row in answers.classes(outputs)]})


def _signature_name(body: dict[str, Any]) -> str:
    name = body.get("signature_name") or DEFAULT_SIGNATURE
    if not isinstance(name, str):
        raise InvalidRequest("not formatted correctly. 'signature_name' key must be a string value.")
    return name
