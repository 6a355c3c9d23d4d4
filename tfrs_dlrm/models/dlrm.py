"""DLRM (Naumov et al. 2019, arXiv 1906.00091)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfrs_dlrm.layers.auto_dis import AutoDis
from tfrs_dlrm.layers.candidate_rows import concatenate
from tfrs_dlrm.layers.dot_interaction import DotInteraction
from tfrs_dlrm.layers.hashing import derive_seed
from tfrs_dlrm.layers.mlp import Dense
from tfrs_dlrm.layers.serializable import serializable
from tfrs_dlrm.messages.arguments import Count
from tfrs_dlrm.models.dlrm_candidates import DLRMCandidateScorer, folding_pays
from tfrs_dlrm.models.dlrm_serving import DLRMRowScorer, ServedLayers
from tfrs_dlrm.models.model_inputs import check_no_sequences, check_top_mlp, looked_up, projected_dim
from tfrs_dlrm.models.scorers import CandidateScorer, RowScorer
from tfrs_dlrm.models.towers import TowerModel
from tfrs_dlrm.schema import Schema


@serializable
class DLRM(TowerModel):
    """DLRM: dot products between embeddings and a bottom MLP's output, followed by a top MLP.

        logit [B, L]
          top MLP
            concat: bottom vector [B, D], dot products [B, P]
              dot interaction of F vectors [B, D], P = F (F - 1) / 2
                bottom MLP    embedding ... embedding
                  dense          C1            Cn

    L is the number of labels. Without dense features there is no bottom MLP, and the top MLP reads the dot products
    only.

    D is the last number of the bottom MLP, or without dense features the largest dimension of a table. The vectors of
    tables of another dimension are projected to D by a matrix per table (Ginart et al. 2019, "Mixed Dimension
    Embeddings", arXiv 1909.11810).

    With `interaction` "cat", which the paper's reference code has too, the top MLP reads all vectors concatenated, and
    no products. Tables and bottom MLP may then have any dimensions, and nothing is projected.

    With `numbers` "autodis" each dense number has a vector of its own, by soft buckets (`td.AutoDis`), in place of one
    vector of the bottom MLP. All of them interact, and the top MLP reads them concatenated where it else reads the
    bottom vector; D is then the largest dimension of a table.

    A dense feature that is `projected` is one of the interacting vectors, and not an input of the bottom MLP.

    With `linear`, the logit also has a linear term of all vectors and dense features, next to the top MLP:
    sum_i u_i . v_i + u . x. Values that are too rare for their products are learned by it.

    Args:
      schema: of the features; no sequences.
      bottom_mlp: outputs of the bottom MLP's layers, with ReLU after each; the last is D. Without dense features it has
        no effect.
      top_mlp: outputs of the top MLP's layers, with ReLU after each but the last, which must be 1. Several labels share
        all layers but the last, which has an output per label, unless `sharing` says otherwise.
      self_interaction: whether to include the dot product of each vector with itself; then P = F (F + 1) / 2.
      seed: determines all initial weights.
      interaction: `dot` or `cat`.
      dropout: the share of both MLPs' hidden outputs that training drops, from 0 up to 1.
      batch_norm: whether both MLPs' hidden layers are batch normalized.
      numbers: what the dense features become: `mlp` or `autodis`.
      linear: whether the logit has a linear term.
      **kwargs: arguments of `TowerModel`, such as `sharing`: what several labels share.

    Raises:
      ValueError: an MLP ends in a wrong number, a feature is a sequence, fewer than two vectors would interact, or
        `interaction` or `numbers` is unknown or does not fit the others.
    """

    takes_candidate_rows = True

    def __init__(
        self,
        schema: Schema,
        bottom_mlp: Sequence[Count] = (512, 256, 16),
        top_mlp: Sequence[Count] = (512, 256, 1),
        self_interaction: bool = False,
        seed: int = 0,
        interaction: str = "dot",
        dropout: float = 0.0,
        batch_norm: bool = False,
        numbers: str = "mlp",
        linear: bool = False,
        **kwargs: Any,
    ) -> None:
        _check(schema, bottom_mlp, top_mlp, interaction, self_interaction, numbers)
        # The projections, which `RankingModel` makes, need D.
        self.numbers, self._has_bottom_mlp = numbers, bool(schema.unprojected_width) and numbers == "mlp"
        self.dim = bottom_mlp[-1] if self._has_bottom_mlp else projected_dim(schema)
        super().__init__(schema, seed, **kwargs)
        if self._has_bottom_mlp:
            self.bottom_mlp = self.make_mlp("bottom_mlp", bottom_mlp, dropout, batch_norm, final_activation="relu")
        self._table_of = {f.name: f.table for f in schema.categorical}
        if schema.unprojected_width and not self._has_bottom_mlp:
            layer_seed = derive_seed(seed, "auto_dis")
            self.auto_dis = AutoDis(self.dim, seed=layer_seed, dtype=self.dtype_policy, name="auto_dis")
        # By table. Checkpoints know them by the name `projections`.
        self.projections = {
            t.name: Dense(
                self.dim,
                use_bias=False,
                kernel_initializer=keras.initializers.GlorotUniform(derive_seed(seed, f"projection/{t.name}")),
                dtype=self.dtype_policy,
                name=f"projection_{t.name}",
            )
            for t in looked_up(schema)
            if t.dim != self.dim and interaction == "dot"
        }
        self.self_interaction = self_interaction
        self.interaction = None
        if interaction == "dot":
            self.interaction = DotInteraction(self_interaction, dtype=self.dtype_policy, name="interaction")
        self.top_mlp = self.make_top_mlp(top_mlp, dropout, batch_norm)
        self.linear = linear
        if linear:
            of_vectors = keras.initializers.GlorotNormal(derive_seed(seed, "linear"))
            self.linear_vectors = self._linear("linear_vectors", of_vectors)
            if schema.unprojected_width:
                self.linear_numbers = self._linear("linear_numbers", keras.initializers.Zeros())

    def compute_logits(self, dense: tf.Tensor | None, embeddings: list[tf.Tensor], training: bool) -> tf.Tensor:
        """Computes logits [B, L]; see `RankingModel.compute_logits`."""
        count = len(self.schema.categorical)
        of_tables = zip(self.schema.categorical, embeddings[:count], strict=True)
        vectors = [*(self._interacting(f.name, v) for f, v in of_tables), *embeddings[count:]]
        bottom = [] if dense is None else self._of_numbers(dense, training)
        interacted = vectors if self.interaction is None else [self.interaction([*bottom, *vectors])]
        logits = self.top_mlp(concatenate([*bottom, *interacted]), training=training)
        if not self.linear:
            return logits
        logits += self.linear_vectors(concatenate(vectors))
        return logits if dense is None else logits + self.linear_numbers(dense)

    def _projected_dim(self, rows: Schema) -> int:
        return self.dim

    def _linear(self, name: str, initializer: keras.initializers.Initializer) -> Dense:
        labels = len(self.schema.labels)
        return Dense(labels, use_bias=False, kernel_initializer=initializer, dtype=self.dtype_policy, name=name)

    def _of_numbers(self, dense: tf.Tensor, training: bool) -> list[tf.Tensor]:
        """Returns the vectors [B, D] of the dense features [B, W]: one, or one for each number."""
        if self._has_bottom_mlp:
            return [self.bottom_mlp(dense, training=training)]
        return tf.unstack(self.auto_dis(dense), num=self.schema.unprojected_width, axis=1)

    def _interacting(self, feature: str, vectors: tf.Tensor) -> tf.Tensor:
        """Returns the vectors [B, dim of its table] of a categorical feature as [B, D]."""
        table = self._table_of[feature]
        return self.projections[table](vectors) if table in self.projections else vectors

    def row_scorer(self) -> RowScorer:
        """See `RankingModel.row_scorer`."""
        return DLRMRowScorer(self._served_layers()) if self._is_plain() else super().row_scorer()

    def candidate_scorer(self, context: Schema, candidate: Schema) -> CandidateScorer:
        """See `RankingModel.candidate_scorer`."""
        if self._is_plain() and folding_pays(self._served_layers(), context, candidate):
            return DLRMCandidateScorer(self._served_layers(), context, candidate)
        return super().candidate_scorer(context, candidate)

    def _served_layers(self) -> ServedLayers:
        projections = {f: self.projections[table] for f, table in self._table_of.items() if table in self.projections}
        bottom = self.bottom_mlp if self.schema.dense else None
        linear = None
        if self.linear:
            linear = self.linear_vectors, self.linear_numbers if self.schema.dense else None
        return ServedLayers(self.schema, bottom, projections, self.top_mlp, self.dim, linear)

    def _is_plain(self) -> bool:
        """Returns whether `DLRMRowScorer` computes this model.

        It does for dot products of different vectors in float32, a bottom MLP and one top MLP without batch
        normalization, unless a subclass overrides `compute_logits`.
        """
        known = (
            type(self).compute_logits is DLRM.compute_logits
            and self.interaction is not None
            and not self.self_interaction
            and not self.schema.projected
            and self._has_bottom_mlp == bool(self.schema.dense)
            and not self.top_mlp.batch_norm
            and self.sharing == "shared_bottom"
        )
        return known and self.compute_dtype == "float32"

    def get_config(self) -> dict[str, Any]:
        """See `RankingModel.get_config`."""
        bottom = {"bottom_mlp": list(self.bottom_mlp.units)} if self._has_bottom_mlp else {}
        return (
            super().get_config()
            | bottom
            | {
                "top_mlp": [*self.top_mlp.units[:-1], 1],
                "self_interaction": self.self_interaction,
                "interaction": "cat" if self.interaction is None else "dot",
                "dropout": self.top_mlp.dropout,
                "batch_norm": self.top_mlp.batch_norm,
                "numbers": self.numbers,
                "linear": self.linear,
            }
        )


def _check(
    schema: Schema,
    bottom_mlp: Sequence[int],
    top_mlp: Sequence[int],
    interaction: str,
    self_interaction: bool,
    numbers: str,
) -> None:
    check_no_sequences("DLRM", schema)
    check_top_mlp(top_mlp)
    if interaction not in ("dot", "cat") or (interaction == "cat" and self_interaction):
        raise ValueError(
            f"interaction={interaction!r}, self_interaction={self_interaction}: choose dot, with or without"
            " self_interaction, or cat without it"
        )
    if numbers not in ("mlp", "autodis") or (numbers == "autodis" and not schema.categorical):
        raise ValueError(f"numbers={numbers!r}: choose mlp, or with categorical features autodis")
    vectors = len(schema.categorical) + bool(schema.unprojected_width) + len(schema.projected)
    if vectors < 2:
        raise ValueError(
            f"{vectors} vector has nothing to interact with; DLRM needs two categorical features, or one and a dense"
            " feature"
        )
    dims = {t.dim for t in looked_up(schema)}
    ends_elsewhere = not bottom_mlp or (interaction == "dot" and bottom_mlp[-1] not in dims and len(dims) == 1)
    if schema.unprojected_width and numbers == "mlp" and ends_elsewhere:
        wanted = f"{max(dims)}, the dimension of the tables" if dims else "the dimension of the vectors"
        raise ValueError(
            f"bottom_mlp={list(bottom_mlp)} must end in {wanted}; change its last number, or the tables by"
            " Schema.with_dim"
        )
