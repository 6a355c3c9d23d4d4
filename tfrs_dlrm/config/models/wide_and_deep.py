"""The configuration of Wide & Deep."""

import dataclasses
from typing import ClassVar

from tfrs_dlrm.config.models import cost
from tfrs_dlrm.config.models.base import DeepModelConfig
from tfrs_dlrm.config.models.cost import DenseCost
from tfrs_dlrm.schema import Schema


@dataclasses.dataclass
class WideAndDeepConfig(DeepModelConfig):
    """See `tfrs_dlrm.models.wide_and_deep.WideAndDeep`."""

    keras_class: ClassVar[str] = "tfrs_dlrm.models.wide_and_deep:WideAndDeep"
    linear_weights: ClassVar[bool] = True

    name: str = dataclasses.field(default="wide_and_deep", init=False)

    def layer_cost(self, schema: Schema) -> DenseCost:
        """Counts the linear terms and the MLP over all vectors, which are one shorter than the rows."""
        return cost.linear_part(schema) + self.top_cost(cost.input_width(schema) - len(schema.categorical), schema)
