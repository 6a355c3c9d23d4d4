"""Lines of the access log, and log lines in JSON."""

from __future__ import annotations

import datetime
import json
import logging
import re
from typing import Any

from absl import logging as absl_logging

from tfrs_dlrm.serving.server.admission import Call

TRACEPARENT = "traceparent"  # the header, or the gRPC metadata: https://www.w3.org/TR/trace-context
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def traceparent(given: str | bytes | None) -> str:
    """Returns the trace context of a request; empty if it has none, or one of another form."""
    text = given.decode(errors="replace") if isinstance(given, bytes) else given or ""
    return text if _TRACEPARENT.fullmatch(text) else ""


def log_access(call: Call) -> None:
    """Logs a request that was answered."""
    fields = {
        "api": call.api,
        "method": call.method,
        "code": call.code,
        "milliseconds": round(call.seconds * 1000, 3),
        "model": call.model,
        "version": call.version,
        "signature": call.signature,
        "rows": call.rows,
        "request_id": call.identity,
        "traceparent": call.traceparent,
        "peer": call.peer,
    }
    given = {name: value for name, value in fields.items() if value not in ("", None)}
    text = " ".join(f"{name}={value}" for name, value in given.items())
    absl_logging.info("request %s", text, extra={"fields": given})


class JsonFormatter(logging.Formatter):
    """Formats a log line as a JSON object; an access-log line has its fields beside the message."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns one line."""
        fields: dict[str, Any] = getattr(record, "fields", {})
        time = datetime.datetime.fromtimestamp(record.created, datetime.timezone.utc)
        line = {
            "time": time.isoformat(timespec="milliseconds"),
            "severity": record.levelname,
            "message": "request" if fields else record.getMessage(),
            "source": f"{record.filename}:{record.lineno}",
            **fields,
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)
