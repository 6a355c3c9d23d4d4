"""What can go wrong when a server is asked, as types that a caller can tell apart."""

from __future__ import annotations


class ServingError(Exception):
    """A request failed; the message is the server's where it said something. Those with a type of their own follow."""


class InvalidRequest(ServingError):
    """The request is wrong, and would be however often it is sent: INVALID_ARGUMENT, or 400."""


class TooLarge(InvalidRequest):
    """The request has more bytes than the server takes: 413, or gRPC's RESOURCE_EXHAUSTED for a message's size."""


class NotFound(ServingError):
    """There is no such model, version, label or signature: NOT_FOUND, or 404."""


class Unavailable(ServingError):
    """No server answers there, or it does not serve the model at the moment: UNAVAILABLE, or 503."""


class DeadlineExceeded(ServingError):
    """No answer came in time: DEADLINE_EXCEEDED, or 504."""


class Overloaded(ServingError):
    """The server has too much to do, try again later: RESOURCE_EXHAUSTED, 429, or 503 that says when to retry."""


class Unauthenticated(ServingError):
    """The bearer token is missing or wrong, or does not allow this: UNAUTHENTICATED, PERMISSION_DENIED, 401 or 403."""


_BY_CODE: dict[str, type[ServingError]] = {
    "INVALID_ARGUMENT": InvalidRequest,
    "OUT_OF_RANGE": InvalidRequest,
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
    """Of a gRPC status, as `INVALID_ARGUMENT`."""
    if code == "RESOURCE_EXHAUSTED" and "larger than max" in message:  # gRPC's own words, on either side
        return TooLarge(message)
    return _BY_CODE.get(code, ServingError)(message or code)


def from_status(status: int, message: str, retry_after: bool) -> ServingError:
    """Of an HTTP status.

    Args:
      status: as 400.
      message: what the server said.
      retry_after: whether it said when to try again, which is how 503 for too much work differs from 503 for no model.
    """
    kind = Overloaded if status == 503 and retry_after else _BY_STATUS.get(status, ServingError)
    return kind(message or f"HTTP status {status}")
