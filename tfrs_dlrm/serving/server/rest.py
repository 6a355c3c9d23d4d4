"""TF Serving's REST API, health and metrics (https://www.tensorflow.org/tfx/serving/api_rest)."""

from __future__ import annotations

from collections.abc import Awaitable

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from tfrs_dlrm.serving.protocol import REQUEST_ID
from tfrs_dlrm.serving.server import answers, web_page
from tfrs_dlrm.serving.server.access_log import TRACEPARENT
from tfrs_dlrm.serving.server.admission import Call
from tfrs_dlrm.serving.server.inference import Inference
from tfrs_dlrm.serving.server.request_body import read_body
from tfrs_dlrm.serving.server.rest_models import ModelsApi, question, to_json
from tfrs_dlrm.serving.server.security import BearerToken, Security
from tfrs_dlrm.serving.server.web_guards import CloseWhenDraining, HostGuard


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


class _RestApi:
    def __init__(self, service: Inference):
        self._service, self._models = service, ModelsApi(service)

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
        return Response(await self._service.metrics_text(False), media_type=CONTENT_TYPE_LATEST)

    async def tf_serving_metrics(self, request: Request) -> Response:
        """Answers with Prometheus' text, also under TF Serving's names."""
        return Response(await self._service.metrics_text(True), media_type=CONTENT_TYPE_LATEST)

    async def no_model(self, request: Request) -> Response:
        """Refuses requests that name no model, as TF Serving does."""
        error = to_json({"error": "Missing model name in request."})
        return Response(error, 400, media_type="application/json")

    async def models(self, request: Request) -> Response:
        """Answers all requests under /v1/models/."""
        asked = question(request.method, request.path_params["path"])
        if asked is None:
            error = answers.error_text(f"Malformed request: {request.method} {request.url.path}")
            return Response(to_json({"error": error}), 400, media_type="application/json")
        options = self._service.options

        def body(call: Call) -> Awaitable[bytearray]:
            return read_body(request, call, options.max_request_bytes, options.receive_seconds)

        found = await self._models.answer(asked, request.headers, request.client.host if request.client else "", body)
        return Response(found.content, found.status, found.headers, media_type="application/json")
