"""TF Serving's REST API for models: what a request under /v1/models/ is answered, whoever received its bytes."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import numpy as np
from absl import logging

from tfrs_dlrm.serving.bundle.versions import version_number
from tfrs_dlrm.serving.protocol import (
    DEFAULT_SIGNATURE,
    REQUEST_ID,
    InvalidRequest,
    Overloaded,
    ServingError,
    request_id,
)
from tfrs_dlrm.serving.runtime.tensors import memory
from tfrs_dlrm.serving.server import answers, json_bodies, json_examples, json_tensors
from tfrs_dlrm.serving.server.access_log import TRACEPARENT, traceparent
from tfrs_dlrm.serving.server.admission import Call
from tfrs_dlrm.serving.server.inference import Inference
from tfrs_dlrm.serving.server.request_body import decode, most_inflated
from tfrs_dlrm.serving.server.request_checks import Inputs, Limits
from tfrs_dlrm.serving.server.served_version import ServedVersion

_Body = Callable[[Call], Awaitable[bytes | bytearray]]
_PATH = re.compile(
    r"(?P<name>[^/:]+)(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
    r"(?::(?P<method>predict|regress|classify)|(?P<metadata>/metadata))?",
    re.IGNORECASE,
)


@dataclasses.dataclass(frozen=True)
class Question:
    """What a request asks of which model.

    Attributes:
      name: of the model.
      version: as the path has it; None for the newest or that of a label.
      label: of a version, or None.
      method: `predict`, `regress`, `classify`, `metadata` or `status`.
    """

    name: str
    version: str | None
    label: str | None
    method: str


@dataclasses.dataclass(frozen=True)
class Answer:
    """The answer to a request: its status, its JSON, and further headers."""

    status: int
    content: bytes
    headers: dict[str, str] = dataclasses.field(default_factory=dict)


def question(http_method: str, path: str) -> Question | None:
    """Returns what a request asks; None if it is malformed.

    Args:
      http_method: as GET.
      path: what comes after /v1/models/.
    """
    found = _PATH.fullmatch(path)
    if found is None or (http_method == "POST") != bool(found["method"]):
        return None
    method = (found["method"] or ("metadata" if found["metadata"] else "status")).lower()
    return Question(found["name"], found["version"], found["label"], method)


def to_json(content: Any) -> bytes:
    """Returns JSON in which NaN is a number, as in TF Serving."""
    return json.dumps(content).encode()


class ModelsApi:
    """Answers requests under /v1/models/.

    Args:
      service: that answers.
    """

    def __init__(self, service: Inference):
        self._service = service

    async def answer(self, asked: Question, headers: Mapping[str, str], peer: str, body: _Body) -> Answer:
        """Answers a request whose headers arrived; what goes wrong is an answer too.

        Args:
          asked: what it asks.
          headers: with their names in lower case.
          peer: the address of the client.
          body: returns the body, whose memory it counts.
        """
        further: dict[str, str] = {}
        trace = traceparent(headers.get(TRACEPARENT))
        try:
            with self._service.request("rest", asked.method) as call:
                call.traceparent, call.peer = trace, peer
                further[REQUEST_ID] = call.identity = request_id(headers.get(REQUEST_ID))
                status, content = 200, await self._content(asked, headers, body, call)
        except ServingError as e:
            status, content = e.status, to_json({"error": answers.error_text(e)})
            if isinstance(e, Overloaded):
                further["Retry-After"] = "1"
        except Exception:
            logging.exception("REST %s failed", asked.method)
            status, content = 500, to_json({"error": "internal error; the server's log has it"})
        if trace:
            further[TRACEPARENT] = trace
        return Answer(status, content, further)

    async def _content(self, asked: Question, headers: Mapping[str, str], read: _Body, call: Call) -> bytes:
        number = version_number(asked.version) if asked.version else None
        if asked.version and number is None:
            raise InvalidRequest(f"Failed to convert version: {asked.version[:40]} to numeric.")
        if asked.method == "status":
            return to_json(answers.to_json(answers.status(self._service.models, asked.name, number, asked.label)))
        if asked.method == "metadata":
            model, chosen = self._service.choose(call, asked.name, number, asked.label)
            return to_json(answers.metadata_json(model.name, chosen))
        call.model = self._service.model(asked.name).name  # an unknown one is refused before its body is read
        received = await read(call)
        call.begin()
        data = await self._decoded(received, headers.get("content-encoding", ""), call)
        _, chosen = self._service.choose(call, asked.name, number, asked.label)
        with chosen.in_use() as version:
            name, inputs, by_rows = await self._inputs(version, asked.method, data, call)
            outputs = await self._service.run(version, name, inputs, call)
            size = sum(array.nbytes for array in outputs.values())
            return await self._service.off_loop(size, _encoded, asked.method, outputs, by_rows)

    async def _decoded(self, body: bytes | bytearray, encoding: str, call: Call) -> bytes | bytearray:
        most = self._service.options.max_request_bytes
        if encoding.lower() in ("", "identity"):
            return body
        with call.holding(most_inflated(body, most)):
            decoded = await self._service.off_loop(most, decode, body, encoding, most)
        call.take(len(decoded))
        return decoded

    async def _inputs(
        self, version: ServedVersion, method: str, data: bytes | bytearray, call: Call
    ) -> tuple[str, Inputs, bool]:
        """Returns the signature, its inputs, whose memory is counted, and whether the answer is by rows."""
        off_loop, limits = self._service.off_loop, self._service.options.limits
        size = await off_loop(len(data), json_bodies.memory_of_values, data)
        if method == "predict":
            with call.holding(size):
                name, inputs, by_rows = await off_loop(len(data), _predict_inputs, version, data, limits)
            call.take(inputs.size)
            return name, inputs, by_rows
        with call.holding(size):
            name, input_ = await off_loop(len(data), _examples, data)
        return name, await self._service.example_inputs(version, method, name, input_, call), True


def _predict_inputs(version: ServedVersion, data: bytes | bytearray, limits: Limits) -> tuple[str, Inputs, bool]:
    body = json_bodies.parse_quickly(data)
    name = _signature_name(body)
    signature, plan = version.signature(name), version.row_plan(name, limits)
    if plan and "inputs" not in body:
        found = plan.read(body.get("instances"))
        if found:
            return name, found, True
    if json_bodies.has_long_digits(data):
        body = json_bodies.parse(data)
    arrays, by_rows = json_tensors.predict_inputs(body, signature)
    return name, Inputs(arrays, sum(map(memory, arrays.values()))), by_rows


def _examples(data: bytes | bytearray) -> tuple[str, Any]:
    body = json_bodies.parse(data)
    return _signature_name(body), json_examples.examples(body)


def _encoded(method: str, outputs: Mapping[str, np.ndarray], by_rows: bool) -> bytes:
    if method == "predict":
        return to_json(json_tensors.predict_answer(outputs, by_rows))
    if method == "regress":
        return to_json({"results": outputs["outputs"].ravel().tolist()})
    return to_json({"results": [[[label, score] for label, score in row] for row in answers.classes(outputs)]})


def _signature_name(body: dict[str, Any]) -> str:
    name = body.get("signature_name") or DEFAULT_SIGNATURE
    if not isinstance(name, str):
        raise InvalidRequest("not formatted correctly. 'signature_name' key must be a string value.")
    return name
