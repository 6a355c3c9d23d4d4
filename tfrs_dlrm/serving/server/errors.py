"""What a request can be answered with instead of scores: a code of gRPC's and a status of HTTP's."""

from __future__ import annotations

from tfrs_dlrm.serving.runtime.runtime import RunError

# As TF Serving maps them (tensorflow_serving/model_servers/http_rest_api_util.cc).
_HTTP = {
    "INVALID_ARGUMENT": 400,
    "OUT_OF_RANGE": 400,
    "FAILED_PRECONDITION": 412,
    "UNAUTHENTICATED": 401,
    "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 503,
    "UNAVAILABLE": 503,
    "UNIMPLEMENTED": 501,
}

# Of a message, which may quote the request; clients of gRPC take 8 KiB of headers.
_LONGEST = 1500
_IN_THE_GRAPH = "\n\t [["


class ServingError(Exception):
    """An answer that is an error.

    Args:
      message: for the caller: what was given, and what is expected.
      code: gRPC's, as `INTERNAL`.
      http: the status; by default that of the code.
    """

    def __init__(self, message: str, code: str = "INTERNAL", http: int | None = None):
        super().__init__(message if len(message) <= _LONGEST else message[:_LONGEST] + " ...")
        self.code = code
        self.http = http or _HTTP.get(code, 500)


class InvalidRequest(ServingError):
    """The request is wrong and will be wrong again."""

    def __init__(self, message: str):
        super().__init__(message, "INVALID_ARGUMENT")


class NotFound(ServingError):
    """There is no such model, version, label or signature."""

    def __init__(self, message: str):
        super().__init__(message, "NOT_FOUND")


class Busy(ServingError):
    """There are too many requests at once."""

    def __init__(self, message: str):
        super().__init__(message, "RESOURCE_EXHAUSTED")


class Unavailable(ServingError):
    """The model is known, and no version of it is loaded."""

    def __init__(self, message: str):
        super().__init__(message, "UNAVAILABLE")


class TooLarge(ServingError):
    """The request has too many bytes."""

    def __init__(self, message: str):
        super().__init__(message, "RESOURCE_EXHAUSTED", 413)


def from_run(error: RunError, where: str) -> ServingError:
    """What TensorFlow said, as an answer; not where in its graph."""
    return ServingError(f"{where}: {str(error).partition(_IN_THE_GRAPH)[0]}", error.code_name)
