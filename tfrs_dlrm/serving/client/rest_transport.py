"""Asks TF Serving's REST API, in its column format."""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import numpy as np
from google.protobuf import json_format

from tfrs_dlrm.messages import install_command
from tfrs_dlrm.serving.client.transport import ModelSpec, VersionStatus, read_status
from tfrs_dlrm.serving.protocol import REQUEST_ID, DeadlineExceeded, ServingError, Unavailable, from_status
from tfrs_dlrm.serving.runtime import protos
from tfrs_dlrm.serving.runtime.signature import Signature, read_signatures

try:
    import httpx
except ImportError as e:
    raise ImportError(f"the client needs httpx for http:// addresses: {install_command('serving')}") from e


class RestTransport:
    """The `Transport` for REST.

    Args:
      url: as `http://127.0.0.1:8501`.
      timeout: of connecting, of sending and of waiting for an answer, each in seconds.
      bearer_token: sent with each request.
      certificate: a PEM file to trust instead of the usual authorities.
    """

    def __init__(self, url: str, timeout: float, bearer_token: str | None, certificate: str | None):
        headers = {"Authorization": f"Bearer {bearer_token}"} if bearer_token else {}
        verify = ssl.create_default_context(cafile=certificate) if certificate else True
        self._http = httpx.Client(base_url=url, timeout=timeout, headers=headers, verify=verify)

    def predict(
        self,
        spec: ModelSpec,
        signature: str,
        inputs: Mapping[str, np.ndarray],
        info: Signature | None,
        request_id: str | None,
    ) -> dict[str, np.ndarray]:
        """Returns the outputs by name."""
        columns = {name: _json(array) for name, array in inputs.items()}
        outputs = self._post(spec, "predict", {"signature_name": signature, "inputs": columns}, "outputs", request_id)
        types = {name: output.dtype for name, output in info.outputs.items()} if info else {}
        if len(types) == 1 or not isinstance(outputs, dict):  # the name of a single output is left out
            outputs = {next(iter(types), "outputs"): outputs}
        return {name: _array(value, types.get(name)) for name, value in outputs.items()}

    def regress(self, spec: ModelSpec, rows: Sequence[Mapping[str, np.ndarray]], request_id: str | None) -> list[float]:
        """Returns one value per row."""
        return self._post(spec, "regress", _examples("regress", rows), "results", request_id)

    def classify(
        self, spec: ModelSpec, rows: Sequence[Mapping[str, np.ndarray]], request_id: str | None
    ) -> list[list[tuple[str, float]]]:
        """Returns the class and the score of each class, per row."""
        results = self._post(spec, "classify", _examples("classify", rows), "results", request_id)
        return [[(label, score) for label, score in row] for row in results]

    def signatures(self, spec: ModelSpec) -> dict[str, Signature]:
        """Returns the signatures by name."""
        answer = self._request("GET", f"{_path(spec)}/metadata", None)
        signature_defs = _field(answer, "metadata", "signature_def")
        return read_signatures(_message(signature_defs, protos.metadata.SignatureDefMap()).signature_def)

    def status(self, spec: ModelSpec) -> list[VersionStatus]:
        """Returns the status of the versions that the server knows."""
        answer = self._request("GET", _path(spec), None)
        return read_status(_message(answer, protos.status.GetModelStatusResponse()))

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def _post(self, spec: ModelSpec, verb: str, body: Any, field: str, request_id: str | None) -> Any:
        # A missing number is sent as NaN, which other JSON libraries do not write.
        content = json.dumps(body, ensure_ascii=False).encode()
        return _field(self._request("POST", f"{_path(spec)}:{verb}", content, request_id), field)

    def _request(self, method: str, path: str, content: bytes | None, request_id: str | None = None) -> Any:
        headers = {"Content-Type": "application/json"} if content is not None else {}
        if request_id:
            headers[REQUEST_ID] = request_id
        try:
            response = self._http.request(method, path, content=content, headers=headers)
        except httpx.TimeoutException as e:
            raise DeadlineExceeded(f"{self._http.base_url}: no answer in time: {e}") from e
        except httpx.TransportError as e:
            raise Unavailable(f"{self._http.base_url}: {e}") from e
        try:
            answer = json.loads(response.content)
        except ValueError:
            answer = response.text
        if response.status_code != 200:
            message = answer.get("error", answer) if isinstance(answer, dict) else answer
            raise from_status(response.status_code, str(message), "Retry-After" in response.headers)
        return answer


def _path(spec: ModelSpec) -> str:
    path = f"/v1/models/{quote(spec.name, safe='')}"
    if spec.version is not None:
        path += f"/versions/{spec.version}"
    return path if spec.label is None else f"{path}/labels/{quote(spec.label, safe='')}"


def _examples(signature: str, rows: Sequence[Mapping[str, np.ndarray]]) -> Any:
    examples = [{name: _json(array) for name, array in row.items()} for row in rows]
    return {"signature_name": signature, "examples": examples}


def _json(array: np.ndarray) -> Any:
    """Converts an array to nested lists; bytes that are no UTF-8 become base 64."""
    if array.dtype.kind != "O":
        return array.tolist()
    texts = np.empty(array.size, object)
    for i, value in enumerate(array.ravel().tolist()):
        try:
            texts[i] = value.decode()
        except UnicodeDecodeError:
            texts[i] = {"b64": base64.b64encode(value).decode()}
    return texts.reshape(array.shape).tolist()


def _array(value: Any, dtype: np.dtype[Any] | None) -> np.ndarray:
    if dtype is not None and dtype.kind != "O":
        return np.asarray(value, dtype)
    texts = np.asarray(value, object)
    out = np.empty(texts.size, object)
    for i, text in enumerate(texts.ravel().tolist()):
        is_base64 = isinstance(text, dict) and "b64" in text
        out[i] = base64.b64decode(text["b64"]) if is_base64 else text.encode() if isinstance(text, str) else text
    return out.reshape(texts.shape)


def _field(answer: Any, *names: str) -> Any:
    for name in names:
        if not isinstance(answer, dict) or name not in answer:
            raise ServingError(f"the server's answer has no {name!r}: {str(answer)[:200]}")
        answer = answer[name]
    return answer


def _message(answer: Any, message: Any) -> Any:
    try:
        return json_format.ParseDict(answer, message, ignore_unknown_fields=True)
    except json_format.ParseError as e:
        raise ServingError(f"the server's answer has another form than TF Serving's: {e}") from e
