"""TF Serving's REST API, health and metrics (https://www.tensorflow.org/tfx/serving/api_rest)."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

from absl import logging
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from tfrs_dlrm.serving.bundle.versions import version_number
from tfrs_dlrm.serving.protocol import (
    DEFAULT_SIGNATURE,
    REQUEST_ID,
    InvalidRequest,
    Overloaded,
    ServingError,
    TooLarge,
    request_id,
)
from tfrs_dlrm.serving.runtime import requests
from tfrs_dlrm.serving.server import answers, json_tensors, web_page
from tfrs_dlrm.serving.server.inference import Inference
from tfrs_dlrm.serving.server.security import BearerToken
from tfrs_dlrm.serving.server.served_version import ServedVersion

_PATH = re.compile(
    r"(?P<name>[^/:]+)(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
    r"(?::(?P<method>predict|regress|classify)|(?P<metadata>/metadata))?"
)
_SECONDS_FOR_A_BODY = 60
_SMALL = 64 * 1024  # bytes; longer bodies are parsed in a thread, so that others do not wait


def application(service: Inference, token: str | None) -> Starlette:
    """Makes the web application.

    Args:
      service: that answers.
      token: that requests need, except for /healthz, /readyz and the files of the page.
    """
    api = _RestApi(service)
    routes = [
        Route("/v1/models/{path:path}", api.models, methods=["GET", "POST"]),
        Route("/healthz", lambda request: PlainTextResponse("ok\n")),
        Route("/readyz", api.ready),
        Route("/metrics", api.metrics),
        Route("/monitoring/prometheus/metrics", api.metrics),
        *web_page.routes(service),
    ]
    middleware = [Middleware(BearerToken, token=token, open_paths=web_page.OPEN_PATHS)] if token else []
    return Starlette(routes=routes, middleware=middleware)


def to_response(content: Any, status: int = 200) -> Response:
    """Returns a response of JSON in which NaN is a number, as in TF Serving."""
    return Response(json.dumps(content).encode(), status, media_type="application/json")


class _RestApi:
    def __init__(self, service: Inference):
        self._service = service

    async def ready(self, request: Request) -> Response:
        """Answers whether every model has a version loaded."""
        ready = self._service.ready()
        return PlainTextResponse("ready\n" if ready else "not ready\n", 200 if ready else 503)

    async def metrics(self, request: Request) -> Response:
        """Answers with Prometheus' text."""
        return Response(self._service.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    async def models(self, request: Request) -> Response:
        """Answers all requests under /v1/models/."""
        found = _PATH.fullmatch(request.path_params["path"])
        if found is None or (request.method == "POST") != bool(found["method"]):
            return to_response({"error": f"Malformed request: {request.method} {request.url.path}"}, 400)
        method = found["method"] or ("metadata" if found["metadata"] else "status")
        return await self._response(request, method, found)

    async def _response(self, request: Request, method: str, found: re.Match[str]) -> Response:
        identity = None
        try:
            with self._service.request("rest", method):
                identity = request_id(request.headers.get(REQUEST_ID))
                response = to_response(await self._answer(request, method, found, identity))
        except ServingError as e:
            response = to_response({"error": answers.error_text(e)}, e.status)
            if isinstance(e, Overloaded):  # a model that is not loaded is 503 as well
                response.headers["Retry-After"] = "1"
        except ClientDisconnect:
            return Response(status_code=499)
        except Exception:
            logging.exception("REST %s failed", method)
            response = to_response({"error": "internal error; the server's log has it"}, 500)
        if identity:
            response.headers[REQUEST_ID] = identity
        return response

    async def _answer(self, request: Request, method: str, found: re.Match[str], identity: str) -> dict[str, Any]:
        model = self._service.model(found["name"])
        number = version_number(found["version"]) if found["version"] else None
        if found["version"] and number is None:
            raise InvalidRequest(f"Failed to convert version: {found['version'][:40]} to numeric.")
        if method == "status":
            return answers.to_json(answers.status(model, number, found["label"]))
        if method == "metadata":
            return answers.metadata_json(model.name, model.choose(number, found["label"]))
        body = await self._body(request)
        with model.choose(number, found["label"]).in_use() as version:
            if method == "predict":
                return await self._predict(version, body, identity)
            return await self._score_examples(version, method, body, identity)

    async def _predict(self, version: ServedVersion, body: dict[str, Any], identity: str) -> dict[str, Any]:
        name = _signature_name(body)
        inputs, by_rows = json_tensors.predict_inputs(body, version.signature(name))
        return json_tensors.predict_answer(await self._service.run(version, name, inputs, identity), by_rows)

    async def _score_examples(
        self, version: ServedVersion, method: str, body: dict[str, Any], identity: str
    ) -> dict[str, Any]:
        name = _signature_name(body)
        examples = requests.serialized_examples(json_tensors.examples(body))
        inputs = requests.example_inputs(method, name, version.signature(name), examples)
        outputs = await self._service.run(version, name, inputs, identity)
        if method == "regress":
            return {"results": outputs["outputs"].ravel().tolist()}
        return {"results": [[[label, score] for label, score in row] for row in answers.classes(outputs)]}

    async def _body(self, request: Request) -> dict[str, Any]:
        most = self._service.options.max_request_bytes

        async def read() -> bytes:
            parts, size = [], 0
            async for part in request.stream():
                parts.append(part)
                size += len(part)
                if size > most:
                    raise TooLarge(f"the request has more than {most} bytes, which is the limit")
            return b"".join(parts)

        if int(request.headers.get("content-length", 0)) > most:
            raise TooLarge(f"the request has {request.headers['content-length']} bytes; the limit is {most}")
        try:
            body = await asyncio.wait_for(read(), _SECONDS_FOR_A_BODY)
        except asyncio.TimeoutError as e:
            raise ServingError(f"the body did not come within {_SECONDS_FOR_A_BODY} s", "CANCELLED", 408) from e
        if len(body) <= _SMALL:
            return json_tensors.parse(body)
        return await asyncio.get_running_loop().run_in_executor(self._service.threads, json_tensors.parse, body)


def _signature_name(body: dict[str, Any]) -> str:
    name = body.get("signature_name") or DEFAULT_SIGNATURE
    if not isinstance(name, str):
        raise InvalidRequest("'signature_name' must be a string")
    return name
