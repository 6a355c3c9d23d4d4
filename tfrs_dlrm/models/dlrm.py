"""DLRM (Naumov et al. 2019, arXiv 1906.00091)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfrs_dlrm.layers.dot_interaction import DotInteraction
from tfrs_dlrm.layers.hashing import derive_seed
from tfrs_dlrm.layers.mlp import MLP
from tfrs_dlrm.models.dlrm_serving import DLRMCandidateScorer, DLRMRowScorer, ServedLayers
from tfrs_dlrm.models.model_inputs import check_no_sequences, check_top_mlp, looked_up
from tfrs_dlrm.models.ranking import RankingModel
from tfrs_dlrm.models.scorers import CandidateScorer, RowScorer
from tfrs_dlrm.schema import Schema


@keras.utils.register_keras_serializable(package="tfrs_dlrm")
class DLRM(RankingModel):
    """Embeddings and a bottom MLP, the dot products between them, a top MLP.

        logit
          top MLP
            concat: bottom vector [B, D], dot products [B, P]
              dot interaction of F vectors [B, D], P = F (F - 1) / 2
                bottom MLP    embedding ... embedding
                  dense          C1            Cn

    Without dense features there is no bottom MLP, and the dot products are all that the top MLP sees.

    D is the last number of the bottom MLP; without one, the largest dimension among the tables. The vectors of tables
    of another dimension are projected to D by a matrix for each table (Ginart et al. 2019, "Mixed Dimension
    Embeddings", arXiv 1909.11810).

    With the `interaction` "cat", which the reference has beside "dot", the top MLP sees all vectors side by side, and
    no products: [B, F D]. The tables and the bottom MLP may have any dimensions then, and nothing is projected.

    Args:
      schema: of the features; none may be a sequence.
      bottom_mlp: outputs of the bottom MLP's layers, ReLU after each; the last is D. Unused without dense features.
      top_mlp: outputs of the top MLP's layers, ReLU after each but the last, which is the logit: 1. Several labels
        share all layers but the last, which has an output for each ("shared bottom", Caruana 1997, "Multitask
        Learning").
      self_interaction: whether the dot products of the vectors with themselves are in; then P = F (F + 1) / 2.
      seed: makes all initial weights a function of it.
      interaction: `dot` or `cat`.
      dropout: the share of the hidden outputs of both MLPs that training drops.
      batch_norm: whether the hidden layers of both MLPs are normalized.

    Raises:
      ValueError: the MLPs end in other numbers than they should, a feature is a sequence, or fewer than two vectors
        would interact.
    """

    def __init__(
        self,
        schema: Schema,
        bottom_mlp: Sequence[int] = (512, 256, 16),
        top_mlp: Sequence[int] = (512, 256, 1),
        self_interaction: bool = False,
        seed: int = 0,
        interaction: str = "dot",
        dropout: float = 0.0,
        batch_norm: bool = False,
        **kwargs: Any,
    ) -> None:
        _check(schema, bottom_mlp, top_mlp, interaction, self_interaction)
        super().__init__(schema, seed, **kwargs)
        if schema.dense:
            self.bottom_mlp = MLP(
                bottom_mlp,
                final_activation="relu",
                seed=derive_seed(seed, "bottom_mlp"),
                dropout=dropout,
                batch_norm=batch_norm,
                name="bottom_mlp",
            )
        self._table_of = {f.name: f.table for f in schema.categorical}
        self.dim = bottom_mlp[-1] if schema.dense else max(t.dim for t in looked_up(schema))
        self.projections = {
            t.name: keras.layers.Dense(
                self.dim,
                use_bias=False,
                kernel_initializer=keras.initializers.GlorotUniform(derive_seed(seed, f"projection/{t.name}")),
                name=f"projection_{t.name}",
            )
            for t in looked_up(schema)
            if t.dim != self.dim and interaction == "dot"
        }
        self.self_interaction = self_interaction
        self.interaction = DotInteraction(self_interaction, name="interaction") if interaction == "dot" else None
        units = (*top_mlp[:-1], len(schema.labels))
        self.top_mlp = MLP(
            units, seed=derive_seed(seed, "top_mlp"), dropout=dropout, batch_norm=batch_norm, name="top_mlp"
        )

    def compute_logits(self, dense: tf.Tensor | None, embeddings: list[tf.Tensor], training: bool) -> tf.Tensor:
        """Logits [B, labels]; see the class."""
        vectors = [self.projected(f.name, v) for f, v in zip(self.schema.categorical, embeddings, strict=True)]
        bottom = [] if dense is None else [self.bottom_mlp(dense, training=training)]
        interacted = vectors if self.interaction is None else [self.interaction([*bottom, *vectors])]
        return self.top_mlp(tf.concat([*bottom, *interacted], axis=1), training=training)

    def projected(self, feature: str, vectors: tf.Tensor) -> tf.Tensor:
        """The vectors [B, dim of its table] of a feature as [B, D]."""
        table = self._table_of[feature]
        return self.projections[table](vectors) if table in self.projections else vectors

    def row_scorer(self) -> RowScorer:
        """See `RankingModel.row_scorer`."""
        if not self._is_plain() or self.self_interaction:
            return super().row_scorer()
        return DLRMRowScorer(self._served_layers())

    def candidate_scorer(self, context: Schema, candidate: Schema) -> CandidateScorer:
        """See `RankingModel.candidate_scorer`."""
        has_vector = bool(context.categorical) or (bool(context.dense) and not candidate.dense)
        if not self._is_plain() or not has_vector or not candidate.categorical:
            return super().candidate_scorer(context, candidate)
        return DLRMCandidateScorer(self._served_layers(), context, candidate)

    def _served_layers(self) -> ServedLayers:
        projections = {f: self.projections[table] for f, table in self._table_of.items() if table in self.projections}
        bottom = self.bottom_mlp if self.schema.dense else None
        return ServedLayers(self.schema, bottom, projections, self.top_mlp, self.self_interaction, self.dim)

    def _is_plain(self) -> bool:
        """Whether dot products in float32 go into a plain top MLP: no subclass overrides `compute_logits`."""
        known = (
            type(self).compute_logits is DLRM.compute_logits
            and self.interaction is not None
            and not self.top_mlp.batch_norm
        )
        return known and self.compute_dtype == "float32"

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor, the schema as JSON."""
        bottom = {"bottom_mlp": list(self.bottom_mlp.units)} if self.schema.dense else {}
        return (
            super().get_config()
            | bottom
            | {
                "top_mlp": [*self.top_mlp.units[:-1], 1],
                "self_interaction": self.self_interaction,
                "interaction": "cat" if self.interaction is None else "dot",
                "dropout": self.top_mlp.dropout,
                "batch_norm": self.top_mlp.batch_norm,
            }
        )


def _check(
    schema: Schema, bottom_mlp: Sequence[int], top_mlp: Sequence[int], interaction: str, self_interaction: bool
) -> None:
    check_no_sequences("DLRM", schema)
    check_top_mlp(top_mlp)
    if interaction not in ("dot", "cat") or (interaction == "cat" and self_interaction):
        raise ValueError(
            f"interaction={interaction!r}, self_interaction={self_interaction}: choose dot, with or without"
            " self_interaction, or cat without it"
        )
    vectors = len(schema.categorical) + bool(schema.dense)
    if vectors < 2:
        raise ValueError(
            f"{vectors} vector has nothing to interact with; DLRM needs two categorical features, or one and dense ones"
        )
    dims = {t.dim for t in looked_up(schema)}
    ends_elsewhere = not bottom_mlp or (interaction == "dot" and bottom_mlp[-1] not in dims and len(dims) == 1)
    if schema.dense and ends_elsewhere:
        raise ValueError(
            f"bottom_mlp={list(bottom_mlp)} must end in {max(dims)}, the dimension of the tables; change its last"
            " number, or the tables by Schema.with_dim"
        )
