"""The configuration of factorization machines."""

import dataclasses
from typing import ClassVar

from tfrs_dlrm.config.models import cost
from tfrs_dlrm.config.models.base import ModelConfig
from tfrs_dlrm.config.models.cost import DenseCost
from tfrs_dlrm.schema import Schema


@dataclasses.dataclass
class FactorizationMachineConfig(ModelConfig):
    """See `tfrs_dlrm.models.factorization_machine.FactorizationMachine`."""

    keras_class: ClassVar[str] = "tfrs_dlrm.models.factorization_machine:FactorizationMachine"
    linear_weights: ClassVar[bool] = True
    one_dimension: ClassVar[bool] = True

    name: str = dataclasses.field(default="factorization_machine", init=False)

    def layer_cost(self, schema: Schema) -> DenseCost:
        """Counts the factorization machine and the bias."""
        return cost.factorization_machine(schema) + DenseCost(1, 1, 1)
