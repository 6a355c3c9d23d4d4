"""The configuration of matrix factorization."""

import dataclasses
from typing import ClassVar

from tfrs_dlrm.config.field_checks import refuse
from tfrs_dlrm.config.models import cost
from tfrs_dlrm.config.models.base import ModelConfig
from tfrs_dlrm.config.models.cost import DenseCost
from tfrs_dlrm.schema import Schema


@dataclasses.dataclass
class MatrixFactorizationConfig(ModelConfig):
    """See `tfrs_dlrm.models.matrix_factorization.MatrixFactorization`.

    Attributes:
      user: the name of one categorical feature.
      item: the name of the other.
    """

    keras_class: ClassVar[str] = "tfrs_dlrm.models.matrix_factorization:MatrixFactorization"
    linear_weights: ClassVar[bool] = True
    one_dimension: ClassVar[bool] = True

    name: str = dataclasses.field(default="matrix_factorization", init=False)
    _: dataclasses.KW_ONLY
    user: str = "user"
    item: str = "item"

    def check(self) -> None:
        """Checks the features too."""
        super().check()
        if self.user == self.item:
            refuse("model.item", self.item, "it is model.user too; name another feature")

    def features(self, data: Schema) -> list[str]:
        """Returns the two features."""
        names = [f.name for f in data.categorical]
        for field, feature in (("user", self.user), ("item", self.item)):
            if feature not in names:
                refuse(f"model.{field}", feature, f"name a categorical feature; there are {', '.join(names)}")
        return [self.user, self.item]

    def layer_cost(self, schema: Schema) -> DenseCost:
        """Counts the dot product and the sum of the biases."""
        dim = max(cost.vector_dims(schema)) - 1
        return DenseCost(weights=1, flops=2 * dim + 3, activations=dim + 4)
