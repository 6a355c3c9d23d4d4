"""The protocol of server and client: names, and the errors of a request with their gRPC codes and HTTP statuses."""

from __future__ import annotations

import uuid

REQUEST_ID = "x-request-id"  # the header, or the gRPC metadata
DEFAULT_SIGNATURE = "serving_default"
# The signatures of a bundle that have candidates on their second axis.
RANK = ("rank", "rank_top_k")

_LONGEST_ID = 256
# As TF Serving maps them (ToHTTPStatusCode in tensorflow_serving/model_servers/http_server.cc); all others are 500.
_STATUS = {
    "CANCELLED": 499,
    "INVALID_ARGUMENT": 400,
    "DEADLINE_EXCEEDED": 504,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "PERMISSION_DENIED": 403,
    "RESOURCE_EXHAUSTED": 429,
    "FAILED_PRECONDITION": 400,
    "ABORTED": 409,
    "OUT_OF_RANGE": 400,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "UNAUTHENTICATED": 401,
}


class ServingError(Exception):
    """A request failed. The subclasses tell why.

    Args:
      message: what was given, and what is expected.
      code: the gRPC code, as `INTERNAL`; by default the code of the class.
      status: the HTTP status; by default the status of the code.
    """

    code = "INTERNAL"

    def __init__(self, message: str, code: str | None = None, status: int | None = None):
        super().__init__(message)
        self.code = code or self.code
        self.status = status or _STATUS.get(self.code, 500)


class InvalidRequest(ServingError):
    """The request is wrong, and would fail again: INVALID_ARGUMENT, or 400."""

    code = "INVALID_ARGUMENT"


class TooLarge(InvalidRequest):
    """The request has more bytes than the server takes: gRPC's RESOURCE_EXHAUSTED for the size of a message, or 413."""

    code = "RESOURCE_EXHAUSTED"

    def __init__(self, message: str):
        super().__init__(message, status=413)


class FailedPrecondition(InvalidRequest):
    """The request does not fit the state of the server, and would fail again: FAILED_PRECONDITION, or 400."""

    code = "FAILED_PRECONDITION"


class NotFound(ServingError):
    """The model or version does not exist, or no version is loaded: NOT_FOUND, or 404."""

    code = "NOT_FOUND"


class Unavailable(ServingError):
    """No server answers, or the version is no longer loaded: UNAVAILABLE, or 503."""

    code = "UNAVAILABLE"


class DeadlineExceeded(ServingError):
    """No answer came in time: DEADLINE_EXCEEDED, or 504."""

    code = "DEADLINE_EXCEEDED"


class Overloaded(ServingError):
    """The server has too many requests, try again later: RESOURCE_EXHAUSTED, or 429."""

    code = "RESOURCE_EXHAUSTED"


class Unauthenticated(ServingError):
    """The bearer token is missing, wrong, or not sufficient: UNAUTHENTICATED, PERMISSION_DENIED, 401 or 403."""

    code = "UNAUTHENTICATED"


_BY_CODE: dict[str, type[ServingError]] = {
    "INVALID_ARGUMENT": InvalidRequest,
    "OUT_OF_RANGE": InvalidRequest,
    "FAILED_PRECONDITION": FailedPrecondition,
    "NOT_FOUND": NotFound,
    "UNAVAILABLE": Unavailable,
    "DEADLINE_EXCEEDED": DeadlineExceeded,
    "RESOURCE_EXHAUSTED": Overloaded,
    "UNAUTHENTICATED": Unauthenticated,
    "PERMISSION_DENIED": Unauthenticated,
}
_BY_STATUS: dict[int, type[ServingError]] = {
    400: InvalidRequest,
    401: Unauthenticated,
    403: Unauthenticated,
    404: NotFound,
    408: DeadlineExceeded,
    413: TooLarge,
    429: Overloaded,
    502: Unavailable,
    503: Unavailable,
    504: DeadlineExceeded,
}


def from_code(code: str, message: str) -> ServingError:
    """Returns the error for a gRPC code, as `INVALID_ARGUMENT`."""
    if code == "RESOURCE_EXHAUSTED" and "larger than max" in message:  # gRPC's words, in the client and in the server
        return TooLarge(message)
    return _BY_CODE.get(code, ServingError)(message or code)


def from_status(status: int, message: str, retry_after: bool) -> ServingError:
    """Returns the error for an HTTP status.

    Args:
      status: as 400.
      message: the server's.
      retry_after: whether the answer says when to retry, as proxies do: 503 is then for too many requests.
    """
    kind = Overloaded if status == 503 and retry_after else _BY_STATUS.get(status, ServingError)
    return kind(message or f"HTTP status {status}")


def request_id(given: str | bytes | None) -> str:
    """Returns the id of a request, or a new one if it has none.

    Raises:
      InvalidRequest: the id is too long.
    """
    text = given.decode(errors="replace") if isinstance(given, bytes) else given
    if text and len(text) > _LONGEST_ID:
        raise InvalidRequest(f"{REQUEST_ID} has {len(text)} characters; at most {_LONGEST_ID} are allowed")
    return text or uuid.uuid4().hex


def is_rank(signature: str) -> bool:
    """Returns whether a signature is one of `RANK`."""
    return signature in RANK
