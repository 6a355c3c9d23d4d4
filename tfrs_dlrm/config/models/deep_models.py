"""The configurations of models with an MLP that ends in the logit."""

import dataclasses
from typing import ClassVar

from tfrs_dlrm.config.field_checks import check_at_least, check_choice, refuse
from tfrs_dlrm.config.models import cost
from tfrs_dlrm.config.models.base import DeepModelConfig, check_units
from tfrs_dlrm.config.models.cost import DenseCost
from tfrs_dlrm.config.models.towers import TowerModelConfig
from tfrs_dlrm.schema import Schema


@dataclasses.dataclass
class DLRMConfig(TowerModelConfig):
    """The configuration of `tfrs_dlrm.models.dlrm.DLRM`.

    Attributes:
      bottom_mlp: units of the MLP over the dense features; the last must be the embedding dimension.
      self_interaction: whether the dot products of the vectors with themselves are included.
      interaction: what the top MLP sees: `dot`, dot products of the vectors, or `cat`, the vectors concatenated.
      numbers: what the dense features become: `mlp`, one vector of the bottom MLP, or `autodis`, a vector for each
        by soft buckets.
      linear: whether the logit has a linear term of all vectors and dense features, next to the top MLP.
    """

    keras_class: ClassVar[str] = "tfrs_dlrm.models.dlrm:DLRM"

    name: str = dataclasses.field(default="dlrm", init=False)
    _: dataclasses.KW_ONLY
    bottom_mlp: tuple[int, ...] = (512, 256, 16)
    self_interaction: bool = False
    interaction: str = "dot"
    numbers: str = "mlp"
    linear: bool = False

    def check(self) -> None:
        """Checks the bottom MLP and the interaction too."""
        super().check()
        check_units("bottom_mlp", self.bottom_mlp)
        check_choice("model.interaction", self.interaction, ("dot", "cat"))
        check_choice("model.numbers", self.numbers, ("mlp", "autodis"))
        if self.interaction == "cat":
            if self.self_interaction:
                refuse("model.self_interaction", self.self_interaction, "it needs model.interaction='dot'")
        elif self.embedding_dim and self.bottom_mlp[-1] != self.embedding_dim:
            wanted = f"its last number must be model.embedding_dim={self.embedding_dim}"
            refuse("model.bottom_mlp", self.bottom_mlp, wanted)

    def with_embedding_dim(self, dim: int) -> "DLRMConfig":
        """Changes the last layer of the bottom MLP too."""
        return dataclasses.replace(self, embedding_dim=dim, bottom_mlp=(*self.bottom_mlp[:-1], dim))

    def projected_dim(self, schema: Schema) -> int:
        """Returns the dimension of the interacting vectors."""
        bottom = schema.unprojected_width and self.numbers == "mlp"
        return self.bottom_mlp[-1] if bottom else max(cost.vector_dims(schema))

    def layer_cost(self, schema: Schema) -> DenseCost:
        """Counts the layers of the numbers, projections, interaction and top MLP."""
        width, soft = schema.unprojected_width, self.numbers == "autodis"
        dim = self.projected_dim(schema)
        dims = [*cost.vector_dims(schema), *(dim for _ in schema.projected)]
        of_numbers = width if soft else bool(width)  # vectors
        linear = DenseCost()
        if self.linear:
            numbers = sum(dims) if self.interaction == "cat" else len(dims) * dim
            linear = cost.linear_term(numbers, width, len(schema.labels))
        bottom = cost.auto_dis(width, dim) if soft else DenseCost()
        if width and not soft:
            bottom = self.mlp_cost(width, self.bottom_mlp)
        if self.interaction == "cat":
            return linear + bottom + self.top_cost(sum(dims) + of_numbers * dim, schema)
        vectors = len(dims) + of_numbers
        pairs = vectors * (vectors + 1 if self.self_interaction else vectors - 1) // 2
        projected = {f.table: schema.table_of(f).dim for f in schema.categorical if schema.table_of(f).dim != dim}
        projections = DenseCost(
            weights=sum(d * dim for d in projected.values()),
            flops=sum(2 * d * dim for d in dims if d != dim),
            activations=sum(dim for d in dims if d != dim),
        )
        interaction = DenseCost(
            flops=2 * vectors * vectors * dim,  # every pair both ways, and each with itself
            activations=vectors * dim + vectors * vectors + pairs,  # stacked, multiplied, selected
        )
        concatenated = cost.concatenation(of_numbers * dim + pairs if of_numbers else 0)
        top = self.top_mlp_cost(of_numbers * dim + pairs, schema)
        return linear + bottom + projections + interaction + concatenated + top


@dataclasses.dataclass
class DCNConfig(TowerModelConfig):
    """The configuration of `tfrs_dlrm.models.dcn.DCN`.

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
        numbers = schema.unprojected_width
        if numbers and self.dense_mlp:
            width += self.dense_mlp[-1] - numbers
            dense = self.mlp_cost(numbers, self.dense_mlp)
        kernel = 2 * width * self.cross_rank if self.cross_rank else width * width
        layer = DenseCost(kernel + width, 2 * kernel + 3 * width, 3 * width + self.cross_rank)
        logit = cost.logit(width, schema) if self.cross_structure == "parallel" else DenseCost()
        return dense + layer.times(self.cross_layers) + logit + self.top_cost(width, schema)


@dataclasses.dataclass
class MLPConfig(TowerModelConfig):
    """The configuration of `tfrs_dlrm.models.embedding_mlp.EmbeddingMLP`."""

    keras_class: ClassVar[str] = "tfrs_dlrm.models.embedding_mlp:EmbeddingMLP"

    name: str = dataclasses.field(default="mlp", init=False)

    def layer_cost(self, schema: Schema) -> DenseCost:
        """Counts the MLP."""
        return self.top_cost(cost.input_width(schema), schema)


@dataclasses.dataclass
class DeepFMConfig(DeepModelConfig):
    """The configuration of `tfrs_dlrm.models.deepfm.DeepFM`."""

    keras_class: ClassVar[str] = "tfrs_dlrm.models.deepfm:DeepFM"
    linear_weights: ClassVar[bool] = True
    one_dimension: ClassVar[bool] = True

    name: str = dataclasses.field(default="deepfm", init=False)

    def layer_cost(self, schema: Schema) -> DenseCost:
        """Counts the factorization machine and the MLP."""
        vectors = len(schema.categorical) + len(schema.projected) + schema.unprojected_width
        width = vectors * max(cost.vector_dims(schema))
        return cost.factorization_machine(schema) + self.top_cost(width, schema)


@dataclasses.dataclass
class WideAndDeepConfig(DeepModelConfig):
    """The configuration of `tfrs_dlrm.models.wide_and_deep.WideAndDeep`."""

    keras_class: ClassVar[str] = "tfrs_dlrm.models.wide_and_deep:WideAndDeep"
    linear_weights: ClassVar[bool] = True

    name: str = dataclasses.field(default="wide_and_deep", init=False)

    def layer_cost(self, schema: Schema) -> DenseCost:
        """Counts the linear terms and the MLP over all vectors."""
        return cost.linear_part(schema) + self.top_cost(cost.input_width(schema), schema)
