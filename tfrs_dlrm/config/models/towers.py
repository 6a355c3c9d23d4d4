"""The base class of configurations of models that end in a top MLP, and may have one for each label behind experts."""

import dataclasses

from tfrs_dlrm.config.field_checks import check_at_least, check_choice, refuse
from tfrs_dlrm.config.models import cost
from tfrs_dlrm.config.models.base import DeepModelConfig, check_units
from tfrs_dlrm.config.models.cost import DenseCost
from tfrs_dlrm.schema import Schema


@dataclasses.dataclass
class TowerModelConfig(DeepModelConfig):
    """The configuration of a `tfrs_dlrm.models.towers.TowerModel`.

    Attributes:
      sharing: what several labels share: `shared_bottom`, the top MLP but its last layer; `towers`, what the top MLP
        reads; `mmoe`, experts that each label mixes by its own gate; or `ple`, levels of experts, shared ones and those
        of each label. Except for the first, each label has a top MLP.
      experts: the number of shared experts: all of `mmoe`, and those of each level of `ple`.
      task_experts: the number of experts of each label in each level of `ple`.
      expert_mlp: units of the layers of an expert.
      expert_levels: the number of levels of `ple`.
    """

    _: dataclasses.KW_ONLY
    sharing: str = "shared_bottom"
    experts: int = 4
    task_experts: int = 2
    expert_mlp: tuple[int, ...] = (256,)
    expert_levels: int = 2

    def check(self) -> None:
        """Checks what labels share too."""
        super().check()
        check_choice("model.sharing", self.sharing, ("shared_bottom", "towers", "mmoe", "ple"))
        check_units("expert_mlp", self.expert_mlp)
        check_at_least("model", self, experts=1, task_experts=1, expert_levels=1)

    def features(self, data: Schema) -> list[str]:
        """Returns all features, and checks that the data have several labels if they are to share experts."""
        if self.sharing != "shared_bottom" and not data.more_labels:
            wanted = f"it is for several labels, and the data have one, {data.label.column!r}; choose shared_bottom"
            refuse("model.sharing", self.sharing, wanted)
        return super().features(data)

    def top_mlp_cost(self, inputs: int, schema: Schema) -> DenseCost:
        """Counts the top MLP, or the experts, gates and top MLPs of all labels."""
        if self.sharing == "shared_bottom":
            return super().top_mlp_cost(inputs, schema)
        labels = len(schema.labels)
        if self.sharing == "towers":
            return self.mlp_cost(inputs, self.top_mlp).times(labels)
        towers = self.mlp_cost(self.expert_mlp[-1], self.top_mlp).times(labels)
        return towers + (self._mmoe_cost if self.sharing == "mmoe" else self._ple_cost)(inputs, labels)

    def _mmoe_cost(self, inputs: int, labels: int) -> DenseCost:
        experts = self.mlp_cost(inputs, self.expert_mlp, all_hidden=True).times(self.experts)
        return experts + cost.mixture(inputs, self.experts, self.expert_mlp[-1]).times(labels)

    def _ple_cost(self, inputs: int, labels: int) -> DenseCost:
        total, width, before = DenseCost(), self.expert_mlp[-1], inputs
        own, every = self.task_experts + self.experts, labels * self.task_experts + self.experts
        for level in range(self.expert_levels):
            total += self.mlp_cost(before, self.expert_mlp, all_hidden=True).times(every)
            total += cost.mixture(before, own, width).times(labels)
            if level < self.expert_levels - 1:
                total += cost.mixture(before, every, width)
            before = width
        return total
