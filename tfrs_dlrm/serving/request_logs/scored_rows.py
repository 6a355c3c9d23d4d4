"""The rows of a request that go into the request log: raw features, each row with its probability."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from tfrs_dlrm.serving.protocol import DEFAULT_SIGNATURE, is_rank
from tfrs_dlrm.serving.runtime import protos
from tfrs_dlrm.serving.runtime.signature import Signature, TensorInfo

_BY_OUTPUT = (DEFAULT_SIGNATURE, "serialized_examples")
_OUTPUTS = ("probability", "prediction")  # of these signatures, for the first label
_EXAMPLES = "tf.Example"


@dataclasses.dataclass(frozen=True)
class ScoredRequest:
    """A request with its answer.

    Attributes:
      identity: the id of the request.
      model: the name of the model.
      version: that answered.
      signature: that was asked.
      inputs: of the request.
      outputs: of the model.
      context: the inputs that the candidates of a request share.
      raw: the signature `serving_default` of the model.
    """

    identity: str
    model: str
    version: int
    signature: str
    inputs: Mapping[str, np.ndarray]
    outputs: Mapping[str, np.ndarray]
    context: Collection[str] = ()
    raw: Signature | None = None

    def scores(self) -> np.ndarray | None:
        """Returns the score of each row for the first label, float32 [R]; None if the request has no raw features."""
        if self.signature in _BY_OUTPUT:
            return next((self.outputs[output] for output in _OUTPUTS if output in self.outputs), None)
        if self.signature == "classify":
            return self.outputs["scores"][:, -1]
        if self.signature == "regress":
            return self.outputs["outputs"]
        return self.outputs["scores"].reshape(-1) if is_rank(self.signature) else None

    def choose(self, scores: np.ndarray, chosen: np.ndarray) -> LoggedRows:
        """Copies some rows.

        Args:
          scores: of all rows.
          chosen: int64 [R], the positions of the rows in `scores`.
        """
        if not is_rank(self.signature):
            named = self.signature == DEFAULT_SIGNATURE
            inputs = self.inputs if named else {_EXAMPLES: next(iter(self.inputs.values()))}
            return LoggedRows({key: array[chosen] for key, array in inputs.items()}, scores[chosen], chosen)
        of_candidates = next(v for key, v in self.inputs.items() if key not in self.context and key != "k")
        contexts, candidates = np.divmod(chosen, self.outputs["scores"].shape[1])
        if "indices" in self.outputs:  # the candidates that `rank_top_k` returned
            candidates = self.outputs["indices"][contexts, candidates]
        features = {
            key: array[contexts] if key in self.context else array[contexts, candidates]
            for key, array in self.inputs.items()
            if key != "k"
        }
        return LoggedRows(features, scores[chosen], contexts * of_candidates.shape[1] + candidates)


@dataclasses.dataclass(frozen=True)
class LoggedRows:
    """Some rows of one request, without a reference to the other rows.

    Attributes:
      inputs: raw features by name, [R] or [R, L]; or serialized tf.Examples [R] under one name.
      probabilities: float32 [R]; for a regression, the predictions.
      numbers: int64 [R], the rows' positions in the request: context times the number of candidates, plus candidate.
    """

    inputs: Mapping[str, np.ndarray]
    probabilities: np.ndarray
    numbers: np.ndarray

    def raw_inputs(self, raw: Signature) -> Mapping[str, np.ndarray]:
        """Returns the rows as inputs of `serving_default`; features that an Example does not have are missing."""
        if _EXAMPLES not in self.inputs:
            return self.inputs
        examples = [protos.example.Example.FromString(e).features.feature for e in self.inputs[_EXAMPLES].tolist()]
        return {name: _column(examples, name, info) for name, info in raw.inputs.items()}


def _column(examples: Sequence[Any], name: str, info: TensorInfo) -> np.ndarray:
    kind, missing = {"f": ("float_list", np.nan), "O": ("bytes_list", b"")}.get(info.dtype.kind, ("int64_list", -1))
    values = [list(getattr(e[name], kind).value) if name in e else [] for e in examples]
    rank = len(info.shape or ())
    size = info.shape[1] if info.shape and rank > 1 else 1  # None for lists of any length
    width = max([1, *map(len, values)]) if size is None else size
    column = np.full((len(values), width), missing, info.dtype)
    for row, found in enumerate(values):
        column[row, : len(found)] = found[:width]
    return column if rank > 1 else column[:, 0]
