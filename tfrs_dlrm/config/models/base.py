"""The base classes of model configurations. `ModelConfig` says how to add a model."""

import abc
import dataclasses
import importlib
from typing import Any, ClassVar, TypeVar

from tfrs_dlrm.config.field_checks import check_at_least, check_choice, refuse
from tfrs_dlrm.config.models import cost
from tfrs_dlrm.config.models.cost import DenseCost
from tfrs_dlrm.schema import Schema, with_remainders, with_shared_rows
from tfrs_dlrm.schema.histories import attended_histories, check_targets

Config = TypeVar("Config", bound="ModelConfig")


@dataclasses.dataclass
class ModelConfig(abc.ABC):
    """The description of a model: its shape, and the storage of its tables. Each model has a subclass.

    The fields that a subclass adds are the arguments of the model's Keras class. To add a model, write its Keras class
    in `tfrs_dlrm/models/`, its configuration in `deep_models`, `later_models` or `shallow_models`, and a line in
    `registry`.

    Attributes:
      name: the model's name in recipes and flags.
      embedding_dim: the dimension of every embedding vector; 0 keeps the dimensions of the schema.
      mixed_dim_temperature: if above 0, larger tables get smaller dimensions; see `Schema.with_mixed_dims`.
      remainders: if above 0, large tables are stored as quotients and this many remainders; see `Table`.
      shared_rows: if above 0, all large tables share this many rows, chosen by hashing; see `Table`.
      compress_above: a table is large if it has more rows than this.
      list_loss: trains the first label by how the rows of each group are ranked: `softmax`, `pairwise_logistic` or
        `none`; see `tfrs_dlrm.models.list_losses`.
      list_loss_weight: the share of this loss, from above 0 to 1; that of the log loss is 1 minus this.
    """

    # The Keras class, MODULE:NAME. Loading it loads TensorFlow, which takes seconds.
    keras_class: ClassVar[str]
    # Whether a table's row is a vector followed by a linear weight of the value.
    linear_weights: ClassVar[bool] = False
    # Whether all embedding vectors need the same dimension.
    one_dimension: ClassVar[bool] = False

    name: str = dataclasses.field(default="", init=False)
    embedding_dim: int = 16
    _: dataclasses.KW_ONLY
    mixed_dim_temperature: float = 0.0
    remainders: int = 0
    shared_rows: int = 0
    compress_above: int = 10_000
    list_loss: str = "none"
    list_loss_weight: float = 1.0

    def check(self) -> None:
        """Checks each field, and that the fields fit together.

        Raises:
          ValueError: a field is wrong; the message has its name, its value, and the expected values.
        """
        if self.name != type(self).name:
            wanted = (
                f"{type(self).__name__} is {type(self).name}; use as_model(config, {self.name!r}) for another model"
            )
            refuse("model.name", self.name, wanted)
        check_at_least("model", self, embedding_dim=0, mixed_dim_temperature=0, remainders=0, shared_rows=0)
        check_choice("model.list_loss", self.list_loss, ("none", "softmax", "pairwise_logistic"))
        if not 0 < self.list_loss_weight <= 1:
            refuse("model.list_loss_weight", self.list_loss_weight, "a number above 0 and at most 1 is needed")
        if self.mixed_dim_temperature:
            if self.embedding_dim < 1 or self.embedding_dim & (self.embedding_dim - 1):
                refuse("model.embedding_dim", self.embedding_dim, "mixed_dim_temperature needs a power of 2")
            if self.one_dimension:
                wanted = f"{self.name} needs vectors of one dimension; set it to 0"
                refuse("model.mixed_dim_temperature", self.mixed_dim_temperature, wanted)
        if self.remainders and self.shared_rows:
            refuse("model.shared_rows", self.shared_rows, "model.remainders is set too; choose one of the two")
        if self.remainders and not 2 <= self.remainders <= self.compress_above:
            wanted = f"a number from 2 to model.compress_above={self.compress_above} is needed"
            refuse("model.remainders", self.remainders, wanted)

    def features(self, data: Schema) -> list[str]:
        """Returns the names of the features that the model reads.

        Raises:
          ValueError: the data lack a feature.
        """
        return [*(f.name for f in data.dense), *(f.name for f in data.categorical)]

    def schema(self, data: Schema) -> Schema:
        """Returns the schema of the data, with the model's dimensions of vectors and its storage of tables.

        Raises:
          ValueError: the model does not fit the data.
        """
        if self.list_loss != "none" and not data.group:
            wanted = "the schema has no group; give it the column of the queries, sessions or users, and prepare again"
            refuse("model.list_loss", self.list_loss, wanted)
        check_targets(self.keras_class.rpartition(":")[2], data.categorical, self.compared(data))
        data = self.with_vector_dims(data)
        if self.remainders:
            return with_remainders(data, self.remainders, self.compress_above)
        return with_shared_rows(data, self.shared_rows, self.compress_above) if self.shared_rows else data

    def with_vector_dims(self, data: Schema) -> Schema:
        """Returns the schema with the dimension of each table's vectors."""
        if self.embedding_dim:
            data = data.with_dim(self.embedding_dim)
        if self.mixed_dim_temperature:
            data = data.with_mixed_dims(self.embedding_dim, self.mixed_dim_temperature)
        return data

    def table_schema(self, schema: Schema) -> Schema:
        """Returns the schema of the tables, whose rows may be longer than the vectors.

        Args:
          schema: the result of `schema`.
        """
        return schema.with_linear_weights(self.features(schema)) if self.linear_weights else schema

    def with_embedding_dim(self: Config, dim: int) -> Config:
        """Returns the configuration with another embedding dimension, and dependent fields adapted."""
        return dataclasses.replace(self, embedding_dim=dim)

    def arguments(self) -> dict[str, Any]:
        """Returns the arguments of the Keras class, except schema, seed and tables."""
        common = {f.name for f in dataclasses.fields(ModelConfig)} - {"list_loss", "list_loss_weight"}
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in common}

    def model_class(self) -> Any:
        """Loads the Keras class, a subclass of `RankingModel`."""
        module, _, name = self.keras_class.partition(":")
        return getattr(importlib.import_module(module), name)

    def build(self, schema: Schema, seed: int, embeddings: Any = None) -> Any:
        """Makes the Keras model, a `RankingModel`, not compiled.

        Args:
          schema: the result of `schema`.
          seed: for the initial weights.
          embeddings: existing tables; see `RankingModel`.
        """
        return self.model_class()(schema, seed=seed, embeddings=embeddings, **self.arguments())

    def dense_cost(self, schema: Schema) -> DenseCost:
        """Counts the weights and the arithmetic of all layers except the tables.

        Args:
          schema: the result of `schema`.
        """
        tables = self.table_schema(schema)
        lookups = cost.concatenation(sum(cost.vector_dims(tables)))  # each writes once
        lookups += self.history_cost(schema, tables)
        if not schema.select(self.features(schema)).projected:
            return lookups + self.layer_cost(schema)
        return lookups + cost.projections(schema, self.projected_dim(schema)) + self.layer_cost(schema)

    def projected_dim(self, schema: Schema) -> int:
        """Returns how many numbers the projection of a dense vector has."""
        return max(cost.vector_dims(self.table_schema(schema)))

    def history_cost(self, schema: Schema, tables: Schema) -> DenseCost:
        """Counts what makes one vector of the events of each history; `tables` is the result of `table_schema`."""
        return cost.pooled_histories(tables) + cost.target_attention(schema, self.compared(schema))

    def compared(self, schema: Schema) -> list[str]:
        """Returns the histories whose events the model compares with the feature whose values they list."""
        return attended_histories(schema.categorical, self.features(schema))

    @abc.abstractmethod
    def layer_cost(self, schema: Schema) -> DenseCost:
        """Counts the model's layers, without the vectors written by lookups."""


@dataclasses.dataclass
class HiddenLayersConfig(ModelConfig):
    """A model with MLPs.

    Attributes:
      dropout: the share of the MLPs' hidden outputs that training drops.
      batch_norm: whether the MLPs' hidden layers are normalized.
      loss_weights: of several labels: `fixed`, the `loss_weight` of each; or `uncertainty`, which also learns a factor
        for each.
    """

    _: dataclasses.KW_ONLY
    dropout: float = 0.0
    batch_norm: bool = False
    loss_weights: str = "fixed"

    def check(self) -> None:
        """Checks the dropout and the weights of losses too."""
        super().check()
        check_choice("model.loss_weights", self.loss_weights, ("fixed", "uncertainty"))
        if not 0 <= self.dropout < 1:
            refuse("model.dropout", self.dropout, "a number in [0, 1) is needed, the share of hidden outputs to drop")

    def features(self, data: Schema) -> list[str]:
        """Returns all features, and checks that the data have several labels if their weights are to be learned."""
        if self.loss_weights != "fixed" and not data.more_labels:
            wanted = f"it is for several labels, and the data have one, {data.label.column!r}; choose fixed"
            refuse("model.loss_weights", self.loss_weights, wanted)
        return super().features(data)

    def dense_cost(self, schema: Schema) -> DenseCost:
        """Counts the learned weights of losses too."""
        learned = len(schema.labels) if self.loss_weights == "uncertainty" else 0
        return super().dense_cost(schema) + DenseCost(weights=learned)

    def mlp_cost(self, inputs: int, units: tuple[int, ...], all_hidden: bool = False) -> DenseCost:
        """Counts an MLP with the model's dropout and batch normalization."""
        return cost.mlp(inputs, units, self.batch_norm, self.dropout, all_hidden)


@dataclasses.dataclass
class DeepModelConfig(HiddenLayersConfig):
    """A model with an MLP that ends in the logit.

    Attributes:
      top_mlp: units of the MLP's layers; the last must be 1.
    """

    _: dataclasses.KW_ONLY
    top_mlp: tuple[int, ...] = (512, 256, 1)

    def check(self) -> None:
        """Checks the MLP too."""
        super().check()
        check_units("top_mlp", self.top_mlp)
        if self.top_mlp[-1] != 1:
            refuse("model.top_mlp", self.top_mlp, "its last number must be 1, the logit")

    def top_cost(self, inputs: int, schema: Schema) -> DenseCost:
        """Counts the top MLP on `inputs` numbers, and the copy of its input."""
        return cost.concatenation(inputs) + self.top_mlp_cost(inputs, schema)

    def top_mlp_cost(self, inputs: int, schema: Schema) -> DenseCost:
        """Counts the top MLP on `inputs` numbers, with an output for each label."""
        return self.mlp_cost(inputs, (*self.top_mlp[:-1], len(schema.labels)))


def check_units(field: str, units: tuple[int, ...], may_be_empty: bool = False) -> None:
    """Checks that the units of an MLP's layers are positive."""
    if (not units and not may_be_empty) or any(not isinstance(u, int) or u < 1 for u in units):
        refuse(f"model.{field}", units, "a tuple of positive whole numbers is needed")
