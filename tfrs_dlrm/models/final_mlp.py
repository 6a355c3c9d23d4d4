"""FinalMLP (Mao et al. 2023, arXiv 2304.00902)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from tfrs_dlrm.layers.bilinear_fusion import BilinearFusion
from tfrs_dlrm.layers.candidate_rows import Rows, apply
from tfrs_dlrm.layers.feature_gate import FeatureGate
from tfrs_dlrm.layers.hashing import derive_seed
from tfrs_dlrm.layers.serializable import serializable
from tfrs_dlrm.messages.arguments import Count
from tfrs_dlrm.models.model_inputs import check_no_sequences, concatenated
from tfrs_dlrm.models.ranking import RankingModel
from tfrs_dlrm.schema import Schema


@serializable
class FinalMLP(RankingModel):
    """FinalMLP: two MLPs, each over its own selection of the features, multiplied at their ends.

        v = concat(v_1, ..., v_n, x)
        o_s = MLP_s(2 sigmoid(gate_s) * v)                             for the streams s = 1, 2
        logit = b + w_1 . o_1 + w_2 . o_2 + sum_h o_1h W_h o_2h        h = 1, ..., heads

    v_i is the vector of categorical feature i, and x the dense features [B, schema.unprojected_width]. gate_s, a number
    for each of v, is an MLP over the vectors and numbers of the stream's context features, for example those of the
    user in the one stream and of the item in the other. o_1h and o_2h are the h-th parts of the streams' outputs. The
    output of `compute_logits` is [B, L] for L labels.

    Differences from the paper: a stream without context has a trained gate, the same for all rows, where the paper
    feeds a trained vector through an MLP, which can say as much. The context of a gate are vectors and numbers that the
    streams read, where FuxiCTR has others for it. Dense features are used as numbers and not embedded.

    Args:
      schema: of the features; no sequences. Tables may have any dimensions.
      first_mlp: outputs of the layers of the first stream, with ReLU after each.
      second_mlp: outputs of the layers of the second stream, with ReLU after each.
      first_context: names of the features, categorical or dense, from which the gate of the first stream is computed.
      second_context: names of the features for the gate of the second stream.
      gate_mlp: outputs of the hidden layers of a gate's MLP.
      heads: into how many parts the streams' outputs are split; must divide the last number of both.
      dropout: the share of the streams' outputs that training drops after each layer, from 0 up to 1.
      batch_norm: whether the streams' layers are batch normalized.
      seed: determines all initial weights.

    Raises:
      ValueError: a feature is a sequence, a context names no feature of the schema, a stream has no layers, or `heads`
        does not divide the last number of a stream.
    """

    takes_candidate_rows = True

    def __init__(
        self,
        schema: Schema,
        first_mlp: Sequence[Count] = (400, 400, 400),
        second_mlp: Sequence[Count] = (400, 400, 400),
        first_context: Sequence[str] = (),
        second_context: Sequence[str] = (),
        gate_mlp: Sequence[Count] = (64,),
        heads: Count = 1,
        dropout: float = 0.0,
        batch_norm: bool = False,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        check_no_sequences("FinalMLP", schema)
        _check_streams(first_mlp, second_mlp, heads)
        places = [_places(schema, names) for names in (first_context, second_context)]
        super().__init__(schema, seed, **kwargs)
        self.contexts = tuple(first_context), tuple(second_context)
        self._places = places
        self.gates = [self._gate(name, gate_mlp) for name in ("first_gate", "second_gate")]
        self.streams = [
            self.make_mlp(name, units, dropout, batch_norm, all_hidden=True)
            for name, units in (("first_mlp", first_mlp), ("second_mlp", second_mlp))
        ]
        self.fusion = BilinearFusion(
            len(schema.labels), heads, derive_seed(seed, "fusion"), dtype=self.dtype_policy, name="fusion"
        )
        self.top_mlp = self.make_top_mlp((1,), 0.0, False)

    def _gate(self, name: str, units: Sequence[int]) -> FeatureGate:
        return FeatureGate(units, derive_seed(self.seed, name), dtype=self.dtype_policy, name=name)

    def compute_logits(self, dense: tf.Tensor | None, embeddings: list[tf.Tensor], training: bool) -> tf.Tensor:
        """Computes logits [B, L]; see `RankingModel.compute_logits`."""
        inputs = concatenated(dense, embeddings)
        outputs = []
        for places, gate, stream in zip(self._places, self.gates, self.streams, strict=True):
            read = _read(dense, embeddings, places)
            outputs.append(stream(gate([inputs, concatenated(None, read)] if read else inputs), training=training))
        return self.fusion(outputs) + self.top_mlp(tf.concat(outputs, axis=1))

    def get_config(self) -> dict[str, Any]:
        """See `RankingModel.get_config`."""
        first, second = self.streams
        return super().get_config() | {
            "first_mlp": list(first.units),
            "second_mlp": list(second.units),
            "first_context": list(self.contexts[0]),
            "second_context": list(self.contexts[1]),
            "gate_mlp": list(self.gates[0].units),
            "heads": self.fusion.heads,
            "dropout": first.dropout,
            "batch_norm": first.batch_norm,
        }


class _Places(NamedTuple):
    """Where the features are that a gate reads: among the vectors, and from where to where in the numbers."""

    vectors: list[int]
    numbers: list[tuple[int, int]]


def _read(dense: Rows | None, embeddings: Sequence[Rows], places: _Places) -> list[Rows]:
    """Returns the vectors and numbers of a gate's features, in the dtype of vectors."""
    vectors = [embeddings[i] for i in places.vectors]
    if dense is None or not places.numbers:
        return vectors
    dtype = embeddings[0].dtype if embeddings else dense.dtype
    return [*vectors, *(apply(lambda x: tf.cast(x, dtype), dense[:, begin:end]) for begin, end in places.numbers)]


def _places(schema: Schema, context: Sequence[str]) -> _Places:
    """Returns where the features of a gate are.

    Raises:
      ValueError: the schema lacks one.
    """
    vectors = {f.name: i for i, f in enumerate([*schema.categorical, *schema.projected])}
    numbers, end = {}, 0
    for f in schema.dense:
        if not f.projected:
            begin, end = end, end + len(f.encoded_columns)
            numbers[f.name] = (begin, end)
    for name in context:
        if name not in vectors and name not in numbers:
            raise ValueError(
                f"{name!r} is in the context of a gate of FinalMLP, and no feature; the schema has"
                f" {', '.join([*vectors, *numbers])}"
            )
    return _Places([vectors[n] for n in context if n in vectors], [numbers[n] for n in context if n in numbers])


def _check_streams(first: Sequence[int], second: Sequence[int], heads: int) -> None:
    for field, units in (("first_mlp", first), ("second_mlp", second)):
        if not units or units[-1] % heads:
            raise ValueError(
                f"{field}={list(units)}, heads={heads}: at least one layer is needed, and heads has to divide its last"
                " number"
            )
