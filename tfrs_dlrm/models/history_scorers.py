"""Histories in serving: their events become one vector before a scorer sees them, for candidates with shared work."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import tensorflow as tf

from tfrs_dlrm.embeddings.value_lists import history_lengths
from tfrs_dlrm.layers.target_attention import TargetAttention
from tfrs_dlrm.models.histories import History, weighted, whole_events, whole_target, with_events, with_pooled
from tfrs_dlrm.models.ranking import RankingModel
from tfrs_dlrm.models.scorers import CandidateScorer, Inputs, RowScorer
from tfrs_dlrm.schema import Schema
from tfrs_dlrm.schema.histories import parts_of_events


def row_scorer(model: RankingModel) -> RowScorer:
    """Returns the row scorer of a model whose inputs have the events of histories."""
    if model.reads_histories or not model.schema.histories:
        return model.row_scorer()
    return _PooledRows(model)


def candidate_scorer(model: RankingModel, context: Schema, candidate: Schema) -> CandidateScorer:
    """Returns the candidate scorer of a model whose inputs have the events of histories.

    Args:
      model: any.
      context: the part of its schema that the candidates of a request share.
      candidate: the part of its schema that differs between candidates.
    """
    if model.reads_histories or not model.schema.histories:
        return model.candidate_scorer(context, candidate)
    return _PooledCandidates(model, context, candidate)


class _PooledRows(tf.Module):
    """A `RowScorer` that pools histories, and gives the vectors to the scorer of a model."""

    def __init__(self, model: RankingModel):
        super().__init__(name="pooled_rows")
        self._schema, self._attention, self._rows = model.schema, model.history_attention or {}, model.row_scorer()

    def __call__(self, inputs: Inputs) -> tf.Tensor:
        """See `RowScorer.__call__`."""
        vectors = with_pooled(self._schema, _events(self._schema, inputs), self._attention)
        return self._rows(Inputs(inputs.dense, vectors))


class _PooledCandidates(tf.Module):
    """A `CandidateScorer` that pools histories, and gives their vectors to the scorer of a model.

    A history of the context that is weighed by a feature of the candidates has a vector for each candidate. Its events
    are looked up once for each context, and what the attention computes of an event alone is computed once.
    """

    def __init__(self, model: RankingModel, context: Schema, candidate: Schema):
        super().__init__(name="pooled_candidates")
        self._schema, self._context, self._candidate = model.schema, context, candidate
        self._attention: Mapping[str, TargetAttention] = model.history_attention or {}
        own = {f.name for f in candidate.categorical}
        # By history, the parts of its events, if the weights differ between candidates.
        self._weighed = {
            name: parts
            for name, parts in parts_of_events(model.schema.categorical).items()
            if name in self._attention and (name in own or any(f.history_of in own for f in parts))
        }
        weighed = {f.name for parts in self._weighed.values() for f in parts}
        self._rest_of_context = _without(context, weighed)
        self._rest_of_candidate = _without(candidate, weighed)
        numbers = {f.name for f in candidate.dense}
        together = model.schema.select(weighed | own | numbers)
        self._order = [f.name for f in together.categorical]
        self._candidates = model.candidate_scorer(self._rest_of_context, together)

    def __call__(self, context: Inputs, candidate: Inputs, count: tf.Tensor) -> tf.Tensor:
        """See `CandidateScorer.__call__`."""
        shared, own = _by_name(self._context, context), _by_name(self._candidate, candidate)
        found = dict(zip(_names(self._rest_of_candidate), self._pooled(self._rest_of_candidate, own), strict=True))
        for name in self._weighed:
            found |= self._weigh(name, shared, own, count)
        return self._candidates(
            Inputs(context.dense, self._pooled(self._rest_of_context, shared)),
            Inputs(candidate.dense, [found[name] for name in self._order]),
            count,
        )

    def _pooled(self, part: Schema, vectors: Mapping[str, tf.Tensor | History]) -> list[tf.Tensor]:
        """Returns the vectors of the features of a part, whose histories it pools without the rest of the schema."""
        attention = {name: layer for name, layer in self._attention.items() if name in _names(part)}
        return with_pooled(part, [vectors[name] for name in _names(part)], attention)

    def _weigh(
        self, name: str, shared: Mapping[str, Any], own: Mapping[str, Any], count: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Returns the vectors [C * N, dim] of a history and its parallel lists for each candidate."""
        parts, layer = self._weighed[name], self._attention[name]
        of_targets = {f.history_of for f in parts}
        targets = {t: own[t] if t in own else tf.repeat(shared[t], count, axis=0) for t in of_targets}
        target = whole_target(self._schema, parts, targets)
        if name in own:  # its events differ too
            events = whole_events(self._schema, parts, own)
            weights = layer([events.vectors, target, events.present])
            return {f.name: weighted(weights, own[f.name].vectors) for f in parts}
        events = whole_events(self._schema, parts, shared)
        by_context = tf.reshape(target, [tf.shape(events.vectors)[0], count, target.shape[1]])
        weights = layer.of_candidates(events.vectors, by_context, events.present)  # [C, L, N]
        found = {}
        for f in parts:
            vectors = shared[f.name].vectors
            sums = tf.matmul(tf.cast(weights, vectors.dtype), vectors, transpose_a=True)  # [C, N, dim]
            found[f.name] = tf.reshape(sums, [-1, vectors.shape[2]])
        return found


def _without(part: Schema, names: Collection[str]) -> Schema:
    return part.select({*(f.name for f in part.dense), *_names(part)} - set(names))


def _names(part: Schema) -> list[str]:
    return [f.name for f in part.categorical]


def _events(part: Schema, inputs: Inputs) -> list[tf.Tensor | History]:
    """Returns the vectors of features, those of histories as `History`."""
    return with_events(part, inputs.one_by_one(), history_lengths(part, inputs.lengths))


def _by_name(part: Schema, inputs: Inputs) -> dict[str, tf.Tensor | History]:
    return dict(zip(_names(part), _events(part, inputs), strict=True))
