"""The configurations of models without an MLP."""

import dataclasses
from typing import ClassVar

from tfrs_dlrm.config.field_checks import refuse
from tfrs_dlrm.config.models import cost
from tfrs_dlrm.config.models.base import ModelConfig
from tfrs_dlrm.config.models.cost import DenseCost
from tfrs_dlrm.schema import Schema, weights_only


@dataclasses.dataclass
class LogisticRegressionConfig(ModelConfig):
    """The configuration of `tfrs_dlrm.models.logistic_regression.LogisticRegression`.

    Its tables always have dimension 1.
    """

    keras_class: ClassVar[str] = "tfrs_dlrm.models.logistic_regression:LogisticRegression"

    name: str = dataclasses.field(default="logistic_regression", init=False)

    def with_vector_dims(self, data: Schema) -> Schema:
        """Returns the schema with tables of dimension 1."""
        return weights_only(data)

    def layer_cost(self, schema: Schema) -> DenseCost:
        """Counts the linear terms and the bias."""
        return cost.linear_part(schema) + DenseCost(weights=1, flops=1)


@dataclasses.dataclass
class FactorizationMachineConfig(ModelConfig):
    """The configuration of `tfrs_dlrm.models.factorization_machine.FactorizationMachine`."""

    keras_class: ClassVar[str] = "tfrs_dlrm.models.factorization_machine:FactorizationMachine"
    linear_weights: ClassVar[bool] = True
    one_dimension: ClassVar[bool] = True

    name: str = dataclasses.field(default="factorization_machine", init=False)

    def layer_cost(self, schema: Schema) -> DenseCost:
        """Counts the factorization machine and the bias."""
        return cost.factorization_machine(schema) + DenseCost(1, 1, 1)


@dataclasses.dataclass
class MatrixFactorizationConfig(ModelConfig):
    """The configuration of `tfrs_dlrm.models.matrix_factorization.MatrixFactorization`.

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
            refuse("model.item", self.item, "model.user is the same feature; name another one")

    def features(self, data: Schema) -> list[str]:
        """Returns the two features."""
        names = [f.name for f in data.categorical]
        for field, feature in (("user", self.user), ("item", self.item)):
            if feature not in names:
                refuse(f"model.{field}", feature, f"name a categorical feature; the data have {', '.join(names)}")
        return [self.user, self.item]

    def layer_cost(self, schema: Schema) -> DenseCost:
        """Counts the dot product and the sum of the biases."""
        dim = max(cost.vector_dims(schema.select((self.user, self.item))))
        return DenseCost(weights=1, flops=2 * dim + 3, activations=dim + 4)
