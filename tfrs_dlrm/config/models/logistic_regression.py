"""The configuration of logistic regression."""

import dataclasses
from typing import ClassVar

from tfrs_dlrm.config.models import cost
from tfrs_dlrm.config.models.base import ModelConfig
from tfrs_dlrm.config.models.cost import DenseCost
from tfrs_dlrm.schema import Schema, weights_only


@dataclasses.dataclass
class LogisticRegressionConfig(ModelConfig):
    """See `tfrs_dlrm.models.logistic_regression.LogisticRegression`. Its tables have dimension 1, whatever is set."""

    keras_class: ClassVar[str] = "tfrs_dlrm.models.logistic_regression:LogisticRegression"

    name: str = dataclasses.field(default="logistic_regression", init=False)

    def with_table_dims(self, data: Schema) -> Schema:
        """Returns the schema with tables of dimension 1."""
        return weights_only(data)

    def layer_cost(self, schema: Schema) -> DenseCost:
        """Counts the linear terms and the bias."""
        return cost.linear_part(schema) + DenseCost(weights=1, flops=1)
