"""The page at `/`: files of this package and what they show. No file comes from elsewhere."""

from __future__ import annotations

import json
from importlib import resources

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tfrs_dlrm.serving.server.catalog import catalog
from tfrs_dlrm.serving.server.service import Service

_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_FILES = ("index.html", "page.css", "icon.svg", "page.js", "api.js", "dom.js", "model.js", "form.js", "score.js")
_URLS = {f"/page/{name}" if name != "index.html" else "/": name for name in _FILES}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}

# Who has no token may load these: the page asks for it. What it shows comes from CATALOG, which wants the token.
OPEN_PATHS = tuple(_URLS)
CATALOG = "/catalog"


def routes(service: Service) -> list[Route]:
    """Of the page, its files and the catalog of models."""

    async def describe(request: Request) -> Response:
        # Not JSONResponse: a manifest may have NaN, as an AUC of one class is.
        return Response(json.dumps(catalog(service.models.values())), media_type="application/json", headers=_HEADERS)

    return [Route(CATALOG, describe), *(_file(url, name) for url, name in _URLS.items())]


def _file(url: str, name: str) -> Route:
    content = resources.files(__package__).joinpath("page").joinpath(name).read_bytes()

    async def send(request: Request) -> Response:
        return Response(content, media_type=_TYPES[name.rpartition(".")[2]], headers=_HEADERS)

    return Route(url, send)
