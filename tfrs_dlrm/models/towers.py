"""What labels share in models with a top MLP: its hidden layers, or experts that each label mixes in its own way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import tf_keras as keras

from tfrs_dlrm.layers.hashing import derive_seed
from tfrs_dlrm.layers.mixture_of_experts import MixtureOfExperts
from tfrs_dlrm.layers.mlp import MLP
from tfrs_dlrm.layers.progressive_extraction import ProgressiveExtraction
from tfrs_dlrm.layers.task_towers import TaskTowers
from tfrs_dlrm.messages.arguments import Count
from tfrs_dlrm.models.ranking import RankingModel
from tfrs_dlrm.schema import Schema, check_schema

Sharing = Literal["shared_bottom", "towers", "mmoe", "ple"]


class TowerModel(RankingModel):
    """A model that ends in a top MLP, and may give each of several labels a top MLP behind experts.

        shared_bottom   all labels share the top MLP but its last layer (Caruana 1997, "Multitask Learning")
        towers          labels share what the top MLP reads, and each has a top MLP (Ma et al. 2018, arXiv 1804.07931)
        mmoe            experts, which each label mixes by its own gate, then a top MLP for each label
        ple             levels of experts, shared ones and those of each label, then a top MLP for each label

    See `tfrs_dlrm.layers.MixtureOfExperts` (Ma et al. 2018, KDD) and `ProgressiveExtraction` (Tang et al. 2020,
    RecSys). The experts read what the shared top MLP reads.

    Args:
      schema: of the encoded batches.
      seed: determines all initial weights.
      sharing: `shared_bottom`, `towers`, `mmoe` or `ple`.
      experts: the number of shared experts: all of `mmoe`, and those of each level of `ple`.
      task_experts: the number of experts of each label in each level of `ple`.
      expert_mlp: outputs of the layers of an expert, with ReLU after each.
      expert_levels: the number of levels of `ple`.
      **kwargs: arguments of `RankingModel`.

    Raises:
      ValueError: `sharing` is unknown, or the schema has one label and it is not `shared_bottom`.
    """

    def __init__(
        self,
        schema: Schema,
        seed: int = 0,
        sharing: Sharing = "shared_bottom",
        experts: Count = 4,
        task_experts: Count = 2,
        expert_mlp: Sequence[Count] = (256,),
        expert_levels: Count = 2,
        **kwargs: Any,
    ) -> None:
        check_schema(type(self).__name__, schema)
        check_sharing(sharing, schema)
        super().__init__(schema, seed, **kwargs)
        self.sharing = sharing
        self.experts, self.task_experts = experts, task_experts
        self.expert_mlp, self.expert_levels = tuple(expert_mlp), expert_levels

    def make_top_mlp(
        self, units: Sequence[int], dropout: float, batch_norm: bool, kind: type[MLP] = MLP
    ) -> MLP | TaskTowers:
        """Makes the layer `top_mlp`, [B, n] -> [B, L]: an MLP, or a top MLP for each label, also behind experts."""
        if self.sharing == "shared_bottom":
            return super().make_top_mlp(units, dropout, batch_norm, kind)
        seed = derive_seed(self.seed, "top_mlp")
        towers = TaskTowers(
            self._make_experts(derive_seed(seed, "experts"), dropout, batch_norm),
            units,
            self.label_tasks.first_outputs,
            seed,
            dropout,
            batch_norm,
            dtype=self.dtype_policy,
            name="top_mlp",
        )
        self._output_bias = lambda: towers.towers.biases[-1]
        return towers

    def _make_experts(self, seed: int, dropout: float, batch_norm: bool) -> keras.layers.Layer | None:
        if self.sharing == "towers":
            return None
        common: dict[str, Any] = {"seed": seed, "dropout": dropout, "batch_norm": batch_norm}
        common |= {"dtype": self.dtype_policy, "name": "experts", "tasks": len(self.schema.labels)}
        if self.sharing == "mmoe":
            return MixtureOfExperts(self.expert_mlp, self.experts, **common)
        return ProgressiveExtraction(
            self.expert_mlp, self.task_experts, self.experts, levels=self.expert_levels, **common
        )

    def get_config(self) -> dict[str, Any]:
        """See `RankingModel.get_config`."""
        return super().get_config() | {
            "sharing": self.sharing,
            "experts": self.experts,
            "task_experts": self.task_experts,
            "expert_mlp": list(self.expert_mlp),
            "expert_levels": self.expert_levels,
        }


def check_sharing(sharing: str, schema: Schema) -> None:
    """Checks that labels can share in this way.

    Raises:
      ValueError: `sharing` is unknown, or is for several labels and the schema has one.
    """
    if sharing not in get_args(Sharing):
        raise ValueError(f"sharing={sharing!r}: choose {', '.join(get_args(Sharing))}")
    if sharing != "shared_bottom" and not schema.more_labels:
        raise ValueError(
            f"sharing={sharing!r} is for several labels, and the schema has one, {schema.label.column!r}; list others"
            " in more_labels, or choose shared_bottom"
        )
