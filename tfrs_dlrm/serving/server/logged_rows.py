"""What of a request goes into the request log: its rows as raw features, each with its score."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tfrs_dlrm.serving import protos
from tfrs_dlrm.serving.runtime import Signature, TensorInfo
from tfrs_dlrm.serving.server.checks import is_rank

_Arrays = Mapping[str, np.ndarray]
# What signatures call the score, of a click or of a number to predict.
_SCORES = ("probability", "prediction")


class LoggedRows(NamedTuple):
    """Rows of one request.

    Attributes:
      inputs: raw features by name, [R] or [R, L].
      probabilities: float32 [R]; of a number to predict, the predictions.
      rows: int64 [R], their numbers in the request: context times the number of candidates, plus the candidate.
    """

    inputs: dict[str, np.ndarray]
    probabilities: np.ndarray
    rows: np.ndarray


def logged_rows(
    name: str, signatures: Mapping[str, Signature], inputs: _Arrays, outputs: _Arrays, context: Collection[str]
) -> LoggedRows | None:
    """The rows of a request that was answered, or None where it holds no raw features.

    Args:
      name: of the signature.
      signatures: of the model.
      inputs: of the request.
      outputs: of the model.
      context: the inputs that the candidates of a request share.
    """
    raw = signatures.get("serving_default")
    if raw is None:
        return None
    scores = next((outputs[output] for output in _SCORES if output in outputs), None)
    if name == "serving_default" and scores is not None:
        return _all(inputs, scores)
    if is_rank(name):
        return _candidates(inputs, outputs, context)
    if name == "classify":
        return _all(_parsed(inputs["inputs"], raw), outputs["scores"][:, -1])
    if name == "regress":
        return _all(_parsed(inputs["inputs"], raw), outputs["outputs"])
    if name == "serialized_examples" and scores is not None:
        return _all(_parsed(inputs["examples"], raw), scores)
    return None


def _all(inputs: _Arrays, probabilities: np.ndarray) -> LoggedRows:
    return LoggedRows(dict(inputs), probabilities, np.arange(len(probabilities)))


def _candidates(inputs: _Arrays, outputs: _Arrays, context: Collection[str]) -> LoggedRows:
    """Of `rank` all candidates, of `rank_top_k` those that were returned."""
    scores = outputs["scores"]
    own = next(array for key, array in inputs.items() if key not in context and key != "k")
    chosen = outputs["indices"] if "indices" in outputs else np.tile(np.arange(own.shape[1]), [len(scores), 1])
    contexts = np.repeat(np.arange(len(scores)), scores.shape[1])
    candidates = chosen.reshape(-1)
    features = {
        key: array[contexts] if key in context else array[contexts, candidates]
        for key, array in inputs.items()
        if key != "k"
    }
    return LoggedRows(features, scores.reshape(-1), contexts * own.shape[1] + candidates)


def _parsed(serialized: np.ndarray, raw: Signature) -> dict[str, np.ndarray]:
    """Features of tf.Examples as the arrays of `serving_default`; what an Example does not have is missing."""
    examples = [protos.example.Example.FromString(e).features.feature for e in serialized.tolist()]
    return {name: _column(examples, name, info) for name, info in raw.inputs.items()}


def _column(examples: Sequence[Any], name: str, info: TensorInfo) -> np.ndarray:
    kind, missing = {"f": ("float_list", np.nan), "O": ("bytes_list", b"")}.get(info.dtype.kind, ("int64_list", -1))
    values = [list(getattr(e[name], kind).value) if name in e else [] for e in examples]
    rank = len(info.shape or ())
    width = max([1, *map(len, values)]) if rank > 1 else 1
    column = np.full((len(values), width), missing, info.dtype)
    for row, found in enumerate(values):
        column[row, : len(found)] = found[:width]
    return column if rank > 1 else column[:, 0]
