"""The configuration of DLRM."""

import dataclasses
from typing import ClassVar

from tfrs_dlrm.config.field_checks import check_choice, refuse
from tfrs_dlrm.config.models import cost
from tfrs_dlrm.config.models.base import DeepModelConfig, check_units
from tfrs_dlrm.config.models.cost import DenseCost
from tfrs_dlrm.schema import Schema


@dataclasses.dataclass
class DLRMConfig(DeepModelConfig):
    """See `tfrs_dlrm.models.dlrm.DLRM`.

    Attributes:
      bottom_mlp: units of the MLP over the dense features; the last must be the embedding dimension.
      self_interaction: whether the dot products of the vectors with themselves are included.
      interaction: what the top MLP sees: `dot`, dot products of the vectors, or `cat`, the vectors concatenated.
    """

    keras_class: ClassVar[str] = "tfrs_dlrm.models.dlrm:DLRM"

    name: str = dataclasses.field(default="dlrm", init=False)
    _: dataclasses.KW_ONLY
    bottom_mlp: tuple[int, ...] = (512, 256, 16)
    self_interaction: bool = False
    interaction: str = "dot"

    def check(self) -> None:
        """Checks the bottom MLP and the interaction too."""
        super().check()
        check_units("bottom_mlp", self.bottom_mlp)
        check_choice("model.interaction", self.interaction, ("dot", "cat"))
        if self.interaction == "cat":
            if self.self_interaction:
                refuse("model.self_interaction", self.self_interaction, "it needs model.interaction='dot'")
        elif self.embedding_dim and self.bottom_mlp[-1] != self.embedding_dim:
            wanted = f"its last number must be model.embedding_dim={self.embedding_dim}"
            refuse("model.bottom_mlp", self.bottom_mlp, wanted)

    def with_embedding_dim(self, dim: int) -> "DLRMConfig":
        """Changes the last layer of the bottom MLP too."""
        return dataclasses.replace(self, embedding_dim=dim, bottom_mlp=(*self.bottom_mlp[:-1], dim))

    def layer_cost(self, schema: Schema) -> DenseCost:
        """Counts bottom MLP, projections, interaction and top MLP."""
        dims, dense = cost.vector_dims(schema), bool(schema.dense)
        dim = self.bottom_mlp[-1] if dense else max(dims)
        bottom = self.mlp_cost(schema.dense_width, self.bottom_mlp) if dense else DenseCost()
        if self.interaction == "cat":
            return bottom + self.top_cost(sum(dims) + dense * dim, schema)
        vectors = len(dims) + dense
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
        concatenated = cost.concatenation(dim + pairs if dense else 0)
        top = self.mlp_cost(dense * dim + pairs, (*self.top_mlp[:-1], len(schema.labels)))
        return bottom + projections + interaction + concatenated + top
