"""The request logs of a server's models, written by a thread of their own: no request waits for a disk."""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from absl import logging

from tfrs_dlrm.serving.client.transport import REQUEST_ID
from tfrs_dlrm.serving.request_log import RequestLog
from tfrs_dlrm.serving.runtime import Signature
from tfrs_dlrm.serving.server.errors import InvalidRequest
from tfrs_dlrm.serving.server.logged_rows import logged_rows
from tfrs_dlrm.serving.server.metrics import Metrics

_LONGEST_ID = 256
_MOST_WAITING = 1000  # requests; more are left out of the log rather than kept in memory


def request_id(given: str | bytes | None) -> str:
    """That of a request, or a new one where it has none.

    Raises:
      InvalidRequest: it is too long.
    """
    text = given.decode(errors="replace") if isinstance(given, bytes) else given
    if text and len(text) > _LONGEST_ID:
        raise InvalidRequest(f"{REQUEST_ID} has {len(text)} characters; at most {_LONGEST_ID} are allowed")
    return text or uuid.uuid4().hex


class RequestLogs:
    """One log for each model, in a directory of its name.

    Args:
      directory: of all.
      fraction: of the rows to write, in (0, 1].
      models: their names.
      metrics: where to count.

    Raises:
      ValueError: the fraction is out of range.
      OSError: a directory cannot be made.
    """

    def __init__(self, directory: str, fraction: float, models: Collection[str], metrics: Metrics):
        self._logs = {name: RequestLog(os.path.join(directory, name), fraction) for name in models}
        self._metrics = metrics
        self._thread = ThreadPoolExecutor(1, "request_log")
        self._waiting = threading.BoundedSemaphore(_MOST_WAITING)

    def add(
        self,
        model: str,
        version: int,
        signature: str,
        signatures: Mapping[str, Signature],
        context: Collection[str],
        identity: str,
        inputs: Mapping[str, np.ndarray],
        outputs: Mapping[str, np.ndarray],
    ) -> None:
        """Has a request written that was answered.

        Args:
          model: its name.
          version: that answered.
          signature: that was asked.
          signatures: of the model.
          context: the inputs that candidates share.
          identity: of the request.
          inputs: of the request.
          outputs: of the model.
        """
        if not self._waiting.acquire(blocking=False):
            self._metrics.log_failed.labels(model).inc(len(next(iter(inputs.values()))))
            return

        def write() -> None:
            log = self._logs[model]
            written, failed = log.written, log.failed
            try:
                rows = logged_rows(signature, signatures, inputs, outputs, context)
                if rows is not None:
                    log.write(identity, rows.inputs, rows.probabilities, version, rows.rows)
            except Exception:
                logging.exception("%s: a request could not be logged", model)
                self._metrics.log_failed.labels(model).inc()
            finally:
                self._metrics.log_rows.labels(model).inc(log.written - written)
                self._metrics.log_failed.labels(model).inc(log.failed - failed)
                self._waiting.release()

        self._thread.submit(write)

    def close(self) -> None:
        """Writes what is waiting, and finishes the files."""
        self._thread.shutdown()
        for log in self._logs.values():
            log.close()
