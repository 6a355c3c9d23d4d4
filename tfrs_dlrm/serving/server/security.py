"""Who may ask: a server that others can reach wants TLS, a token, or an explicit word that it is open."""

from __future__ import annotations

import dataclasses
import hmac
import ipaddress
from collections.abc import Collection
from typing import Any

import grpc
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

_HEALTH = ("/healthz", "/readyz")
_OPEN_RPCS = "/grpc.health.v1.Health/"


@dataclasses.dataclass(frozen=True)
class Security:
    """Where to listen, and to whom.

    Attributes:
      host: an address; the default is reached from this machine only.
      tls_cert: a PEM file with the chain of certificates.
      tls_key: a PEM file with its key.
      bearer_token_file: a file with the token that requests bear in `Authorization: Bearer TOKEN`.
      insecure: a server without any of these may be reached from elsewhere.

    Raises:
      ValueError: others could reach it, and nothing protects it; or half of TLS is given.
    """

    host: str = "127.0.0.1"
    tls_cert: str = ""
    tls_key: str = ""
    bearer_token_file: str = ""
    insecure: bool = False

    def __post_init__(self) -> None:
        if bool(self.tls_cert) != bool(self.tls_key):
            given, lacking = ("tls_cert", "tls_key") if self.tls_cert else ("tls_key", "tls_cert")
            raise ValueError(f"--{given} is given without --{lacking}; TLS needs both")
        if not (is_loopback(self.host) or self.tls_cert or self.bearer_token_file or self.insecure):
            raise ValueError(
                f"--host={self.host} can be reached from other machines: give --tls_cert and --tls_key, or"
                " --bearer_token_file, or say --insecure; or leave --host at 127.0.0.1"
            )

    def token(self) -> str | None:
        """The token; None where none is asked for.

        Raises:
          ValueError: the file has none.
        """
        if not self.bearer_token_file:
            return None
        with open(self.bearer_token_file, encoding="utf-8") as f:
            token = f.read().strip()
        if not token or not token.isascii() or any(c.isspace() for c in token):
            raise ValueError(f"{self.bearer_token_file} must hold one token of ASCII characters, without spaces")
        return token

    def grpc_credentials(self) -> grpc.ServerCredentials | None:
        """TLS for gRPC, or None."""
        if not self.tls_cert:
            return None
        with open(self.tls_key, "rb") as key, open(self.tls_cert, "rb") as certificate:
            return grpc.ssl_server_credentials([(key.read(), certificate.read())])


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches it."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _bears(header: str, token: str) -> bool:
    scheme, _, given = header.partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token.encode())


class BearerToken:
    """ASGI middleware: 401 for requests without the token.

    Args:
      app: what to pass requests on to.
      token: what they have to bear.
      open_paths: exact paths that are answered without it, as those of the health checks are.
    """

    def __init__(self, app: ASGIApp, token: str, open_paths: Collection[str] = ()):
        self._app, self._token = app, token
        self._open = {*_HEALTH, *open_paths}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers, or passes on."""
        if scope["type"] == "http" and scope["path"] not in self._open:
            header = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1")
            if not _bears(header, self._token):
                error = {"error": "this server wants the header 'Authorization: Bearer TOKEN'"}
                await JSONResponse(error, 401, {"WWW-Authenticate": "Bearer"})(scope, receive, send)
                return
        await self._app(scope, receive, send)


class BearerTokenRpc(grpc.aio.ServerInterceptor):
    """The same for gRPC: UNAUTHENTICATED."""

    def __init__(self, token: str):
        self._token = token

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Answers, or passes on."""
        header = dict(handler_call_details.invocation_metadata or ()).get("authorization", "")
        if handler_call_details.method.startswith(_OPEN_RPCS) or _bears(header, self._token):
            return await continuation(handler_call_details)

        async def refuse(request: Any, context: Any) -> None:
            await context.abort(
                grpc.StatusCode.UNAUTHENTICATED, "this server wants the metadata 'authorization: Bearer TOKEN'"
            )

        return grpc.unary_unary_rpc_method_handler(refuse)
