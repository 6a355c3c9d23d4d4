"""The request logs of a server's models, written by a thread of their own: no request waits for a disk."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from absl import logging

from tfrs_dlrm.serving.client.transport import REQUEST_ID
from tfrs_dlrm.serving.request_logs.request_log import RequestLog
from tfrs_dlrm.serving.runtime.runtime import Signature
from tfrs_dlrm.serving.server.errors import InvalidRequest
from tfrs_dlrm.serving.server.logged_rows import EXAMPLES, LoggedRows, logged_rows, parsed, scores
from tfrs_dlrm.serving.server.metrics import Metrics
from tfrs_dlrm.serving.server.requests import DEFAULT_SIGNATURE
from tfrs_dlrm.serving.server.versions import Version

_LONGEST_ID = 256
_MOST_WAITING = 100_000  # rows; more are left out of the log rather than kept in memory
_Arrays = Mapping[str, np.ndarray]


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
        self._waiting = 0  # rows; only the event loop changes it

    def add(self, version: Version, signature: str, identity: str, inputs: _Arrays, outputs: _Arrays) -> None:
        """Has some rows of a request written that was answered; of the others nothing is kept.

        Args:
          version: that answered, in use.
          signature: that was asked.
          identity: of the request.
          inputs: of the request.
          outputs: of the model.
        """
        raw, found = version.loaded.signatures.get(DEFAULT_SIGNATURE), scores(signature, outputs)
        if raw is None or found is None:
            return
        log = self._logs[version.model_name]
        chosen = log.sample(len(found))
        if not len(chosen):
            return
        if self._waiting + len(chosen) > _MOST_WAITING:
            self._metrics.log_failed.labels(version.model_name).inc(len(chosen))
            return
        rows = logged_rows(signature, inputs, outputs, version.context, found, chosen)
        self._waiting += len(chosen)
        done = self._thread.submit(self._write, version.model_name, version.number, raw, identity, rows)
        loop = asyncio.get_running_loop()
        done.add_done_callback(lambda _: loop.call_soon_threadsafe(self._written, len(chosen)))

    def finish_old(self) -> None:
        """Finishes the files that are old enough."""
        for log in self._logs.values():
            self._thread.submit(log.finish_old)

    def _written(self, rows: int) -> None:
        self._waiting -= rows

    def _write(self, model: str, version: int, raw: Signature, identity: str, rows: LoggedRows) -> None:
        log = self._logs[model]
        written, failed = log.written, log.failed
        try:
            inputs = parsed(rows.inputs[EXAMPLES], raw) if EXAMPLES in rows.inputs else rows.inputs
            log.write(identity, inputs, rows.probabilities, version, rows.rows)
        except Exception:
            logging.exception("%s: rows of a request could not be logged", model)
            self._metrics.log_failed.labels(model).inc(len(rows.rows))
        self._metrics.log_rows.labels(model).inc(log.written - written)
        self._metrics.log_failed.labels(model).inc(log.failed - failed)

    def close(self) -> None:
        """Writes what is waiting, and finishes the files."""
        self._thread.shutdown()
        for log in self._logs.values():
            log.close()
