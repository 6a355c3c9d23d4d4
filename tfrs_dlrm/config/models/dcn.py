"""The configuration of DCN-v2."""

import dataclasses
from typing import ClassVar

from tfrs_dlrm.config.field_checks import check_at_least, check_choice
from tfrs_dlrm.config.models import cost
from tfrs_dlrm.config.models.base import DeepModelConfig, check_units
from tfrs_dlrm.config.models.cost import DenseCost
from tfrs_dlrm.schema import Schema


@dataclasses.dataclass
class DCNConfig(DeepModelConfig):
    """See `tfrs_dlrm.models.dcn.DCN`.

    Attributes:
      cross_layers: the number of layers of the cross network.
      cross_rank: the rank of its matrices; 0 for full ones.
      cross_structure: whether the MLP follows the cross network (`stacked`) or reads the same inputs (`parallel`).
      dense_mlp: units of an MLP over the dense features; if empty, they are used unchanged.
    """

    keras_class: ClassVar[str] = "tfrs_dlrm.models.dcn:DCN"

    name: str = dataclasses.field(default="dcn", init=False)
    _: dataclasses.KW_ONLY
    cross_layers: int = 3
    cross_rank: int = 0
    cross_structure: str = "stacked"
    dense_mlp: tuple[int, ...] = ()

    def check(self) -> None:
        """Checks the cross network and the dense MLP too."""
        super().check()
        check_units("dense_mlp", self.dense_mlp, may_be_empty=True)
        check_choice("model.cross_structure", self.cross_structure, ("stacked", "parallel"))
        check_at_least("model", self, cross_layers=1, cross_rank=0)

    def layer_cost(self, schema: Schema) -> DenseCost:
        """Counts dense MLP, cross network and top MLP."""
        width, dense = cost.input_width(schema), DenseCost()
        if schema.dense and self.dense_mlp:
            width += self.dense_mlp[-1] - schema.dense_width
            dense = self.mlp_cost(schema.dense_width, self.dense_mlp)
        kernel = 2 * width * self.cross_rank if self.cross_rank else width * width
        layer = DenseCost(kernel + width, 2 * kernel + 3 * width, 3 * width + self.cross_rank)
        logits = len(schema.labels) if self.cross_structure == "parallel" else 0
        logit = DenseCost(logits * width, 2 * logits * width, 2 * logits)
        return dense + layer.times(self.cross_layers) + logit + self.top_cost(width, schema)
