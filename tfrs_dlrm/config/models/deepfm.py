"""The configuration of DeepFM."""

import dataclasses
from typing import ClassVar

from tfrs_dlrm.config.models import cost
from tfrs_dlrm.config.models.base import DeepModelConfig
from tfrs_dlrm.config.models.cost import DenseCost
from tfrs_dlrm.schema import Schema


@dataclasses.dataclass
class DeepFMConfig(DeepModelConfig):
    """See `tfrs_dlrm.models.deepfm.DeepFM`."""

    keras_class: ClassVar[str] = "tfrs_dlrm.models.deepfm:DeepFM"
    linear_weights: ClassVar[bool] = True
    one_dimension: ClassVar[bool] = True

    name: str = dataclasses.field(default="deepfm", init=False)

    def layer_cost(self, schema: Schema) -> DenseCost:
        """Counts the factorization machine and the MLP."""
        vectors = len(schema.categorical) + schema.dense_width
        width = vectors * (max(cost.vector_dims(schema)) - 1)
        return cost.factorization_machine(schema) + self.top_cost(width, schema)
