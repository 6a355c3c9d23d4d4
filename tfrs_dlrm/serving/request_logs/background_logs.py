"""The request logs of a server's models, written by one thread: no request waits for a disk."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from absl import logging

from tfrs_dlrm.serving.request_logs.request_log import RequestLog
from tfrs_dlrm.serving.request_logs.scored_rows import LoggedRows, ScoredRequest
from tfrs_dlrm.serving.runtime.signature import Signature

_MOST_WAITING = 100_000  # rows; more are left out of the log rather than kept in memory


class BackgroundLogs:
    """One log per model, in a directory of its name.

    Args:
      directory: of all logs.
      fraction: of the rows to write, in (0, 1].
      count: called with a model and the numbers of its rows that were written, and that could not be.

    """

    def __init__(self, directory: str, fraction: float, count: Callable[[str, int, int], None]):
        self._directory, self._fraction, self._count = directory, fraction, count
        self._logs: dict[str, RequestLog] = {}
        self._thread = ThreadPoolExecutor(1, "request_log")
        self._waiting = 0  # rows; only the event loop changes it

    def add_model(self, name: str) -> None:
        """Begins the log of a model, if it has none.

        Raises:
          ValueError: the fraction is out of range.
          OSError: the directory cannot be made.
        """
        if name not in self._logs:
            self._logs[name] = RequestLog(os.path.join(self._directory, name), self._fraction)

    def add(self, request: ScoredRequest) -> None:
        """Samples the rows of a request, and queues them for writing."""
        scores = request.scores()
        if request.raw is None or scores is None:
            return
        chosen = self._logs[request.model].sample(len(scores))
        if not len(chosen):
            return
        if self._waiting + len(chosen) > _MOST_WAITING:
            self._count(request.model, 0, len(chosen))
            return
        self._waiting += len(chosen)
        rows = request.choose(scores, chosen)
        # The thread gets nothing that holds the other rows.
        done = self._thread.submit(self._write, request.model, request.version, request.identity, request.raw, rows)
        loop = asyncio.get_running_loop()
        done.add_done_callback(lambda _: loop.call_soon_threadsafe(self._written, len(chosen)))

    def finish_old(self) -> None:
        """Finishes the files that are old enough."""
        for log in self._logs.values():
            self._thread.submit(log.finish_old)

    def close(self) -> None:
        """Writes the queued rows, and finishes the files; what fails is logged."""
        self._thread.shutdown()
        for name, log in self._logs.items():
            try:
                log.close()
            except OSError as e:  # the next log of the directory finishes the file
                logging.error("%s: the file of its request log could not be finished: %s", name, e)

    def _written(self, rows: int) -> None:
        self._waiting -= rows

    def _write(self, model: str, version: int, identity: str, raw: Signature, rows: LoggedRows) -> None:
        log = self._logs[model]
        written, failed = log.written, log.failed
        try:
            log.write(identity, rows.raw_inputs(raw), rows.probabilities, version, rows.numbers)
        except Exception:
            logging.exception("%s: rows of a request could not be logged", model)
            self._count(model, 0, len(rows.numbers))
        self._count(model, log.written - written, log.failed - failed)
