"""What of a request goes into the request log: its rows as raw features, each with its probability."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tfrs_dlrm.serving.runtime import protos
from tfrs_dlrm.serving.runtime.runtime import Signature, TensorInfo
from tfrs_dlrm.serving.server.request_checks import is_rank
from tfrs_dlrm.serving.server.requests import DEFAULT_SIGNATURE

_Arrays = Mapping[str, np.ndarray]
_NAMED = (DEFAULT_SIGNATURE, "serialized_examples")
# What these call the score, of a click or of a number to predict.
_OUTPUTS = ("probability", "prediction")
EXAMPLES = "tf.Example"


class LoggedRows(NamedTuple):
    """Some rows of one request. Nothing of the other rows is kept.

    Attributes:
      inputs: raw features by name, [R] or [R, L]; or, under `EXAMPLES` alone, serialized tf.Examples [R].
      probabilities: float32 [R]; of a number to predict, the predictions.
      rows: int64 [R], their numbers in the request: context times the number of candidates, plus the candidate.
    """

    inputs: dict[str, np.ndarray]
    probabilities: np.ndarray
    rows: np.ndarray


def scores(name: str, outputs: _Arrays) -> np.ndarray | None:
    """The score of each row for the first label, float32 [R]; None where the request holds no raw features."""
    if name in _NAMED:
        return next((outputs[output] for output in _OUTPUTS if output in outputs), None)
    if name == "classify":
        return outputs["scores"][:, -1]
    if name == "regress":
        return outputs["outputs"]
    return outputs["scores"].reshape(-1) if is_rank(name) else None


def logged_rows(
    name: str,
    inputs: _Arrays,
    outputs: _Arrays,
    context: Collection[str],
    found: np.ndarray,
    chosen: np.ndarray,
) -> LoggedRows:
    """Some of the rows of a request.

    Args:
      name: of the signature.
      inputs: of the request.
      outputs: of the model.
      context: the inputs that the candidates of a request share.
      found: its `scores`.
      chosen: int64 [R], the numbers of the rows among these.
    """
    if not is_rank(name):
        values = inputs if name == DEFAULT_SIGNATURE else {EXAMPLES: next(iter(inputs.values()))}
        return LoggedRows({key: array[chosen] for key, array in values.items()}, found[chosen], chosen)
    own = next(array for key, array in inputs.items() if key not in context and key != "k")
    contexts, candidates = np.divmod(chosen, outputs["scores"].shape[1])
    if "indices" in outputs:  # of `rank_top_k`, those that were returned
        candidates = outputs["indices"][contexts, candidates]
    features = {
        key: array[contexts] if key in context else array[contexts, candidates]
        for key, array in inputs.items()
        if key != "k"
    }
    return LoggedRows(features, found[chosen], contexts * own.shape[1] + candidates)


def parsed(serialized: np.ndarray, raw: Signature) -> dict[str, np.ndarray]:
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
