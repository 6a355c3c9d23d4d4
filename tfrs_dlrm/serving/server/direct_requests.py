"""Plain requests to models, read below the web framework, which takes most of the time of a small one.

Only requests that need nothing of the framework are taken: whole, with a few known headers, each once, in the form in
which clients write them, and past every guard. All others, among them all that are refused, go the usual way and get
their answer there. So what is taken here, is answered there with the same bytes.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable

from uvicorn.protocols.http.h11_impl import STATUS_PHRASES

from tfrs_dlrm.serving.protocol import REQUEST_ID
from tfrs_dlrm.serving.server.access_log import TRACEPARENT
from tfrs_dlrm.serving.server.admission import Call
from tfrs_dlrm.serving.server.inference import Inference
from tfrs_dlrm.serving.server.rest_models import Answer, ModelsApi, Question, question
from tfrs_dlrm.serving.server.security import Security, bears
from tfrs_dlrm.serving.server.web_guards import AllowedHosts

_NAME = rb"[A-Za-z0-9_.-]{1,200}"
_HEADER = rb"[A-Za-z-]{1,40}: [!-~](?:[ -~]{0,1000}[!-~])?\r\n"
_HEAD = re.compile(
    rb"POST /v1/models/(%b(?:/versions/[0-9]{1,18}|/labels/%b)?:(?:predict|regress|classify)) HTTP/1\.1\r\n"
    rb"((?:%b){1,20})\r\n" % (_NAME, _NAME, _HEADER)
)
_LENGTH = re.compile(r"[1-9][0-9]{0,9}")
# Headers that change nothing here, or are read here. Others may: as Origin, Expect, Upgrade, or Transfer-Encoding.
_KNOWN = frozenset({
    "accept", "accept-encoding", "accept-language", "authorization", "connection", "content-length", "content-type",
    "host", "user-agent", REQUEST_ID, TRACEPARENT, "tracestate",
})  # fmt: skip


@dataclasses.dataclass(frozen=True)
class DirectRequest:
    """A request whose whole body is there.

    Attributes:
      asked: of a model.
      headers: with their names in lower case.
      body: as received.
    """

    asked: Question
    headers: dict[str, str]
    body: bytes


class DirectRequests:
    """Reads and answers plain requests to models.

    Args:
      service: that answers.
      security: who may ask.
    """

    def __init__(self, service: Inference, security: Security):
        self._models, self._hosts, self._token = ModelsApi(service), AllowedHosts(security), security.token()
        self._service, self._has_cors = service, bool(security.cors_origins)

    def read(self, data: bytes) -> DirectRequest | int | None:
        """Returns the request that some bytes are, how many bytes of its body are missing, or None if it is not plain.

        Args:
          data: what a connection received since its last request.
        """
        head = None if self._has_cors else _HEAD.match(data)  # CORS adds to every answer
        if head is None:
            return None
        headers = _headers(head[2].decode("ascii"))
        asked = question("POST", head[1].decode("ascii"))
        if headers is None or asked is None or not self._may_ask(headers):
            return None
        missing = int(headers["content-length"]) - (len(data) - head.end())
        return missing if missing else DirectRequest(asked, headers, data[head.end() :])

    async def answer(self, request: DirectRequest, peer: str) -> Answer:
        """Answers a request; what goes wrong is an answer too.

        Args:
          request: as read.
          peer: the address of the client.
        """

        async def body(call: Call) -> bytes:
            call.take(len(request.body))
            return request.body

        return await self._models.answer(request.asked, request.headers, peer, body)

    def draining(self) -> bool:
        """Returns whether the server ends, and clients have to go elsewhere."""
        return self._service.draining

    def _may_ask(self, headers: dict[str, str]) -> bool:
        """Returns whether the guards of the usual way let a request pass."""
        return (
            self._hosts.allow(headers["host"])
            and int(headers["content-length"]) <= self._service.options.max_request_bytes
            and (self._token is None or bears(headers.get("authorization", ""), self._token))
        )


def _headers(text: str) -> dict[str, str] | None:
    """Returns the headers by name in lower case; None if one is unknown, missing, or there twice."""
    found: dict[str, str] = {}
    for line in text.split("\r\n")[:-1]:
        name, _, value = line.partition(": ")
        name = name.lower()
        if name not in _KNOWN or name in found:
            return None
        found[name] = value
    plain = "host" in found and _LENGTH.fullmatch(found.get("content-length", ""))
    return found if plain and found.get("connection", "keep-alive").lower() == "keep-alive" else None


def response(answer: Answer, first: Iterable[tuple[bytes, bytes]], close: bool) -> bytes:
    """Returns the bytes of an answer, as the usual way writes them.

    Args:
      answer: to be sent.
      first: headers that every answer of the server has.
      close: whether the connection ends with it.
    """
    parts = [b"HTTP/1.1 %d %b\r\n" % (answer.status, STATUS_PHRASES[answer.status])]
    parts += [b"%b: %b\r\n" % header for header in first]
    parts += [f"{name.lower()}: {value}\r\n".encode("latin-1") for name, value in answer.headers.items()]
    parts.append(b"content-length: %d\r\ncontent-type: application/json\r\n" % len(answer.content))
    parts.append(b"connection: close\r\n\r\n" if close else b"\r\n")
    return b"".join([*parts, answer.content])
