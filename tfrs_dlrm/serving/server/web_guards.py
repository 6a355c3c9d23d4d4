"""ASGI middleware that looks at a request before it is answered: its Host and Origin, and whether the server ends."""

from __future__ import annotations

import functools
from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tfrs_dlrm.serving.server.security import Security, is_address, is_loopback

_READS = ("GET", "HEAD", "OPTIONS")
_HOSTS_REMEMBERED = 64


class AllowedHosts:
    """The names to which a server answers.

    Args:
      security: with the address of the server, and further host names.
    """

    def __init__(self, security: Security):
        self._local = is_loopback(security.host)
        self._names = {name.lower() for name in security.allowed_hosts}
        self.allow = functools.lru_cache(_HOSTS_REMEMBERED)(self._allow)

    def expected(self) -> str:
        """Returns the names for a message."""
        names = ["localhost", "127.0.0.1", "[::1]"] if self._local else ["its addresses"]
        return ", ".join([*names, *sorted(self._names)])

    def _allow(self, host: str) -> bool:
        """Returns whether a Host header has one of them."""
        if not (self._local or self._names):
            return True
        try:
            name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
        except ValueError:
            return False
        # Only names can be rebound. A server that others reach is probed by its address.
        return name in self._names or (is_loopback(name) if self._local else is_address(name))


class HostGuard:
    """ASGI middleware: 403 for requests to other host names, and for changes that pages of other sites ask for.

    A page of another site can point its own name to 127.0.0.1 (DNS rebinding) and then ask a server on loopback as
    its own. Its name is in the Host header.

    Args:
      app: that answers.
      security: with the address of the server, further host names, and the origins of pages that may ask.
    """

    def __init__(self, app: ASGIApp, security: Security):
        self._app, self._hosts = app, AllowedHosts(security)
        self._origins = set(security.cors_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuses a request, or passes it on."""
        error = self._error(scope) if scope["type"] == "http" else ""
        if error:
            await JSONResponse({"error": error}, 403)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _error(self, scope: Scope) -> str:
        headers = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1")
        if host and not self._hosts.allow(host):
            return (
                f"the Host header is {host[:100]!r}; this server answers to {self._hosts.expected()}: start it with"
                " --allowed_hosts=NAME to answer to others"
            )
        origin = headers.get(b"origin", b"").decode("latin-1")
        if not origin or scope["method"] in _READS or self._origins & {"*", origin}:
            return ""
        if origin.partition("://")[2].lower() != host.lower():
            return (
                f"a page of {origin[:100]!r} asks; pages of this server may: start it with --cors_origins=ORIGIN to"
                " let pages of others ask"
            )
        return ""


class CloseWhenDraining:
    """ASGI middleware: `Connection: close` in every answer while the server ends, so that clients go elsewhere.

    Args:
      app: that answers.
      draining: whether the server ends.
    """

    def __init__(self, app: ASGIApp, draining: Callable[[], bool]):
        self._app, self._draining = app, draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, and its answer back."""

        async def send_and_close(message: Message) -> None:
            if message["type"] == "http.response.start" and self._draining():
                message = {**message, "headers": [*message.get("headers", []), (b"connection", b"close")]}
            await send(message)

        await self._app(scope, receive, send_and_close)
