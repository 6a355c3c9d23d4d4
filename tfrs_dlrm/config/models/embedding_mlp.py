"""The configuration of a plain MLP over all features."""

import dataclasses
from typing import ClassVar

from tfrs_dlrm.config.models import cost
from tfrs_dlrm.config.models.base import DeepModelConfig
from tfrs_dlrm.config.models.cost import DenseCost
from tfrs_dlrm.schema import Schema


@dataclasses.dataclass
class MLPConfig(DeepModelConfig):
    """See `tfrs_dlrm.models.embedding_mlp.EmbeddingMLP`."""

    keras_class: ClassVar[str] = "tfrs_dlrm.models.embedding_mlp:EmbeddingMLP"

    name: str = dataclasses.field(default="mlp", init=False)

    def layer_cost(self, schema: Schema) -> DenseCost:
        """Counts the MLP."""
        return self.top_cost(cost.input_width(schema), schema)
