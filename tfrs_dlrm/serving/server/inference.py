"""The models of a server, their limits, and the threads that run them, for REST and gRPC."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
from absl import logging

from tfrs_dlrm.serving.protocol import DEFAULT_SIGNATURE, InvalidRequest, NotFound, ServingError
from tfrs_dlrm.serving.request_logs.background_logs import BackgroundLogs
from tfrs_dlrm.serving.request_logs.scored_rows import ScoredRequest
from tfrs_dlrm.serving.runtime import requests
from tfrs_dlrm.serving.runtime.saved_model import RunError, SavedModel
from tfrs_dlrm.serving.runtime.tensors import memory
from tfrs_dlrm.serving.server.access_log import log_access
from tfrs_dlrm.serving.server.admission import Admission, Call
from tfrs_dlrm.serving.server.batching import Batcher
from tfrs_dlrm.serving.server.metrics import Metrics
from tfrs_dlrm.serving.server.model_config import VersionPolicy
from tfrs_dlrm.serving.server.request_checks import Inputs, Limits, check
from tfrs_dlrm.serving.server.served_model import ServedModel
from tfrs_dlrm.serving.server.served_models import ServedModels
from tfrs_dlrm.serving.server.served_version import ServedVersion, State
from tfrs_dlrm.serving.server.uninterrupted import uninterrupted

_Result = TypeVar("_Result")
_SMALL = 64 * 1024  # bytes; more are converted and checked in a thread
_GRAPH_LOCATION = "\n\t [["  # begins the place in the graph, in TensorFlow's messages


@dataclasses.dataclass(frozen=True)
class InferenceOptions:
    """Options of running models.

    Attributes:
      keep: how many of the newest versions of a model to serve, if the configuration does not say which.
      model_config_file: the configuration of models, which requests replace; empty for none.
      poll_seconds: how often to look for new versions.
      threads: how many runs at once; each also uses TensorFlow's threads.
      max_batch_size: rows of requests that are merged into one run.
      max_concurrent: requests at once; more are refused.
      max_request_bytes: of one request.
      max_memory_bytes: of all requests at once: as received, as parsed, and as tensors; more are refused.
      receive_seconds: how long the headers of a request may take to arrive, and then its body.
      limits: of the tensors of one request.
      access_log: whether to log each request.
      request_log: the directory of the request logs; empty for none.
      request_log_fraction: of the rows to log.
      processes: that share the ports. Each has these limits for itself, and none of several takes a new configuration
        by request, which the others would not learn of.
    """

    keep: int = 1
    model_config_file: str = ""
    poll_seconds: float = 1.0
    threads: int = max(2, os.cpu_count() or 2)
    max_batch_size: int = 256
    max_concurrent: int = 1000
    max_request_bytes: int = 16 * 1024 * 1024
    max_memory_bytes: int = 1024 * 1024 * 1024
    receive_seconds: float = 30
    limits: Limits = dataclasses.field(default_factory=Limits)
    access_log: bool = False
    request_log: str = ""
    request_log_fraction: float = 1.0
    processes: int = 1

    def __post_init__(self) -> None:
        if self.max_memory_bytes < 4 * self.max_request_bytes:
            raise ValueError(
                f"--max_memory_bytes={self.max_memory_bytes} is less than 4 times --max_request_bytes="
                f"{self.max_request_bytes}, which one request may take: raise the former or lower the latter"
            )


class Inference:
    """The models of a directory, kept up to date.

    Args:
      root: a model's directory of versions, or a directory of models.
      options: how they are run.

    Raises:
      ValueError: no model is found, or the fraction to log is out of range.
      OSError: the directory of the request logs cannot be made.
    """

    def __init__(self, root: str, options: InferenceOptions):
        self.options, self.metrics, self.draining = options, Metrics(), False
        self.admission = Admission(options.max_concurrent, options.max_memory_bytes, options.max_request_bytes)
        self.threads = ThreadPoolExecutor(options.threads, "run")
        self._converters = ThreadPoolExecutor(2, "convert")
        self._loader = ThreadPoolExecutor(1, "load")
        self._logs = None
        if options.request_log:
            self._logs = BackgroundLogs(options.request_log, options.request_log_fraction, self.metrics.count_logged)
        policy = VersionPolicy(options.keep)
        self.served = ServedModels(root, options.model_config_file, policy, self._loader, self._make)
        self.models = self.served.models
        self._poller: asyncio.Task[None] | None = None
        # Called when a version was loaded or unloaded; the health service of gRPC listens.
        self.listeners: list[Callable[[], Any]] = []
        # Returns the metrics in Prometheus' text format, under TF Serving's names too if its argument says so.
        self.metrics_text: Callable[[bool], Awaitable[bytes]] = self._own_metrics

    async def start(self) -> None:
        """Loads the models, and keeps looking for new versions."""
        await self.served.poll()
        self._poller = asyncio.get_running_loop().create_task(self._poll())

    async def close(self) -> None:
        """Unloads all models once they are not in use."""
        if self._poller:
            self._poller.cancel()
            await asyncio.gather(self._poller, return_exceptions=True)
        try:
            await self.served.close()
        finally:
            self._loader.shutdown()
            self.threads.shutdown()
            self._converters.shutdown()
            if self._logs:
                self._logs.close()

    async def _own_metrics(self, tf_serving: bool) -> bytes:
        return self.metrics.texts(tf_serving)

    def ready(self) -> bool:
        """Returns whether every model has a version that answers, and the server is not ending."""
        return not self.draining and all(model.available() for model in self.models.values())

    def choose(self, call: Call, name: str, number: int | None, label: str | None) -> tuple[ServedModel, ServedVersion]:
        """Returns the model and the version of a request.

        Raises:
          NotFound: the model is unknown, or the version is not loaded.
          InvalidRequest: the label is unknown.
        """
        model = self.model(name)
        call.model = model.name
        version = model.choose(number, label)
        call.version = version.number
        return model, version

    def model(self, name: str) -> ServedModel:
        """Returns a model, or raises NotFound if it is unknown."""
        if name not in self.models:
            raise NotFound(
                f"Servable not found for request: Latest({name[:200]}); the models are {', '.join(self.models)}"
            )
        return self.models[name]

    @contextlib.contextmanager
    def request(self, api: str, method: str) -> Iterator[Call]:
        """Counts and times a request whose headers arrived; yields its account.

        Raises:
          Overloaded: too many requests at once.
          Unavailable: the server ends.
        """
        call = Call(self.admission, api, method)
        try:
            with self.admission.admitted(call), self.metrics.in_flight.track_inprogress():
                yield call
        except BaseException as e:
            call.code = e.code if isinstance(e, ServingError) else "INTERNAL"
            if isinstance(e, asyncio.CancelledError):
                call.code = "CANCELLED"
            raise
        finally:
            call.seconds = time.perf_counter() - call.started
            self.metrics.count_request(call)
            if self.options.access_log:
                log_access(call)

    async def off_loop(self, size: int, function: Callable[..., _Result], *arguments: Any) -> _Result:
        """Returns the result of a function; runs it in a thread if it works on many bytes, so that others do not wait.

        Args:
          size: bytes that the function works on.
          function: to call.
          *arguments: of it.
        """
        if size <= _SMALL:
            return function(*arguments)
        return await uninterrupted(asyncio.get_running_loop().run_in_executor(self._converters, function, *arguments))

    async def example_inputs(self, version: ServedVersion, method: str, name: str, input_: Any, call: Call) -> Inputs:
        """Returns the inputs of a `regress` or `classify` signature for an Input of Examples, whose memory is counted.

        Raises:
          ServingError: the signature has another method, or there are no Examples, too many, or too large ones.
        """
        signature, rows = version.signature(name), requests.number_of_examples(input_)
        if rows > self.options.limits.rows:
            raise InvalidRequest(
                f"input 'examples' has {rows} rows; at most {self.options.limits.rows} are allowed in one request"
            )
        size = requests.memory_of_examples(input_)
        with call.holding(size):
            examples = await self.off_loop(size, requests.serialized_examples, input_)
        taken = memory(examples)
        call.take(taken)
        return Inputs(requests.example_inputs(method, name, signature, examples), taken)

    async def run(self, version: ServedVersion, name: str, inputs: Inputs, call: Call) -> dict[str, np.ndarray]:
        """Returns the outputs of a signature; the version must be `in_use`.

        Args:
          version: of the model.
          name: of the signature.
          inputs: the tensors.
          call: the account of the request, which counts their memory already.

        Raises:
          ServingError: the inputs do not fit the signature, or TensorFlow refuses their values.
        """
        arrays, rows, limits = inputs.arrays, inputs.rows, self.options.limits
        signature, call.signature = version.signature(name), name
        if rows is None:
            rows = await self.off_loop(inputs.size, check, name, signature, arrays, version.manifest, limits)
        call.rows, started = rows, time.perf_counter()
        try:
            outputs = await version.run(name, arrays, rows)
        except RunError as e:
            names = list(signature.inputs)
            where = f"signature {name!r}" + (f", input {names[0]!r}" if len(names) == 1 else "")
            raise ServingError(f"{where}: {str(e).partition(_GRAPH_LOCATION)[0]}", e.code_name) from e
        self.metrics.count_answer(version.model_name, signature, time.perf_counter() - started, rows)
        if self._logs and call.identity:
            context = version.manifest.context_inputs if version.manifest else ()
            raw = version.loaded.signatures.get(DEFAULT_SIGNATURE)
            self._logs.add(
                ScoredRequest(call.identity, version.model_name, version.number, name, arrays, outputs, context, raw)
            )
        return outputs

    def _make(self, name: str, path: str, policy: VersionPolicy) -> ServedModel:
        if self._logs:
            self._logs.add_model(name)
        return ServedModel(name, path, policy, self._loader, self._batcher, self._changed)

    def _batcher(self, model: SavedModel) -> Batcher:
        return Batcher(model, self.threads, self.options.max_batch_size, self.metrics.count_run)

    def _changed(self, model: ServedModel, version: ServedVersion) -> None:
        if version.state == State.AVAILABLE:
            self.metrics.loaded.labels(model.name, version.number).set(1)
        elif version.state == State.END and version.error:
            self.metrics.refused.labels(model.name).inc()
        elif version.state == State.END:
            self.metrics.loaded.labels(model.name, version.number).set(0)
        if version.state == State.END:
            self.metrics.forget_versions(model.name, {version.number, *model.versions})
        for listener in self.listeners:
            listener()

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(self.options.poll_seconds)
            try:
                if self._logs:
                    self._logs.finish_old()
                await self.served.poll()
            except Exception:  # the next round may do better
                logging.exception("looking for new models and versions failed")
