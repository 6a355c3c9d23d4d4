"""Access control: a server that others can reach needs TLS, a token, or explicit permission to be open."""

from __future__ import annotations

import dataclasses
import hmac
import ipaddress
import re
from collections.abc import Collection, Sequence
from typing import Any

import grpc
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

_HEALTH = ("/healthz", "/readyz")
_OPEN_RPCS = "/grpc.health.v1.Health/"


@dataclasses.dataclass(frozen=True)
class Security:
    """The address of a server, and its access control.

    Attributes:
      host: an address; the default accepts this machine only.
      tls_cert: a PEM file with the chain of certificates.
      tls_key: a PEM file with its key.
      bearer_token_file: a file with the token that requests have in `Authorization: Bearer TOKEN`.
      insecure: whether other machines may ask without TLS and token.
      allowed_hosts: host names to which the server answers; on loopback, beside those of this machine.
      cors_origins: of the pages that may ask (CORS), as `https://example.com`; "*" for all.

    Raises:
      ValueError: other machines could reach the server unprotected, or half of TLS is given.
    """

    host: str = "127.0.0.1"
    tls_cert: str = ""
    tls_key: str = ""
    bearer_token_file: str = ""
    insecure: bool = False
    allowed_hosts: Sequence[str] = ()
    cors_origins: Sequence[str] = ()

    def __post_init__(self) -> None:
        if bool(self.tls_cert) != bool(self.tls_key):
            given, lacking = ("tls_cert", "tls_key") if self.tls_cert else ("tls_key", "tls_cert")
            raise ValueError(f"--{given} is given without --{lacking}; TLS needs both")
        if not (is_loopback(self.host) or self.tls_cert or self.bearer_token_file or self.insecure):
            raise ValueError(
                f"--host={self.host} can be reached from other machines: give --tls_cert and --tls_key, or"
                " --bearer_token_file, or say --insecure; or leave --host at 127.0.0.1"
            )
        for origin in self.cors_origins:
            if origin != "*" and not re.fullmatch(r"https?://[^/\s]+", origin):
                raise ValueError(f"--cors_origins={origin} is no origin; https://example.com:8080 is one, and * is all")

    def token(self) -> str | None:
        """Returns the token that requests need, or None.

        Raises:
          ValueError: the file has no token.
        """
        if not self.bearer_token_file:
            return None
        with open(self.bearer_token_file, encoding="utf-8") as f:
            token = f.read().strip()
        if not token or not token.isascii() or any(c.isspace() for c in token):
            raise ValueError(f"{self.bearer_token_file} must hold one token of ASCII characters, without spaces")
        return token

    def grpc_credentials(self) -> grpc.ServerCredentials | None:
        """Returns the TLS credentials of gRPC, or None."""
        if not self.tls_cert:
            return None
        with open(self.tls_key, "rb") as key, open(self.tls_cert, "rb") as certificate:
            return grpc.ssl_server_credentials([(key.read(), certificate.read())])


def is_address(host: str) -> bool:
    """Returns whether a host is an IP address, and no name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Returns whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def bears(header: str, token: str) -> bool:
    """Returns whether an Authorization header has the token."""
    scheme, _, given = header.partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token.encode())


class BearerToken:
    """ASGI middleware: 401 for requests without the token.

    Args:
      app: that answers.
      token: that requests need.
      open_paths: exact paths that need no token, like the health checks.
    """

    def __init__(self, app: ASGIApp, token: str, open_paths: Collection[str] = ()):
        self._app, self._token = app, token
        self._open = {*_HEALTH, *open_paths}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuses a request, or passes it on."""
        if scope["type"] == "http" and scope["path"] not in self._open:
            header = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1")
            if not bears(header, self._token):
                error = {"error": "this server needs the header 'Authorization: Bearer TOKEN'"}
                await JSONResponse(error, 401, {"WWW-Authenticate": "Bearer"})(scope, receive, send)
                return
        await self._app(scope, receive, send)


class BearerTokenRpc(grpc.aio.ServerInterceptor):
    """gRPC interceptor: UNAUTHENTICATED for requests without the token."""

    def __init__(self, token: str):
        self._token = token

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Refuses a request, or passes it on."""
        header = dict(handler_call_details.invocation_metadata or ()).get("authorization", "")
        if handler_call_details.method.startswith(_OPEN_RPCS) or bears(header, self._token):
            return await continuation(handler_call_details)

        async def refuse(messages: Any, context: Any) -> None:
            await context.abort(
                grpc.StatusCode.UNAUTHENTICATED, "this server needs the metadata 'authorization: Bearer TOKEN'"
            )

        # As a stream, whose message nobody asks for: a unary method reads it first, however large and slow it is.
        return grpc.stream_unary_rpc_method_handler(refuse)
